//! How far a case is: asked seldom, since answers are work of the process that is measured.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio_postgres::Client;

use super::cases::{Case, Output, Part};
use super::process::Process;
use super::receiver::Receiver;
use super::{GLANCE, Load, PATIENCE, slot};
use crate::model::Lsn;

/// Between two questions to walmill.
pub(super) const ASK: Duration = Duration::from_millis(50);

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
pub(super) struct Done {
    emitted: u64,
    dropped: u64,
    dead: u64,
}

impl Progress<'_> {
    /// Waits until everything has gone as far as the case goes.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        match (self.case.part, self.case.output) {
            (Part::Raw, _) => self.process.line().await,
            (Part::Journal, _) => wait(self, GLANCE, 1, async |this| this.confirmed().await).await,
            (Part::Pipeline(_), Output::None) => {
                let changes = self.load.changes();
                wait(self, ASK, changes, async |this| Ok(this.pipeline().await?.changes())).await
            }
            (Part::Pipeline(_), _) => {
                let events = self.load.kept(self.case.keeps());
                wait(self, GLANCE, events, async |this| this.receiver.received().await).await
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
                wait(self, ASK, changes, all).await?;
                let (done, kept) = (self.pipeline().await?, self.load.kept(self.case.keeps()));
                ensure!(
                    done.emitted == kept && done.changes() == changes && done.dead == 0,
                    "{kept} events of {changes} changes are wanted, and it made {done:?}"
                );
                Ok(done.emitted)
            }
        }
    }

    /// 1 once everything is on disk.
    async fn confirmed(&self) -> anyhow::Result<u64> {
        Ok(slot::is_confirmed(self.database, self.until).await?.into())
    }

    async fn pipeline(&self) -> anyhow::Result<Done> {
        pipelines(self.port).await?.first().copied().context("there is no pipeline")
    }

    /// Changes that the source has received.
    async fn received(&self) -> anyhow::Result<u64> {
        let metrics = get(self.port, "/metrics").await?;
        let name = "walmill_source_changes_total ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.context("no such metric")?.parse()?)
    }
}

impl AsMut<Process> for Progress<'_> {
    fn as_mut(&mut self) -> &mut Process {
        self.process
    }
}

/// Waits until what is counted reaches `goal`; gives up when it stands still.
pub(super) async fn wait<T: AsMut<Process>>(
    watched: &mut T,
    pause: Duration,
    goal: u64,
    count: impl AsyncFn(&mut T) -> anyhow::Result<u64>,
) -> anyhow::Result<()> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        watched.as_mut().check()?;
        let now = count(watched).await?;
        if now >= goal {
            return Ok(());
        }
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        if moved.elapsed() > PATIENCE {
            let words = watched.as_mut().last_words();
            bail!("it stands still at {now} of {goal}:\n{words}");
        }
        tokio::time::sleep(pause).await;
    }
}

/// What each pipeline of the walmill that listens here has done.
pub(super) async fn pipelines(port: u16) -> anyhow::Result<Vec<Done>> {
    let answer: Value = serde_json::from_str(&get(port, "/api/v1/pipelines").await?)?;
    let pipelines = answer["pipelines"].as_array().context("a list of pipelines")?;
    pipelines.iter().map(Done::of).collect()
}

async fn get(port: u16, path: &str) -> anyhow::Result<String> {
    let answer = reqwest::get(format!("http://127.0.0.1:{port}{path}")).await?;
    Ok(answer.error_for_status()?.text().await?)
}

impl Done {
    fn of(pipeline: &Value) -> anyhow::Result<Self> {
        if let Some(why) = pipeline["stopped"].as_str() {
            bail!("the pipeline stopped: {why}");
        }
        let number = |name: &str| pipeline[name].as_u64().unwrap_or_default();
        let (emitted, dropped) = (number("emitted"), number("dropped"));
        Ok(Self { emitted, dropped, dead: number("dead_letters") })
    }

    pub(super) fn changes(self) -> u64 {
        self.emitted + self.dropped + self.dead
    }
}
