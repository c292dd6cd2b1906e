//! A source and the journal behind it, without the rest of walmill.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use walmill::metrics::Metrics;
use walmill::model::backfill::Backfills;
use walmill::model::status::{SourceState, SourceStatus};
use walmill::model::{Lsn, Offset, Relation, RelationId};
use walmill::pgoutput::{self, Message, Value};
use walmill::source::{Config, Source};
use walmill::store::journal::{Append, Block, Durable, Read};
use walmill::store::{self, Store};

/// How long a fact may take to come true before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store with a running journal and a source that feeds it.
pub struct Streaming {
    pub store: Store,
    pub durable: watch::Receiver<Durable>,
    pub status: watch::Receiver<SourceStatus>,
    pub backfills: Backfills,
    shutdown: CancellationToken,
    source: std::thread::JoinHandle<Result<(), store::StoreError>>,
    journal: JoinHandle<Result<(), store::StoreError>>,
}

impl Streaming {
    /// Starts both on a data folder.
    pub fn start(folder: &Path, config: Config) -> Self {
        Self::through(folder, config, |journal| journal)
    }

    /// The same, with something between the source and the journal.
    pub fn through(
        folder: &Path,
        config: Config,
        between: impl FnOnce(mpsc::Sender<Append>) -> mpsc::Sender<Append>,
    ) -> Self {
        let metrics = Arc::new(Metrics::new());
        let store = store::Config { path: folder.to_owned(), ..store::Config::default() };
        let store = Store::open(&store, Arc::clone(&metrics)).expect("open the store");
        let journal = store.start_journal().expect("start the journal");
        let (durable, shutdown) = (journal.durable, CancellationToken::new());
        let source = Source::start(
            config,
            store.clone(),
            between(journal.appender),
            durable.clone(),
            metrics,
            shutdown.clone(),
        )
        .expect("start the source");
        let (status, backfills) = (source.status, source.backfills);
        let (source, journal) = (source.thread, journal.done);
        Self { store, durable, status, backfills, shutdown, source, journal }
    }

    /// The same, with a journal that takes so many blocks and no more: as if walmill were killed
    /// there. The channel says when that has come.
    pub fn cut_after(
        folder: &Path,
        config: Config,
        blocks: usize,
    ) -> (Self, tokio::sync::oneshot::Receiver<()>) {
        let (cut, is_cut) = tokio::sync::oneshot::channel();
        let source = Self::through(folder, config, |journal| {
            let (sender, mut receiver) = mpsc::channel::<Append>(1);
            tokio::spawn(async move {
                let mut left = blocks;
                while let Some(append) = receiver.recv().await {
                    if !matches!(append, Append::Idle(_)) {
                        if left == 0 {
                            break;
                        }
                        left -= 1;
                    }
                    if journal.send(append).await.is_err() {
                        break;
                    }
                }
                drop(journal);
                // Nobody needs to wait for it.
                let _ = cut.send(());
                while receiver.recv().await.is_some() {}
            });
            sender
        });
        (source, is_cut)
    }

    /// Waits until the source streams.
    pub async fn streaming(&self) {
        self.state("streaming", |state| *state == SourceState::Streaming).await;
    }

