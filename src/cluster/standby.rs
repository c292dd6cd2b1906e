//! A second server that follows the first, and can be promoted.

use std::fs;
use std::io;
use std::thread;

use super::files::{self, RunAs};
use super::{Cluster, ClusterError};

impl Cluster {
    /// Copies the running server and starts the copy as its standby, on a port of its own and with
    /// further settings. The first server must let `postgres` connect for replication, and be of
    /// version 15 or later.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn standby(&self, settings: &[(&str, &str)]) -> Result<Self, ClusterError> {
        let name = format!("walmill-pg-{:08x}", rand::random::<u32>());
        let folder = std::env::temp_dir().join(name);
        files::make_private(&folder)?;
        let mut standby = Self {
            folder,
            bin: self.bin.clone(),
            user: RunAs::needed()?,
            password: self.password.clone(),
            port: 0,
            server: None,
        };
        files::give(&standby.folder, standby.user)?;
        let (url, from, to, user) = (self.url(), self.data(), standby.data(), standby.user);
        // Whoever calls this may be in a runtime, which must not be blocked in.
        let copied = thread::spawn(move || back_up(&url, || files::copy(&from, &to, user)));
        let label = copied.join().map_err(|_| io::Error::other("the copy panicked"))??;
        let data = standby.data();
        fs::remove_file(data.join("postmaster.pid"))?;
        // Slots are the first server's own.
        for slot in fs::read_dir(data.join("pg_replslot"))? {
            fs::remove_dir_all(slot?.path())?;
        }
        files::write_private(&data.join("backup_label"), label.as_bytes(), user)?;
        files::write_private(&data.join("standby.signal"), b"", user)?;
        let primary = format!(
            "host=127.0.0.1 port={} user={} password={} dbname=postgres",
            self.port,
            super::USER,
            self.password
        );
        let sockets = standby.folder.display().to_string();
        standby.add_settings(&[
            ("unix_socket_directories", &sockets),
            ("primary_conninfo", &primary),
        ])?;
        standby.add_settings(settings)?;
        standby.launch()?;
        Ok(standby)
    }
}

/// Runs `copy` while the server knows that its files are copied; the label that the copy needs
/// (PostgreSQL docs, "Making a Base Backup Using the Low Level API").
fn back_up(url: &str, copy: impl FnOnce() -> io::Result<()>) -> io::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, connection) =
            tokio_postgres::connect(url, tokio_postgres::NoTls).await.map_err(io::Error::other)?;
        let connection = tokio::spawn(connection);
        let start = "SELECT pg_backup_start('standby', fast => true)::text";
        client.query_one(start, &[]).await.map_err(io::Error::other)?;
        let copied = copy();
        let stop = "SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)";
        let label = client.query_one(stop, &[]).await.map_err(io::Error::other)?.get(0);
        connection.abort();
        copied.map(|()| label)
    })
}
