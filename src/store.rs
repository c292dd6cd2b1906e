//! What walmill keeps on disk: one embedded database in the data folder, with a keyspace each for
//! the journal, relations, streams, checkpoints, plugin state and dead letters.
//!
//! The two promises made here: a position is [`journal::Durable`] only when it is on disk, and a
//! pipeline's batch (events, state, dead letters, cursor) is one atomic commit. Nothing here knows
//! PostgreSQL, WebAssembly or a socket.

mod backfill;
mod begun;
mod checkpoint;
mod commit;
mod database;
pub mod dead_letter;
mod disabled;
mod error;
pub mod failing;
mod folder;
pub mod journal;
mod log;
mod plugin;
mod position;
mod relation;
pub mod renewal;
mod replay;
pub mod retention;
pub mod schema;
mod snapshot;
pub mod spill;
mod state;
pub mod stream;
mod streams;
mod sync;
mod tables;
mod tail;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wal;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use fjall::{Database, Keyspace, PersistMode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::model::veil::Veil;
use crate::model::{ByteSize, Epoch, Lsn, Offset, Period, Relation, RelationId, clock};
use backfill::Backfills;
use checkpoint::Checkpoints;
use dead_letter::{DeadLetter, DeadLetters, LetterRetention};
use failing::Failings;
use folder::Folder;
use relation::Relations;
use replay::Replays;
use retention::{Janitor, Reader, Retention, WhenFull};
use schema::{Hold, Place, Schemas};
use spill::{SpillError, Spills};
use state::States;
use stream::Stream;
use streams::Streams;
use sync::Syncer;
use tables::Tables;

pub use commit::{Again, Outcome, StateWrite};
pub use error::{OpenError, StoreError};
pub use snapshot::BegunSnapshot;

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The data folder.
    pub path: PathBuf,
    /// How long, and how much, is kept.
    pub retention: Retention,
    /// What happens when that would remove what is still to be read.
    pub when_full: WhenFull,
    /// How long, and how many, dead letters are kept.
    pub dead_letters: LetterRetention,
    /// With less than this free on the disk the journal takes nothing more.
    pub min_free: ByteSize,
    /// The shortest time between two syncs; writes gather meanwhile.
    pub sync_interval: Period,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "./walmill-data".into(),
            retention: Retention::default(),
            when_full: WhenFull::default(),
            dead_letters: LetterRetention::default(),
            min_free: ByteSize::new(256 << 20),
            sync_interval: Period::from_millis(20),
        }
    }
}

/// Where the stream in the journal comes from; it must not change under a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `system_identifier` of IDENTIFY_SYSTEM.
    pub system_identifier: String,
    /// The server's timeline.
    pub timeline: u32,
    /// The slot's name.
    pub slot: String,
    /// The database's name.
    pub database: String,
}

/// The open store. Cloning shares it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// The parts of an open store. Threads end and files close in this order.
struct Inner {
    janitor: Mutex<Option<Janitor>>,
    syncer: Syncer,
    records: Arc<journal::Records>,
    streams: Streams,
    relations: Relations,
    tables: Tables,
    schemas: Schemas,
    checkpoints: Checkpoints,
    states: States,
    backfills: Backfills,
    plugins: Keyspace,
    dead_letters: DeadLetters,
    failings: Failings,
    replays: Replays,
    readers: Mutex<Vec<Reader>>,
    /// How often a slot was to be made anew.
    renewals: watch::Sender<u64>,
    /// Held while something is removed.
    retaining: Mutex<()>,
    meta: Keyspace,
    db: Database,
    epoch: Epoch,
    veil: Veil,
    config: Config,
    metrics: Arc<Metrics>,
    folder: Folder,
}

const EPOCH: &str = "epoch";
/// The secret of [`Veil`]s.
const VEIL: &str = "veil";
const ORIGIN: &str = "origin";
/// The folder of what is not committed yet.
const SPILL: &str = "spill";