    /// Waits until the source says what is wrong; error and remedy.
    pub async fn trouble(&self) -> (String, String) {
        let wrong = |state: &SourceState| {
            matches!(state, SourceState::Waiting { .. } | SourceState::Halted { .. })
        };
        match self.state("in trouble", wrong).await {
            SourceState::Waiting { error, remedy, .. } => (error, remedy),
            SourceState::Halted { error, remedy, .. } => (format!("halted: {error}"), remedy),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a state.
    pub async fn state(&self, what: &str, wanted: impl Fn(&SourceState) -> bool) -> SourceState {
        let mut seen = self.status.clone();
        let waiting = seen.wait_for(|status| wanted(&status.state));
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(status) => status.expect("the source runs").state.clone(),
            Err(_) => panic!("the source was never {what}: {:?}", self.status.borrow()),
        }
    }

    /// Waits until the journal shows so many changes, and returns them.
    pub async fn changes(&self, count: usize) -> Vec<String> {
        let mut reader = self.store.journal_reader(Offset::START);
        let mut changes = Vec::new();
        let waiting = async {
            while changes.len() < count {
                match reader.next().expect("read the journal") {
                    Read::Block(block) => changes.extend(self.shown(&block.frames)),
                    Read::End => reader.visible().changed().await.expect("the store is open"),
                    Read::Gap { .. } => panic!("a gap"),
                }
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("only {} of {count} changes: {:?}", changes.len(), self.status.borrow());
        }
        changes
    }

    /// Every change up to a message with the prefix `end`, behind its place in the log.
    pub async fn placed(&self) -> Vec<String> {
        let mut reader = self.store.journal_reader(Offset::START);
        let mut changes = Vec::new();
        let waiting = async {
            loop {
                match reader.next().expect("read the journal") {
                    Read::Block(block) => {
                        changes.extend(self.in_place(&block));
                        if changes.last().is_some_and(|change| change.contains(" !end ")) {
                            break;
                        }
                    }
                    Read::End => reader.visible().changed().await.expect("the store is open"),
                    Read::Gap { .. } => panic!("a gap"),
                }
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("no end behind {} changes: {:?}", changes.len(), self.status.borrow());
        }
        changes
    }

    fn in_place(&self, block: &Block) -> Vec<String> {
        let (mut commit, mut ordinal, mut changes) = (Lsn::ZERO, 0, Vec::new());
        for message in messages(&block.frames) {
            if let Some((_, after)) = pgoutput::frame::read_redefined(message) {
                let relation = self.store.relation(RelationId(after)).expect("a read");
                let table = &relation.expect("an interned relation").table;
                changes.push(format!("{commit}/{ordinal} definition of {table}"));
                ordinal += 1;
                continue;
            }
            let decoded = pgoutput::decode(message).expect("a valid message");
            if let Message::Begin { final_lsn, .. } = decoded {
                (commit, ordinal) = (final_lsn, if block.part > 0 { block.ordinal } else { 0 });
            }
            if let Some(change) = self.show(decoded) {
                changes.push(format!("{commit}/{ordinal} {change}"));
                ordinal += match decoded {
                    Message::Truncate { relations, .. } => relations.len() as u32,
                    _ => 1,
                };
            }
        }
        changes
    }

    fn shown(&self, frames: &[u8]) -> Vec<String> {
        let decoded = |message| pgoutput::decode(message).expect("a valid message");
        let ours = |message: &&[u8]| pgoutput::frame::read_redefined(message).is_some();
        let others = messages(frames).filter(|message| !ours(message));
        others.filter_map(|message| self.show(decoded(message))).collect()
    }

    /// A change as a line.
    fn show(&self, message: Message<'_>) -> Option<String> {
        let relation = |id| -> Arc<Relation> {
            let id = RelationId(id);
            self.store.relation(id).expect("read a relation").expect("an interned relation")
        };
        Some(match message {
            Message::Insert { relation: id, new } => {
                format!("+{} {}", relation(id).table, row(new))
            }
            Message::Row { relation: id, new } => {
                format!("={} {}", relation(id).table, row(new))
            }
            Message::Update { relation: id, new, .. } => {
                format!("~{} {}", relation(id).table, row(new))
            }
            Message::Delete { relation: id, old } => {
                format!("-{} {}", relation(id).table, row(old.tuple))
            }
            Message::Truncate { relations, .. } => {
                let tables: Vec<_> =
                    relations.iter().map(|id| relation(id).table.clone()).collect();
                format!("0{}", tables.join(","))
            }
            Message::Message { prefix, content, .. } => {
                format!("!{prefix} {}", content.escape_ascii())
            }
            _ => return None,
        })
    }

    /// The definitions that changes use, in the order of their use.
    pub async fn relations(&self, count: u32) -> Vec<Arc<Relation>> {
        let mut relations = Vec::new();
        for id in 0..count + 2 {
            let id = walmill::model::RelationId(id);
            relations.extend(self.store.relation(id).expect("read a relation"));
        }
        relations
    }

    /// Shuts down as walmill does, and closes the store.
    pub async fn stop(self) -> Lsn {
        self.shutdown.cancel();
        let source = self.source;
        tokio::task::spawn_blocking(move || source.join())
            .await
            .expect("join")
            .expect("no panic")
            .expect("no error of the store");
        self.journal.await.expect("no panic").expect("the journal ends well");
        self.store.close().expect("close the store");
        self.durable.borrow().lsn()
    }
}

/// The messages in a block.
pub fn messages(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, behind) = frames.split_first_chunk()?;
        let (message, rest) = behind.split_at(u32::from_be_bytes(*len) as usize);
        frames = rest;
        Some(message)
    })
}

fn row(tuple: pgoutput::Tuple<'_>) -> String {
    let value = |value| match value {
        Value::Null => "null".into(),
        Value::Unchanged => "unchanged".into(),
        Value::Text(text) if text.len() > 100 => format!("{} bytes", text.len()),
        Value::Text(bytes) | Value::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    };
    tuple.iter().map(value).collect::<Vec<String>>().join(" ")
}
