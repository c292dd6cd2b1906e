//! One size of one thing: a load that is made for it, and a walmill that takes it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::ensure;
use tokio_postgres::Client;

use super::super::process::{Process, free_port};
use super::super::progress::{ASK, pipelines, wait};
use super::super::{load, slot, source, usage};
use super::crowd::Crowd;
use super::report::Point;
use super::topic::Topic;

/// Texts are cut from noise that no compression makes smaller by much, and kept as they are.
pub(super) const SCHEMA: &str = "
    CREATE TABLE rows (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, quantity bigint NOT NULL,
        route text NOT NULL, body text NOT NULL);
    ALTER TABLE rows ALTER body SET STORAGE EXTERNAL;
    CREATE PUBLICATION walmill_bench FOR TABLE rows WITH (publish = 'insert');
    CREATE TABLE noise (number bigint PRIMARY KEY, body text NOT NULL);
    ALTER TABLE noise ALTER body SET STORAGE EXTERNAL;
    INSERT INTO noise SELECT k, (SELECT string_agg(md5((k * 1000 + part)::text), '')
        FROM generate_series(1, 320) part) FROM generate_series(0, 499) k;
    ANALYZE noise;";
/// Bytes of one such text.
const NOISE: u64 = 320 * 32;
/// The stream that clients read: that of the first pipeline.
const STREAM: &str = "rows";

/// What all sizes have in common.
pub(super) struct Trial<'a> {
    pub(super) database: &'a Client,
    url: String,
    plugins: PathBuf,
}

/// What one size is about: one number of it is the size, the others are as usual.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    /// Bytes of text in a row.
    pub(super) width: u64,
    /// Rows in a transaction.
    pub(super) together: u64,
    pub(super) pipelines: u64,
    pub(super) filters: u64,
    /// None: without a route.
    pub(super) streams: Option<u64>,
    pub(super) clients: u64,
}

impl Setup {
    pub(super) const USUAL: Self =
        Self { width: 100, together: 100, pipelines: 1, filters: 0, streams: None, clients: 0 };

    fn new(topic: Topic, size: u64) -> Self {
        let usual = Self::USUAL;
        match topic {
            Topic::RowWidth => Self { width: size, ..usual },
            Topic::TransactionSize => Self { together: size, ..usual },
            Topic::Pipelines => Self { pipelines: size, ..usual },
            Topic::Plugins => Self { filters: size, ..usual },
            Topic::Streams => Self { streams: Some(size), ..usual },
            Topic::Subscribers => Self { clients: size, ..usual },
            Topic::Journal | Topic::Restart => usual,
        }
    }

    /// The config of its pipelines.
    fn pipelines(&self, plugins: &Path) -> String {
        let mut names = Vec::new();
        let mut text = String::new();
        let mut plugin = |name: String, file: &str, config: &str| {
            let path = plugins.join(file);
            // Writing to a string does not fail.
            let _ =
                writeln!(text, "[plugins.{name}]\npath = '{}'\nconfig = {config}", path.display());
            names.push(format!("'{name}'"));
        };
        for number in 0..self.filters {
            plugin(format!("filter{number}"), "filter.wasm", "{ where = 'quantity >= 0' }");
        }
        if self.streams.is_some() {
            plugin("route".into(), "route.wasm", "{ column = 'route', prefix = 'rows.' }");
        }
        let names = names.join(", ");
        for number in 0..self.pipelines {
            let name = if number == 0 { STREAM.into() } else { format!("{STREAM}-{number}") };
            let _ = writeln!(
                text,
                "[[pipeline]]\nname = '{name}'\ntables = ['public.rows']\nplugins = [{names}]\n\
                 streams = ['{name}.*']"
            );
        }
        text
    }
}

impl<'a> Trial<'a> {
    pub(super) fn new(database: &'a Client, url: String, plugins: &Path) -> std::io::Result<Self> {
        Ok(Self { database, url, plugins: std::path::absolute(plugins)? })
    }

    /// Writes so many rows.
    pub(super) async fn write(&self, setup: &Setup, rows: u64) -> anyhow::Result<()> {
        let Setup { width, together, streams, .. } = *setup;
        let streams = streams.unwrap_or(1);
        let text = match width.div_ceil(NOISE) {
            0 | 1 => format!("substr(body, 1, {width})"),
            times => format!("substr(repeat(body, {times}), 1, {width})"),
        };
        let statement = format!(
            "INSERT INTO rows (quantity, route, body) SELECT r % 90, r % {streams}, {text} \
             FROM generate_series(i, least(i + {together} - 1, n)) r JOIN noise ON number = r % 500"
        );
        load::repeat(self.database, 1, rows, together, &statement).await?;
        Ok(())
    }

    /// A walmill that reads the slot from where it is.
    pub(super) fn walmill(&self, setup: &Setup) -> anyhow::Result<Running> {
        let port = free_port()?;
        let config = [source(&self.url, port), setup.pipelines(&self.plugins)].concat();
        Ok(Running { process: Process::walmill(&config)?, port })
    }

    /// What one size costs.
    pub(super) async fn point(&self, topic: Topic, size: u64) -> anyhow::Result<Point> {
        let (setup, rows) = (Setup::new(topic, size), topic.rows(size));
        slot::make(self.database, slot::COPY).await?;
        // Clients are there when the rows are written; others find them written.
        if setup.clients == 0 {
            self.write(&setup, rows).await?;
        }
        let mut running = self.walmill(&setup)?;
        slot::walsender(self.database, &mut running.process).await?;
        let crowd = Crowd::connect(running.port, STREAM, setup.clients).await?;
        let (began, before) = (Instant::now(), usage::of(running.process.id())?);
        if setup.clients > 0 {
            self.write(&setup, rows).await?;
        }
        running.taken(rows * setup.pipelines).await?;
        let deliveries = rows * setup.clients;
        wait(&mut running, ASK, deliveries, async |_| Ok(crowd.received())).await?;
        let (after, seconds) = (usage::of(running.process.id())?, began.elapsed().as_secs_f64());
        running.process.stop().await?;
        let received = crowd.finish().await?;
        ensure!(received == deliveries, "{received} events were received, of {deliveries}");
        slot::discard(self.database).await?;
        self.forget().await?;
        let cpu = after.cpu - before.cpu;
        Ok(Point {
            size: size as f64,
            cost: cpu / rows as f64 * 1e6,
            peak: after.peak,
            rows,
            seconds,
        })
    }

    /// Gives the disk back what the rows took, and what was logged of them.
    pub(super) async fn forget(&self) -> anyhow::Result<()> {
        Ok(self.database.batch_execute("TRUNCATE rows; CHECKPOINT").await?)
    }
}

/// A walmill under way.
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) port: u16,
}

impl Running {
    /// Changes that its pipelines have done with, all together.
    pub(super) async fn done(&self) -> anyhow::Result<u64> {
        Ok(pipelines(self.port).await?.iter().map(|done| done.changes()).sum())
    }

    /// Waits until they have done with so many.
    pub(super) async fn taken(&mut self, changes: u64) -> anyhow::Result<()> {
        wait(self, ASK, changes, async |this| this.done().await).await
    }
}

impl AsMut<Process> for Running {
    fn as_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
