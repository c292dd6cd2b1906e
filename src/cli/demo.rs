//! `walmill demo`: the main job on a throw-away PostgreSQL, with something to look at.

mod writer;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tempfile::TempDir;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use super::{Failure, print_findings, run, start_log};
use crate::app::{self, AppError, Ready};
use crate::cluster::{Cluster, Options};
use crate::config::Config;
use crate::config::document::Document;
use crate::config::finding::Finding;
use crate::model::Offset;
use crate::store::Store;
use crate::store::stream::Read;

const CONFIG: &str = include_str!("demo/walmill.toml");
const SCHEMA: &str = include_str!("demo/schema.sql");
const CLEAN_UP: &str = "
    SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
        WHERE slot_name = 'walmill_demo';
    DROP PUBLICATION IF EXISTS walmill_demo;
    DROP SCHEMA IF EXISTS reddit CASCADE;";
const PLUGINS: [&str; 3] = ["filter.wasm", "reshape.wasm", "route.wasm"];
const GRACE: Duration = Duration::from_secs(10);

/// `walmill demo`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Use this database instead of a throw-away one. Creates the schema `reddit`, the publication
    /// and the slot `walmill_demo` there, and drops them at the end.
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database: Option<String>,
    /// The folder with filter.wasm, reshape.wasm and route.wasm.
    #[arg(long, value_name = "FOLDER", env = "WALMILL_PLUGINS", default_value = "target/plugins")]
    plugins: PathBuf,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4000")]
    listen: SocketAddr,
    /// Changes that the writer makes in a second; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rate: u32,
    /// End by itself after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    start_log(None);
    let folder = sample_folder(&arguments.plugins)?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::run_time(Finding::error("runtime", "", error.to_string())))?;
    let cluster = match &arguments.database {
        Some(_) => None,
        None => Some(start_cluster()?),
    };
    let url = match (&cluster, &arguments.database) {
        (Some(cluster), _) => cluster.url(),
        (None, Some(url)) => {
            eprintln!(
                "Using the database of DATABASE_URL. It gets the schema `reddit`, the publication \
                 and the slot `walmill_demo`; all three are dropped at the end."
            );
            url.clone()
        }
        (None, None) => return Ok(()),
    };
    let outcome = runtime.block_on(show(&arguments, &url, folder.path(), cluster.is_none()));
    drop(cluster);
    outcome
}

fn start_cluster() -> Result<Cluster, Failure> {
    eprintln!("Starting a throw-away PostgreSQL …");
    Cluster::start(&Options::default()).map_err(|error| {
        let finding = Finding::error("postgres", "", format!("{:#}", anyhow::Error::from(error)));
        Failure::environment(finding)
    })
}

/// A folder of the demo's own, with the config and copies of the plugins, to be played with.
fn sample_folder(plugins: &Path) -> Result<TempDir, Failure> {
    let make = || -> anyhow::Result<TempDir> {
        let folder = tempfile::Builder::new().prefix("walmill-demo-").tempdir()?;
        std::fs::create_dir(folder.path().join("plugins"))?;
        std::fs::write(folder.path().join("walmill.toml"), CONFIG)?;
        for name in PLUGINS {
            let from = plugins.join(name);
            std::fs::copy(&from, folder.path().join("plugins").join(name))
                .with_context(|| format!("read {}", from.display()))?;
        }
        Ok(folder)
    };
    make().map_err(|error| {
        Failure::environment(
            Finding::error("plugins", "", format!("the sample plugins: {error:#}")).suggest(
                "build them with `scripts/build-plugins`, or name their folder with `--plugins`",
            ),
        )
    })
}

async fn show(
    arguments: &Arguments,
    url: &str,
    folder: &Path,
    clean_up: bool,
) -> Result<(), Failure> {
    let database = connect(url).await.map_err(|error| {
        Failure::environment(Finding::error("database", "", format!("{error:#}")))
    })?;
    database.batch_execute(SCHEMA).await.map_err(|error| {
        let detail = error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().into());
        Failure::environment(
            Finding::error("database", "", format!("create the sample tables: {detail}")).suggest(
                "the demo makes the schema `reddit`: drop or rename the one that is there",
            ),
        )
    })?;
    let ended = stream(arguments, url, folder, database).await;
    if clean_up {
        let dropped = async { anyhow::Ok(connect(url).await?.batch_execute(CLEAN_UP).await?) };
        if let Err(error) = dropped.await {
            let finding = Finding::warning("clean-up", "", format!("{error:#}"));
            print_findings(&[finding.suggest(format!("run this yourself:{CLEAN_UP}"))]);
        }
    }
    ended
}

async fn connect(url: &str) -> anyhow::Result<tokio_postgres::Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("connect to the database")?;
    tokio::spawn(connection);
    Ok(client)
}

async fn stream(
    arguments: &Arguments,
    url: &str,
    folder: &Path,
    database: tokio_postgres::Client,
) -> Result<(), Failure> {
    let path = folder.join("walmill.toml");
    let document = Document::read(&path).map_err(|finding| Failure::usage(vec![finding]))?;
    let set = [format!("server.listen=\"{}\"", arguments.listen)];
    let lookup = |name: &str| (name == "DEMO_DATABASE").then(|| url.to_owned());
    let loaded = Config::parse(&document, &set, &lookup).map_err(Failure::usage)?;
    let shutdown = CancellationToken::new();
    run::cancel_on_signal(&shutdown);
    if let Some(seconds) = arguments.seconds {
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            shutdown.cancel();
        });
    }
    tokio::spawn(writer::write(database, arguments.rate, shutdown.clone()));
    let (url, folder) = (url.to_owned(), folder.to_owned());
    let ready = move |Ready { address, store }: Ready| {
        greet(address, &url, &folder);
        tokio::spawn(show_first_event(store));
    };
    app::run(loaded.config, shutdown, GRACE, ready).await.map_err(|error| match error {
        AppError::Config(findings) => Failure::usage(findings),
        AppError::Environment(finding) => Failure::environment(finding),
        AppError::RunTime(error) => {
            Failure::run_time(Finding::error("demo", "", format!("{error:#}")))
        }
    })
}

fn greet(address: SocketAddr, url: &str, folder: &Path) {
    let folder = folder.display();
    println!(
        "\nwalmill streams a small Reddit: posts, comments, votes.\n\n  \
         console      http://{address}/console\n  \
         streams      http://{address}/v1/streams\n  \
         listen       curl -N 'http://{address}/v1/streams/activity/sse?last_event_id=earliest'\n  \
         a subreddit  curl -N 'http://{address}/v1/streams/posts.rust/sse?last_event_id=earliest'\n  \
         write        psql '{url}' -c \"INSERT INTO reddit.posts (subreddit, author, email, title) \
         VALUES ('rust', 'me', 'me@example.com', 'Hello')\"\n  \
         swap         change the plugins in {folder}/plugins: saving a file is enough\n\n\
         Ctrl-C ends it and leaves nothing behind.\n"
    );
}

/// Proof of life: the first event, as clients get it.
async fn show_first_event(store: Store) {
    let Some(stream) = store.stream("activity") else { return };
    let mut head = stream.head();
    if head.wait_for(|head| *head > Offset::START).await.is_err() {
        return;
    }
    if let Ok(Read::Events(events)) = stream.read(Offset::START)
        && let Some(event) = events.after(Offset::START).next()
    {
        let mut stdout = std::io::stdout().lock();
        // A closed stdout is no reason to end.
        let _ = writeln!(stdout, "The first event:\n{}\n", String::from_utf8_lossy(&event.json));
    }
}
