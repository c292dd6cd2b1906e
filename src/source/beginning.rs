//! Where the stream begins: is this our server, is the slot ours, is all there; and what is made of
//! what is not.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::config::{Config, Snapshot};
use super::connection::{Connection, Identity};
use super::database::Database;
use super::fault::Fault;
use super::gap::Gap;
use super::options::{self, Transactions};
use super::slot::{self, Past};
use super::snapshot::{self, Snapshotter};
use super::stream::misassembled;
use super::{LAST_WORD, Running, Worker, publication};
use crate::model::Lsn;
use crate::store::journal::Append;
use crate::store::renewal::Renewal;

type Appender = mpsc::Sender<Append>;

/// What is to be done before the stream can begin.
enum Beginning {
    /// Nothing: the slot is there.
    Slot,
    /// The slot is to be made.
    NewSlot,
    /// The slot is to be made, and the rows that were there before it are to be brought in.
    Snapshot,
    /// A person gave up what the slot lost, if anything was: it is to be made anew.
    Anew(Renewal, Option<Gap>),
}

/// A server that is ours.
struct Server<'a> {
    connection: Connection<'a>,
    database: Database,
    identity: Identity,
    past: Past,
    /// It is on another timeline than it was.
    moved: bool,
}

impl Worker {
    /// Everything before the first change.
    pub(super) async fn connect(
        &mut self,
        attempt: usize,
        appender: &Appender,
    ) -> Result<Running, Fault> {
        let config = self.config.clone();
        let mut server = self.meet(&config, attempt).await?;
        if server.moved {
            self.assembler.timeline_moved(server.past.durable).map_err(misassembled)?;
        }
        let wal_sender_timeout = server.connection.wal_sender_timeout().await?;
        let beginning = self.beginning(&server).await?;
        let (is_there, is_first) = match &beginning {
            Beginning::Slot => (true, server.past.is_empty()),
            Beginning::NewSlot | Beginning::Snapshot => (false, server.past.is_empty()),
            Beginning::Anew(..) => (false, true),
        };
        // The publication comes first: PostgreSQL decodes with the catalog of the slot's time.
        publication::ensure(&server.database, &self.config, is_there, is_first).await?;
        // What these make names its origin, and is read before the stream begins.
        if !matches!(beginning, Beginning::Slot | Beginning::NewSlot) {
            self.store.set_origin(&slot::origin_of(&server.identity, &self.config))?;
            while let Some(append) = self.assembler.take_append().map_err(misassembled)? {
                let _ = appender.send(append).await;
            }
        }
        let from = match beginning {
            Beginning::Slot => server.past.durable,
            Beginning::NewSlot => {
                slot::create(&server.database, &self.config).await?;
                server.past.durable
            }
            Beginning::Snapshot => self.snapshot(&mut server, None, None, appender).await?,
            Beginning::Anew(renewal, gap) => {
                self.renew(&mut server, renewal, gap, appender).await?
            }
        };
        let transactions = match self.assembler.wants_whole() {
            true => Transactions::Whole,
            false => Transactions::AsConfigured,
        };
        let Server { connection, database, identity, past, moved } = server;
        let halves = connection.stream(from, transactions).await?;
        if past.is_empty() || moved {
            self.store.set_origin(&slot::origin_of(&identity, &self.config))?;
        }
        // Only now that the slot is ours it is known where its last reader left it.
        let gone = || Fault::away("the slot is gone", "see who drops replication slots");
        let slot = slot::find(&database, &self.config).await?.ok_or_else(gone)?;
        slot::check_place(&slot, from, &self.config)?;
        if from == Lsn::ZERO {
            // Where the journal begins: from here on, whoever moves the slot is somebody else. If
            // the journal has ended, the stream finds out.
            let _ = appender.send(Append::Idle(slot.confirmed)).await;
        }
        Ok(Running { database: Arc::new(database), halves, wal_sender_timeout })
    }

