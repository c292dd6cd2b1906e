//! Backfills: rows that are there already, chunk by chunk, while the stream goes on.
//!
//! One table is read at a time, in the order of its primary key. What was asked for and how far it
//! is stands in the store, so a restart goes on where it was; `assembler/watermark.rs` says why a
//! chunk's rows are neither older than the stream nor in it already.

mod plan;
mod taker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::assembler::watermark::Ask;
use super::config::Config;
use super::database::Database;
use super::entry::Place;
use super::fault::{Fault, Report};
use crate::metrics::Metrics;
use crate::model::Finding;
use crate::model::backfill::{
    Backfill, BackfillAction, BackfillAnswer, BackfillCommand, BackfillRequest, BackfillState,
    BackfillStatus, Backfills,
};
use crate::model::status::{SourceState, SourceStatus};
use crate::store::{Store, StoreError};
use taker::{Taken, Taker};

/// Wishes that wait.
const QUEUE: usize = 16;
/// Between two tries of one chunk: at first, and at most.
const SOON: Duration = Duration::from_millis(50);
const SELDOM: Duration = Duration::from_secs(2);

/// The task that runs backfills.
pub(super) struct Runner {
    config: Config,
    store: Store,
    metrics: Arc<Metrics>,
    backfills: BTreeMap<u64, Backfill>,
    commands: mpsc::Receiver<BackfillCommand>,
    shown: watch::Sender<Vec<BackfillStatus>>,
    source: watch::Receiver<SourceStatus>,
    asks: mpsc::Sender<Ask>,
    /// Where the server is that the stream comes from.
    place: watch::Receiver<Option<Place>>,
    /// Tries of the chunk at hand that came to nothing.
    tries: u32,
}

impl Runner {
    /// With what the store has; the other end of its commands, and of what it asks of the stream.
    pub(super) fn new(
        config: Config,
        store: Store,
        metrics: Arc<Metrics>,
        source: watch::Receiver<SourceStatus>,
        place: watch::Receiver<Option<Place>>,
    ) -> Result<(Self, Backfills, mpsc::Receiver<Ask>), StoreError> {
        let backfills = store.backfills()?.into_iter().map(|backfill| (backfill.id, backfill));
        let (sender, commands) = mpsc::channel(QUEUE);
        let (asks, asked) = mpsc::channel(1);
        let (shown, status) = watch::channel(Vec::new());
        let runner = Self {
            config,
            store,
            metrics,
            backfills: backfills.collect(),
            commands,
            shown,
            source,
            asks,
            place,
            tries: 0,
        };
        runner.show();
        Ok((runner, Backfills { commands: sender, status }, asked))
    }

    /// Runs until the store fails or everybody who could wish for something is gone.
    pub(super) async fn run(mut self) {
        if let Err(error) = self.serve().await {
            tracing::error!("backfills end: {:#}", anyhow::Error::new(error));
        }
    }

    async fn serve(&mut self) -> Result<(), StoreError> {
        let (config, store, asks) = (self.config.clone(), self.store.clone(), self.asks.clone());
        let mut taker = Taker::new(config, store, asks, self.place.clone());
        loop {
            let Some(id) = self.turn() else {
                // The stream answers when it streams; wishes are heard before that.
                let command = tokio::select! {
                    command = self.commands.recv() => command,
                    () = taker.rest(), if taker.is_busy() => continue,
                };
                match command {
                    Some(command) => self.handle(command).await?,
                    None => return Ok(()),
                }
                continue;
            };
            if self.source.borrow_and_update().state != SourceState::Streaming {
                self.note(id, Some("the source does not stream".into()));
                tokio::select! {
                    Some(command) = self.commands.recv() => self.handle(command).await?,
                    changed = self.source.changed() => if changed.is_err() { return Ok(()) },
                }
                continue;
            }
            self.chunk(id, &mut taker).await?;
        }
    }

    /// Whose turn it is: the oldest that runs.
    fn turn(&self) -> Option<u64> {
        let running = |backfill: &&Backfill| backfill.state == BackfillState::Running;
        self.backfills.values().find(running).map(|backfill| backfill.id)
    }