impl Store {
    /// Opens the data folder, or makes it; recovers the journal to its last whole transaction.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let folder = Folder::open(&config.path)?;
        let unusable = |cause| OpenError::Unusable { path: config.path.clone(), cause };
        wal::repair(&folder.database()).map_err(unusable)?;
        let db = match database::open(&folder.database()) {
            // A part of a store that was let go in this process may still hold it.
            Err(fjall::Error::Locked) => return Err(OpenError::Locked(config.path.clone())),
            db => db.context("open the database").map_err(unusable)?,
        };
        let inner = Inner::open(config, metrics, folder, db).context("read the database");
        let inner = Arc::new(inner.map_err(unusable)?);
        let janitor = Janitor::start(&inner).context("start a thread").map_err(unusable)?;
        *inner.janitor.lock().unwrap_or_else(PoisonError::into_inner) = Some(janitor);
        Ok(Self { inner })
    }

    /// What hides the values of keys. Its secret is made with the store and stays with it.
    #[must_use]
    pub fn veil(&self) -> &Veil {
        &self.inner.veil
    }

    /// Which making of the store this is.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    /// Where the journal's stream comes from, once it is known.
    ///
    /// # Errors
    /// See [`StoreError`], here and below.
    pub fn origin(&self) -> Result<Option<Origin>, StoreError> {
        let Some(json) = self.inner.meta.get(ORIGIN)? else { return Ok(None) };
        from_json(&json, || "the origin".into()).map(Some)
    }

    /// Records the origin, on disk when this returns.
    pub fn set_origin(&self, origin: &Origin) -> Result<(), StoreError> {
        self.inner.meta.insert(ORIGIN, to_json(origin)?)?;
        self.inner.db.persist(PersistMode::SyncAll)?;
        Ok(())
    }

    /// The number of this definition: the one it had before, or the next, written before any
    /// block that uses it.
    pub fn intern_relation(&self, relation: &Relation) -> Result<RelationId, StoreError> {
        self.inner.relations.intern(relation)
    }

    /// The definition behind a number.
    pub fn relation(&self, id: RelationId) -> Result<Option<Arc<Relation>>, StoreError> {
        self.inner.relations.get(id)
    }

    /// The definition that each table's last change in the journal uses.
    pub fn tables(&self) -> Result<Vec<(RelationId, Arc<Relation>)>, StoreError> {
        let read = |id: RelationId| {
            let damaged = || StoreError::Damaged { what: format!("relation {}", id.0) };
            Ok((id, self.relation(id)?.ok_or_else(damaged)?))
        };
        self.inner.tables.all()?.into_iter().map(read).collect()
    }

    /// The tables whose rows a pipeline sets aside, as of its last batch.
    pub fn holds(&self, pipeline: &str) -> Result<Vec<Hold>, StoreError> {
        self.inner.schemas.holds(pipeline)
    }

    /// Up to which change of a definition a pipeline was told to go on.
    pub fn accepted_schema(&self, pipeline: &str) -> Result<Option<Place>, StoreError> {
        self.inner.schemas.accepted(pipeline)
    }

    /// Lets a pipeline go on with definitions that changed at or before `up_to`; on disk when this
    /// returns.
    pub fn accept_schema(&self, pipeline: &str, up_to: Place) -> Result<(), StoreError> {
        self.inner.schemas.accept(pipeline, up_to)?;
        self.inner.db.persist(PersistMode::SyncAll)?;
        self.inner.schemas.tell();
        Ok(())
    }

    /// Changes when something was accepted.
    #[must_use]
    pub fn schema_news(&self) -> watch::Receiver<u64> {
        self.inner.schemas.news()
    }

    /// Opens the place of transactions that are not decided yet; of those before, only what was
    /// prepared is there. Called once.
    ///
    /// # Errors
    /// See [`SpillError`].
    pub fn open_spills(&self) -> Result<Spills, SpillError> {
        let folder = self.inner.folder.path().join(SPILL);
        let store = self.clone();
        let sync = move || Ok(store.inner.db.persist(PersistMode::SyncAll)?);
        Spills::open(&folder, self.inner.config.min_free, Arc::new(sync))
    }

    /// Starts the journal's thread: what is sent to the appender is stored in that order and
    /// synced in groups. Called once, in a Tokio runtime.
    pub fn start_journal(&self) -> Result<journal::Journal, StoreError> {
        journal::start(self.inner.clone())
    }

    /// Commit LSN of the last transaction in the journal: what is at or before it need not be sent
    /// to the journal again.
    #[must_use]
    pub fn last_commit(&self) -> Lsn {
        *self.inner.records.visible().borrow()
    }

    /// Everything up to the end of this transaction has been removed from the journal.
    #[must_use]
    pub fn journal_purged(&self) -> Lsn {
        self.inner.records.log.purged().commit
    }

    /// A place in the journal with at least so many bytes behind it, or its beginning.
    pub fn journal_back(&self, bytes: u64) -> Result<Offset, StoreError> {
        self.inner.records.log.place_back(bytes)
    }

    /// Reads the journal's committed changes behind `after`.
    #[must_use]
    pub fn journal_reader(&self, after: Offset) -> journal::Reader {
        journal::Reader::new(self.inner.records.clone(), after)
    }

    /// Commits a pipeline's batch in one atomic write, then wakes the readers of its streams.
    pub fn commit(&self, outcome: Outcome) -> Result<(), StoreError> {
        self.inner.commit(outcome)
    }

    /// Where a pipeline goes on; `None` for one that never ran.
    pub fn pipeline_cursor(&self, pipeline: &str) -> Result<Option<Offset>, StoreError> {
        self.inner.checkpoints.pipeline(pipeline)
    }

    /// Bytes of all that a plugin has stored; it is counted anew each time.
    pub fn plugin_state_size(&self, plugin: &str) -> Result<u64, StoreError> {
        self.inner.states.size(plugin)
    }

    /// A plugin's stored value.
    pub fn plugin_state(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.states.get(plugin, key)
    }

    /// Makes sure that a stream exists, so that readers can wait for its first event. A new one is
    /// `pipeline`'s own; [`Stream::owner`] says whose an older one is.
    pub fn declare_stream(&self, name: &str, pipeline: &str) -> Result<Arc<Stream>, StoreError> {
        self.inner.streams.declare(name, pipeline)
    }

    /// The stream of that name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        self.inner.streams.get(name)
    }

    /// Every stream, by name.
    #[must_use]
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.inner.streams.all()
    }

    /// How far an output has delivered a stream: every event up to and including it is done.
    pub fn checkpoint(&self, output: &str, stream: &str) -> Result<Option<Offset>, StoreError> {
        self.inner.checkpoints.output(output, stream)
    }

    /// Moves an output's checkpoint, together with the dead letters of what it gave up.
    pub fn save_checkpoint(
        &self,
        output: &str,
        stream: &str,
        offset: Offset,
        mut dead_letters: Vec<DeadLetter>,
    ) -> Result<(), StoreError> {
        let mut batch = self.inner.db.batch();
        self.inner.failings.pass(&mut batch, (output, stream), offset, &mut dead_letters)?;
        self.inner.checkpoints.set_output(&mut batch, (output, stream), offset);
        let delta = self.inner.dead_letters.write(&mut batch, &dead_letters)?;
        batch.commit()?;
        self.inner.dead_letters.wrote(delta);
        self.inner.metrics.dead_letters.inc_by(dead_letters.len() as u64);
        self.inner.syncer.wrote();
        Ok(())
    }

    /// Says who reads what must be kept: all pipelines and outputs of the config, in place of those
    /// named before. One without a checkpoint needs everything.
    pub fn declare_readers(&self, readers: Vec<Reader>) {
        *self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner) = readers;
    }

    /// One more of them, if it isn't there.
    pub fn add_reader(&self, reader: Reader) {
        let mut readers = self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if !readers.contains(&reader) {
            readers.push(reader);
        }
    }

    /// Removes what is older, or more, than retention says. This also happens by itself.
    pub fn retain_now(&self) -> Result<(), StoreError> {
        self.inner.retain(clock::now())
    }

    /// Waits until everything written so far is on disk.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.inner.syncer.flush()
    }

    /// Syncs everything and stops the background work. Called once, last.
    pub fn close(&self) -> Result<(), StoreError> {
        let janitor = self.inner.janitor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(janitor) = janitor {
            janitor.stop();
        }
        self.inner.syncer.stop()
    }
}