    /// Connects, and makes sure that the server is the one that the journal came from.
    async fn meet<'a>(&self, config: &'a Config, attempt: usize) -> Result<Server<'a>, Fault> {
        let mut connection = Connection::open(config, attempt).await?;
        options::check(config, connection.major_version())?;
        let database = Database::beside(&config.url, connection.place()).await?;
        let identity = connection.identify().await?;
        self.publisher.identified(connection.server_version(), &identity);
        self.place.send_replace(Some(connection.place().clone()));
        let durable = self.durable.borrow().lsn();
        let last_commit = self.assembler.last_commit().max(self.store.last_commit());
        let past = Past::new(self.store.origin()?, durable, last_commit);
        let known = past.origin.as_ref().map(|origin| origin.timeline);
        let moved = known.is_some_and(|known| known != identity.timeline) && !past.is_empty();
        let history = if moved { Some(connection.history(identity.timeline).await?) } else { None };
        slot::check_origin(&past, &identity, history.as_deref(), config)?;
        Ok(Server { connection, database, identity, past, moved })
    }

    async fn beginning(&self, server: &Server<'_>) -> Result<Beginning, Fault> {
        let Server { database, identity, past, .. } = server;
        let (config, renewal) = (&self.config, self.store.renewal()?);
        if let Some(begun) = self.store.unfinished_snapshot()? {
            snapshot::drop_slot(database, &self.store, &begun, identity).await?;
        }
        let found = slot::find(database, config).await?;
        let standing = match &found {
            Some(slot) => slot::check(slot, past, identity, config),
            None if past.is_empty() => Ok(()),
            None => Err(slot::missing(past, identity, config)),
        };
        let works = found.is_some() && standing.is_ok();
        if let Some(renewal) = renewal {
            // A kill came between the last of it and its end; or nothing was lost at all.
            let is_done = renewal.point.is_some_and(|point| past.durable >= point);
            let is_needless = !renewal.lost && publication::exists(database, config).await?;
            if !(works && (is_done || (is_needless && renewal.point.is_none()))) {
                let gap = || Gap::new(past.received, renewal.snapshot, standing.err());
                let gap = (!past.is_empty()).then(gap);
                slot::remove(database, config.slot.as_str()).await?;
                return Ok(Beginning::Anew(renewal, gap));
            }
            if !is_done {
                tracing::warn!(slot = %config.slot, "works, so it is not made anew");
            }
            self.store.end_renewal()?;
        }
        standing?;
        if found.is_some() {
            snapshot::check_found(past, config)?;
            return Ok(Beginning::Slot);
        }
        Ok(match config.snapshot {
            Snapshot::Initial => Beginning::Snapshot,
            Snapshot::Never => Beginning::NewSlot,
        })
    }

    async fn snapshot(
        &mut self,
        server: &mut Server<'_>,
        renewal: Option<Renewal>,
        gap: Option<Gap>,
        appender: &Appender,
    ) -> Result<Lsn, Fault> {
        self.is_sent.store(false, Ordering::Relaxed);
        let snapshotter = Snapshotter {
            config: &self.config,
            store: &self.store,
            appender,
            durable: self.durable.clone(),
            publisher: &self.publisher,
            identity: &server.identity,
            definitions: self.assembler.definitions(),
            renewal,
            gap,
            is_sent: &self.is_sent,
            place: server.connection.place().clone(),
        };
        snapshotter.take(&mut server.connection, &server.database).await
    }

    /// Makes the slot again, and tells every reader what is lost between its two lives.
    async fn renew(
        &mut self,
        server: &mut Server<'_>,
        renewal: Renewal,
        gap: Option<Gap>,
        appender: &Appender,
    ) -> Result<Lsn, Fault> {
        let point = if renewal.snapshot {
            self.snapshot(server, Some(renewal), gap, appender).await?
        } else {
            slot::create(&server.database, &self.config).await?;
            let made = slot::find(&server.database, &self.config).await?;
            let gone = || Fault::away("the new slot is gone", "see who drops replication slots");
            let point = made.ok_or_else(gone)?.confirmed;
            self.store.note_renewal(Renewal { point: Some(point), ..renewal })?;
            slot::check_order(point, self.store.last_commit())?;
            if let Some(gap) = gap {
                let _ = appender.send(Append::Block(gap.block(point))).await;
            }
            let _ = appender.send(Append::Idle(point)).await;
            let mut durable = self.durable.clone();
            let reached = durable.wait_for(|durable| durable.lsn() >= point).await;
            reached.map_err(|_| snapshot::journal_ended())?;
            point
        };
        // The new slot waited for every transaction that was prepared, so none can commit any more.
        self.assembler.slot_renewed().map_err(misassembled)?;
        self.store.end_renewal()?;
        tracing::warn!(slot = %self.config.slot, %point, "the stream goes on, behind a gap");
        Ok(point)
    }

    /// A snapshot that a shutdown cuts off begins anew at the next start, and its slot would hold
    /// the server's log meanwhile.
    pub(super) async fn leave_no_slot(&self, attempt: usize) {
        if self.is_sent.load(Ordering::Relaxed) {
            // The journal may still take the last of it; the next start knows whether it did.
            return;
        }
        let Ok(Some(begun)) = self.store.unfinished_snapshot() else { return };
        let dropped = async {
            let mut connection = Connection::open(&self.config, attempt).await?;
            let identity = connection.identify().await?;
            let database = Database::beside(&self.config.url, connection.place()).await?;
            snapshot::drop_slot(&database, &self.store, &begun, &identity).await
        };
        if !matches!(timeout(LAST_WORD, dropped).await, Ok(Ok(()))) {
            tracing::warn!(slot = begun.slot, "stays until the next start, and holds the log");
        }
    }
}