    /// Takes one chunk of a backfill, and hears wishes meanwhile. One that concerns it is for when
    /// the chunk is done.
    async fn chunk(&mut self, id: u64, taker: &mut Taker) -> Result<(), StoreError> {
        let Some(backfill) = self.backfills.get(&id).cloned() else { return Ok(()) };
        let (stop, mut later) = (CancellationToken::new(), None);
        let taken = {
            let taking = taker.take(&backfill, &stop);
            tokio::pin!(taking);
            loop {
                tokio::select! {
                    taken = &mut taking => break taken,
                    Some(command) = self.commands.recv(), if later.is_none() => match command {
                        BackfillCommand::Act(of, ..) if of == id => {
                            stop.cancel();
                            later = Some(command);
                        }
                        command => self.handle(command).await?,
                    },
                }
            }
        };
        let wait = self.settle(id, taken);
        if let Some(command) = later {
            self.handle(command).await?;
        }
        if let Some(wait) = wait {
            tokio::select! {
                () = sleep(wait) => {}
                Some(command) = self.commands.recv() => self.handle(command).await?,
            }
        }
        Ok(())
    }

    /// What a chunk leaves; how long to wait before the next.
    fn settle(&mut self, id: u64, taken: Taken) -> Option<Duration> {
        match taken {
            Taken::Went(backfill) => {
                self.tries = 0;
                let before = self.backfills.get(&id).map_or(0, |before| before.rows_sent);
                self.metrics.backfill_rows.inc_by(backfill.rows_sent.saturating_sub(before));
                if backfill.state == BackfillState::Done {
                    let (rows, table) = (backfill.rows_sent, &backfill.table);
                    tracing::info!(backfill = id, table, rows, "done");
                }
                self.backfills.insert(id, *backfill);
                self.show();
                return None;
            }
            Taken::Again(note) => self.note(id, note),
            Taken::Smaller => {
                if let Some(backfill) = self.backfills.get_mut(&id) {
                    backfill.chunk = (backfill.chunk / 4).max(1);
                }
            }
            Taken::Failed(Report { error, remedy }) => {
                tracing::warn!(backfill = id, remedy, "failed: {error}");
                if let Some(backfill) = self.backfills.get_mut(&id) {
                    backfill.state = BackfillState::Failed;
                    backfill.note = Some(format!("{error}: {remedy}"));
                    if let Err(error) = self.store.save_backfill(backfill) {
                        tracing::error!("{:#}", anyhow::Error::new(error));
                    }
                }
                self.show();
            }
            Taken::Stopped => return None,
        }
        self.tries = self.tries.saturating_add(1);
        Some(SOON.saturating_mul(1 << self.tries.min(8)).min(SELDOM))
    }

    fn note(&mut self, id: u64, note: Option<String>) {
        if let Some(backfill) = self.backfills.get_mut(&id) {
            backfill.note = note;
        }
        self.show();
    }

    fn show(&self) {
        let running = self.backfills.values().filter(|b| b.state == BackfillState::Running);
        self.metrics.backfills.set(i64::try_from(running.count()).unwrap_or(i64::MAX));
        self.shown.send_replace(self.backfills.values().map(BackfillStatus::from).collect());
    }

    async fn handle(&mut self, command: BackfillCommand) -> Result<(), StoreError> {
        match command {
            BackfillCommand::Start(request, answer) => {
                let started = self.start(request).await?;
                // Whoever has the answer finds it in the list. They may not wait for it any more.
                self.show();
                let _ = answer.send(started);
            }
            BackfillCommand::Act(id, action, answer) => self.act(id, action, answer)?,
        }
        Ok(())
    }