impl Inner {
    fn open(
        config: &Config,
        metrics: Arc<Metrics>,
        folder: Folder,
        db: Database,
    ) -> Result<Self, StoreError> {
        let small = |name| db.keyspace(name, database::small);
        let meta = small("meta")?;
        let (epoch, veil) = (epoch(&db, &meta)?, veil(&db, &meta)?);
        let blocks = db.keyspace("journal", database::blocks)?;
        let records = Arc::new(journal::Records::open((&db, &meta), blocks)?);
        // What was read from disk is on disk: the database synced its log when it opened.
        let interval = config.sync_interval.duration();
        let at = position::read(&meta)?;
        let syncer = Syncer::start(db.clone(), interval, metrics.clone(), at);
        Ok(Self {
            janitor: Mutex::new(None),
            syncer: syncer.map_err(fjall::Error::Io)?,
            records,
            streams: Streams::open(&db, &meta)?,
            relations: Relations::open(&db, small("relations")?)?,
            tables: Tables::new(small("tables")?),
            schemas: Schemas::new(small("schemas")?),
            checkpoints: Checkpoints::new(small("checkpoints")?),
            states: States::new(small("state")?),
            backfills: Backfills::new(small("backfills")?),
            plugins: small("plugins")?,
            dead_letters: DeadLetters::open(small("dead_letters")?, small("dead_letter_marks")?)?,
            failings: Failings::new(small("failing")?),
            replays: Replays::new(small("replays")?),
            readers: Mutex::default(),
            renewals: watch::Sender::new(0),
            retaining: Mutex::new(()),
            meta,
            db,
            epoch,
            veil,
            config: config.clone(),
            metrics,
            folder,
        })
    }
}

