//! How far a case is: asked seldom, since answers are work of the process that is measured.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio_postgres::Client;

use super::cases::{Case, Output, Part};
use super::process::Process;
use super::receiver::Receiver;
use super::{COPY, GLANCE, Load, PATIENCE};
use crate::model::Lsn;

/// Between two questions to walmill.
const ASK: Duration = Duration::from_millis(50);

/// A case under way.
pub(super) struct Progress<'a> {
    pub(super) case: &'a Case,
    pub(super) process: &'a mut Process,
    pub(super) receiver: &'a mut Receiver,
    pub(super) database: &'a Client,
    pub(super) port: u16,
    pub(super) load: Load,
    /// The end of the load lies behind it.
    pub(super) until: Lsn,
}

/// What a pipeline has done.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    emitted: u64,
    dropped: u64,
    dead: u64,
}

impl Progress<'_> {
    /// Waits until everything has gone as far as the case goes.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        match (self.case.part, self.case.output) {
            (Part::Raw, _) => self.process.line().await,
            (Part::Journal, _) => self.wait(GLANCE, 1, async |this| this.confirmed().await).await,
            (Part::Pipeline(_), Output::None) => {
                let changes = self.load.changes();
                self.wait(ASK, changes, async |this| Ok(this.pipeline().await?.changes())).await
            }
            (Part::Pipeline(_), _) => {
                let events = self.load.kept(self.case.keeps());
                self.wait(GLANCE, events, async |this| this.receiver.received().await).await
            }
        }
    }

    /// Events that came out, which must be those of the load, one for one.
    pub(super) async fn count(&mut self) -> anyhow::Result<u64> {
        let changes = self.load.changes();
        match self.case.part {
            Part::Raw => Ok(changes),
            Part::Journal => {
                let received = self.received().await?;
                ensure!(received == changes, "{received} changes were received, of {changes}");
                Ok(changes)
            }
            Part::Pipeline(_) => {
                let all = async |this: &mut Self| Ok(this.pipeline().await?.changes());
                self.wait(ASK, changes, all).await?;
                let (done, kept) = (self.pipeline().await?, self.load.kept(self.case.keeps()));
                ensure!(
                    done.emitted == kept && done.changes() == changes && done.dead == 0,
                    "{kept} events of {changes} changes are wanted, and it made {done:?}"
                );
                Ok(done.emitted)
            }
        }
    }

    /// Waits until what is counted reaches `goal`; gives up when it stands still.
    async fn wait(
        &mut self,
        pause: Duration,
        goal: u64,
        count: impl AsyncFn(&mut Self) -> anyhow::Result<u64>,
    ) -> anyhow::Result<()> {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            self.process.check()?;
            let now = count(self).await?;
            if now >= goal {
                return Ok(());
            }
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            if moved.elapsed() > PATIENCE {
                bail!("it stands still at {now} of {goal}:\n{}", self.process.last_words());
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// 1 once PostgreSQL was told that everything is on disk.
    async fn confirmed(&self) -> anyhow::Result<u64> {
        let ask = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1";
        let place: String = self.database.query_one(ask, &[&COPY]).await?.get(0);
        Ok(u64::from(place.parse::<Lsn>()? > self.until))
    }

    async fn pipeline(&self) -> anyhow::Result<Done> {
        let answer: Value = serde_json::from_str(&self.get("/api/v1/pipelines").await?)?;
        let pipeline = &answer["pipelines"][0];
        if let Some(why) = pipeline["stopped"].as_str() {
            bail!("the pipeline stopped: {why}");
        }
        let number = |name: &str| pipeline[name].as_u64().unwrap_or_default();
        let (emitted, dropped) = (number("emitted"), number("dropped"));
        Ok(Done { emitted, dropped, dead: number("dead_letters") })
    }

    /// Changes that the source has received.
    async fn received(&self) -> anyhow::Result<u64> {
        let metrics = self.get("/metrics").await?;
        let name = "walmill_source_changes_total ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.context("no such metric")?.parse()?)
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}{path}", self.port)).await?;
        Ok(answer.error_for_status()?.text().await?)
    }
}

impl Done {
    fn changes(self) -> u64 {
        self.emitted + self.dropped + self.dead
    }
}