    /// Begins backfills of tables that all can be backfilled, or none.
    async fn start(&mut self, request: BackfillRequest) -> Result<BackfillAnswer, StoreError> {
        let BackfillRequest { tables, filter } = request;
        let database = match beside(&self.config, &self.place).await {
            Ok(database) => database,
            Err(fault) => return Ok(Err(unreachable(fault)?)),
        };
        if tables.is_empty() {
            let finding = Finding::error("no-table", "tables", "no table is named");
            return Ok(Err(finding.suggest("name one as `schema.table`")));
        }
        let mut new = Vec::new();
        for name in tables {
            match self.plan(&database, &name, filter.as_deref()).await {
                Ok(Ok(backfill)) => new.push(backfill),
                Ok(Err(finding)) => return Ok(Err(finding)),
                Err(fault) => return Ok(Err(unreachable(fault)?)),
            }
        }
        let last = self.backfills.keys().next_back().copied().unwrap_or(0);
        for (id, backfill) in (last + 1..).zip(&mut new) {
            backfill.id = id;
        }
        for backfill in &new {
            self.store.save_backfill(backfill)?;
            tracing::info!(backfill = backfill.id, table = backfill.table, "begins");
        }
        let answer = new.iter().map(BackfillStatus::from).collect();
        self.backfills.extend(new.into_iter().map(|backfill| (backfill.id, backfill)));
        Ok(Ok(answer))
    }

    /// The backfill of one table, which has no number yet.
    async fn plan(
        &self,
        database: &Database,
        name: &str,
        filter: Option<&str>,
    ) -> Result<Result<Backfill, Finding>, Fault> {
        let Some(names) = name.split_once('.') else {
            let finding =
                Finding::error("unknown-table", name, format!("`{name}` names no schema"));
            return Ok(Err(finding.suggest(format!("did you mean `public.{name}`?"))));
        };
        if let Some(finding) = self.already(names) {
            return Ok(Err(finding));
        }
        let plan = plan::check(database, &self.config, names, filter).await?;
        Ok(plan.map(|plan| {
            let names = (names.0.to_owned(), names.1.to_owned());
            let backfill = Backfill::new(0, names, filter.map(str::to_owned));
            Backfill { rows_total: plan.rows(), ..backfill }
        }))
    }

    /// The same table twice at the same time would only bring each row twice.
    fn already(&self, (schema, table): (&str, &str)) -> Option<Finding> {
        let other = self.backfills.values().find(|other| {
            !other.state.is_over() && other.schema == schema && other.table == table
        })?;
        let message = format!("backfill {} of {schema}.{table} is not over", other.id);
        let finding = Finding::error("backfill-exists", format!("{schema}.{table}"), message);
        Some(
            finding.suggest(format!(
                "wait for it, or end it with `walmill backfill cancel {}`",
                other.id
            )),
        )
    }

    fn act(
        &mut self,
        id: u64,
        action: BackfillAction,
        answer: oneshot::Sender<BackfillAnswer>,
    ) -> Result<(), StoreError> {
        let Some(backfill) = self.backfills.get_mut(&id) else {
            let message = format!("there is no backfill {id}");
            let finding = Finding::error("unknown-backfill", id.to_string(), message);
            let _ = answer.send(Err(finding.suggest("`walmill backfill ls` lists them")));
            return Ok(());
        };
        if backfill.state.is_over() {
            let message = format!("backfill {id} is over");
            let finding = Finding::error("backfill-over", id.to_string(), message);
            let _ = answer.send(Err(finding.suggest("start a new one")));
            return Ok(());
        }
        match action {
            BackfillAction::Pause => {
                (backfill.state, backfill.note) = (BackfillState::Paused, None)
            }
            BackfillAction::Resume => {
                (backfill.state, backfill.note) = (BackfillState::Running, None);
            }
            BackfillAction::Cancel => backfill.end(BackfillState::Cancelled),
        }
        self.store.save_backfill(backfill)?;
        let status = BackfillStatus::from(&*backfill);
        self.show();
        let _ = answer.send(Ok(vec![status]));
        Ok(())
    }
}

/// Why nothing can be looked up.
/// A connection to the server that the stream comes from.
async fn beside(
    config: &Config,
    place: &watch::Receiver<Option<Place>>,
) -> Result<Database, Fault> {
    let place = place.borrow().clone();
    match place {
        Some(place) => Database::beside(&config.url, &place).await,
        None => Err(Fault::away("the source is not connected", "wait until it streams")),
    }
}

fn unreachable(fault: Fault) -> Result<Finding, StoreError> {
    let Report { error, remedy } = fault.report()?;
    Ok(Finding::error("database", "source.url", error).suggest(remedy))
}