fn epoch(db: &Database, meta: &Keyspace) -> Result<Epoch, StoreError> {
    if let Some(bytes) = meta.get(EPOCH)? {
        let bytes = <[u8; 4]>::try_from(&*bytes);
        let bytes = bytes.map_err(|_| StoreError::Damaged { what: "the epoch".into() })?;
        return Ok(Epoch(u32::from_be_bytes(bytes)));
    }
    let epoch = rand::random::<u32>();
    meta.insert(EPOCH, epoch.to_be_bytes())?;
    db.persist(PersistMode::SyncAll)?;
    Ok(Epoch(epoch))
}

fn veil(db: &Database, meta: &Keyspace) -> Result<Veil, StoreError> {
    if let Some(bytes) = meta.get(VEIL)? {
        let secret = <[u8; 32]>::try_from(&*bytes);
        let secret =
            secret.map_err(|_| StoreError::Damaged { what: "the secret of keys".into() })?;
        return Ok(Veil::new(secret));
    }
    let secret = rand::random::<[u8; 32]>();
    meta.insert(VEIL, secret)?;
    db.persist(PersistMode::SyncAll)?;
    Ok(Veil::new(secret))
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| fjall::Error::Io(error.into()).into())
}

fn from_json<T: DeserializeOwned>(
    json: &[u8],
    what: impl FnOnce() -> String,
) -> Result<T, StoreError> {
    serde_json::from_slice(json)
        .map_err(|error| StoreError::Damaged { what: format!("{} ({error})", what()) })
}
