//! A second server that follows the first, and can be promoted.

use std::fs;

use super::files::{self, RunAs};
use super::{Cluster, ClusterError};

impl Cluster {
    /// Copies the running server and starts the copy as its standby, on a port of its own. It takes
    /// over the first one's users and settings.
    ///
    /// # Errors
    /// See [`ClusterError`]; [`ClusterError::Io`] where there is no `pg_basebackup`.
    pub fn standby(&self) -> Result<Self, ClusterError> {
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
        // The folder may hold links to some of the programs only.
        let programs = fs::canonicalize(self.bin.join("postgres"))?;
        let output = self
            .program(&programs.with_file_name("pg_basebackup").display().to_string())
            .arg("-D")
            .arg(standby.data())
            .arg("-d")
            .arg(self.url())
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .output()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(ClusterError::Start(format!("pg_basebackup: {error}")));
        }
        standby
            .add_settings(&[("unix_socket_directories", &standby.folder.display().to_string())])?;
        standby.launch()?;
        Ok(standby)
    }
}
