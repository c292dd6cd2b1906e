//! The rows that were there before the slot: a snapshot of everything that was committed before
//! the slot's beginning, as one transaction that ends where the slot's first change begins. So
//! there is no gap between the two, and nothing comes twice.
//!
//! The slot exports its snapshot, and as many connections as the config says read ranges of the
//! tables in it. The rows go to the journal in parts, which shows them once the last one is there.
//! A snapshot that was cut off leaves a mark in the store, and the next start drops its slot and
//! begins anew: half a snapshot is never shown to anybody, and cannot be continued, since
//! PostgreSQL keeps it only as long as the connection that made it.

pub(super) mod catalog;
pub(super) mod copy;
pub(super) mod worker;

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use tokio::sync::{mpsc, watch};

use super::assembler::Definitions;
use super::config::{Config, Snapshot};
use super::connection::{Connection, Identity, Made};
use super::database::Database;
use super::entry::Place;
use super::fault::Fault;
use super::gap::Gap;
use super::slot::{self, Past};
use super::status::Publisher;
use crate::model::status::SnapshotProgress;
use crate::model::{Lsn, RelationId, clock};
use crate::pgoutput::frame;
use crate::store::journal::{Append, Block, Durable, TableUse};
use crate::store::renewal::Renewal;
use crate::store::{BegunSnapshot, Store};
use catalog::{Part, Published};
use worker::{Rows, Session, Work};

/// What making a slot with its snapshot needs.
pub(super) struct Snapshotter<'a> {
    pub(super) config: &'a Config,
    pub(super) store: &'a Store,
    /// Everything that was received before must have been handed on.
    pub(super) appender: &'a mpsc::Sender<Append>,
    pub(super) durable: watch::Receiver<Durable>,
    pub(super) publisher: &'a Publisher,
    pub(super) identity: &'a Identity,
    /// The order that it is taken for, and what is lost before it.
    pub(super) renewal: Option<Renewal>,
    pub(super) gap: Option<Gap>,
    /// Set once all of it is on its way to the journal.
    pub(super) is_sent: &'a AtomicBool,
    /// The definitions that changes so far have used: those of an older stream, where there is one.
    pub(super) definitions: &'a mut Definitions,
    /// Where the server is.
    pub(super) place: Place,
}

/// A slot that is there already, and whose beginning no snapshot can reach.
pub(super) fn check_found(past: &Past, config: &Config) -> Result<(), Fault> {
    if !past.is_empty() || config.snapshot == Snapshot::Never {
        return Ok(());
    }
    let slot = &config.slot;
    Err(Fault::person(
        format!(
            "slot `{slot}` is there already, and the data folder is empty: a first snapshot needs \
             a slot that is made with it"
        ),
        format!(
            "if nobody uses that slot, `SELECT pg_drop_replication_slot('{slot}')`; or choose \
             another `source.slot`; or go on from the slot without the rows that were there: \
             `snapshot = \"never\"`"
        ),
    ))
}

/// Drops the slot of a snapshot that was cut off, if that is on this server.
pub(super) async fn drop_slot(
    database: &Database,
    store: &Store,
    begun: &BegunSnapshot,
    identity: &Identity,
) -> Result<(), Fault> {
    let BegunSnapshot { slot, system_identifier, .. } = begun;
    if *system_identifier == identity.system_identifier {
        slot::remove(database, slot).await?;
        tracing::info!(slot, "the snapshot that it was made for was cut off");
    } else {
        tracing::warn!(
            "slot `{slot}` was made for a snapshot that was cut off, on another server \
             ({system_identifier}): drop it there"
        );
    }
    Ok(store.end_snapshot()?)
}

impl Snapshotter<'_> {
    /// Makes the slot, which must not be there, and brings what was committed before it into the
    /// journal. The store may hold an older stream: what comes now lies behind all of it. Where the
    /// slot begins; everything before is on disk then.
    pub(super) async fn take(
        mut self,
        connection: &mut Connection<'_>,
        database: &Database,
    ) -> Result<Lsn, Fault> {
        let mut begun = BegunSnapshot {
            system_identifier: self.identity.system_identifier.clone(),
            slot: self.config.slot.to_string(),
            point: None,
        };
        if !self.config.create_slot {
            return Err(slot::not_ours_to_make(self.config));
        }
        self.store.begin_snapshot(&begun)?;
        self.publisher.snapshotting(SnapshotProgress::default());
        let made = match slot::waiting(connection.create_slot()).await? {
            Ok(made) => made,
            Err(refused) => {
                // Whatever slot there is, it is not ours to drop.
                self.store.end_snapshot()?;
                return Err(refused);
            }
        };
        tracing::info!(slot = %self.config.slot, point = %made.point, "created, with a snapshot");
        begun.point = Some(made.point);
        self.store.begin_snapshot(&begun)?;
        if let Some(renewal) = self.renewal {
            self.store.note_renewal(Renewal { point: Some(made.point), ..renewal })?;
        }
        slot::check_order(BegunSnapshot::commit_before(made.point), self.store.last_commit())?;
        if let Some(gap) = self.gap.take() {
            let told = self.appender.send(Append::Block(gap.block(made.point))).await;
            told.map_err(|_| journal_ended())?;
        }
        let rows = self.read(&made, database).await?;
        let durable = self.durable.wait_for(|durable| durable.lsn() >= made.point).await;
        durable.map_err(|_| journal_ended())?;
        self.store.end_snapshot()?;
        tracing::info!(rows, "the snapshot is complete");
        Ok(made.point)
    }

    /// Reads every table; how many rows there were.
    async fn read(&mut self, made: &Made, database: &Database) -> Result<u64, Fault> {
        let (url, place) = (&self.config.url, &self.place);
        let first = Session::open(url, place, &made.snapshot).await?;
        let tables = self.tables(&first, database).await?;
        let ids = tables.iter().map(|table| self.store.intern_relation(&table.relation));
        let ids: Vec<RelationId> = ids.collect::<Result<_, _>>()?;
        let (commit, time) = (BegunSnapshot::commit_before(made.point), clock::now());
        let begin = frame::begin(commit, time, 0);
        let work = Work::new(&tables, &ids, begin, database.version());
        let wanted = self.config.snapshot_workers.get().min(work.shares());
        let mut sessions = vec![first];
        while sessions.len() < wanted {
            // Behind somebody who waits to change a table we would wait for ourselves.
            let opened = async {
                let session = Session::open(url, place, &made.snapshot).await?;
                session.lock(&parts(&tables), "NOWAIT").await.map(|()| session)
            };
            match opened.await {
                Ok(session) => sessions.push(session),
                Err(fault) => {
                    let (connections, why) = (sessions.len(), fault.report()?.error);
                    tracing::info!(connections, "fewer connections read the tables: {why}");
                    break;
                }
            }
        }
        let (sender, receiver) = mpsc::channel(sessions.len());
        let read = sessions.into_iter().map(|session| work.read(session, sender.clone()));
        let read = try_join_all(read.collect::<Vec<_>>());
        drop(sender);
        let mut writer = Writer {
            commit,
            time,
            part: 0,
            ordinal: 0,
            tables: Vec::new(),
            appender: self.appender,
        };
        writer.redefine(&begin, self.redefined(&ids)?).await?;
        let write = writer.run(receiver, total(&tables), self.publisher);
        let (_, mut writer) = tokio::try_join!(read, write)?;
        writer.tables = self.definitions.commit();
        self.is_sent.store(true, Ordering::Relaxed);
        writer.append(worker::ending(&begin, commit, made.point, time), Some(made.point)).await?;
        Ok(u64::from(writer.ordinal))
    }

    /// The tables that were defined otherwise when their last change came: which definition that
    /// used, and the one that their rows use now.
    fn redefined(&mut self, ids: &[RelationId]) -> Result<Vec<(RelationId, RelationId)>, Fault> {
        let mut redefined = Vec::new();
        for id in ids {
            if let Some(before) = self.definitions.uses(*id)? {
                redefined.push((before, *id));
            }
        }
        Ok(redefined)
    }

    /// The tables as they were at the slot's beginning, which they still are, and will be as long
    /// as the session lasts.
    async fn tables(
        &self,
        session: &Session,
        database: &Database,
    ) -> Result<Vec<Published>, Fault> {
        let publication = self.config.publication.as_str();
        let then = catalog::published(session.database(), publication).await?;
        session.lock(&parts(&then), "").await?;
        // What was rewritten or emptied since looks empty in the snapshot.
        let now = catalog::published(database, publication).await?;
        let same = then.len() == now.len() && then.iter().zip(&now).all(|(a, b)| a.is_still(b));
        match same {
            true => Ok(now),
            false => Err(Fault::away(
                "a table was changed while the snapshot began, which starts over",
                "nothing, unless it happens again and again: then change tables at another time",
            )),
        }
    }
}

fn parts(tables: &[Published]) -> Vec<&Part> {
    tables.iter().flat_map(|table| &table.parts).collect()
}

fn total(tables: &[Published]) -> SnapshotProgress {
    let parts = parts(tables);
    let sum = |of: fn(&Part) -> u64| parts.iter().map(|part| of(part)).sum();
    SnapshotProgress {
        tables_total: tables.iter().filter(|table| !table.parts.is_empty()).count() as u64,
        rows_total: sum(|part| part.rows),
        bytes_total: sum(|part| part.blocks.saturating_mul(part.block_size)),
        ..SnapshotProgress::default()
    }
}

/// There is nobody to hand rows on to.
pub(super) fn journal_ended() -> Fault {
    Fault::away("the journal takes no more", "see what walmill's log says of the store")
}

/// Hands the snapshot's transaction on, part by part.
struct Writer<'a> {
    commit: Lsn,
    time: i64,
    part: u32,
    ordinal: u32,
    /// What is stored with the next part.
    tables: Vec<TableUse>,
    appender: &'a mpsc::Sender<Append>,
}

impl Writer<'_> {
    /// Says before the first row which tables are defined otherwise now.
    async fn redefine(
        &mut self,
        begin: &[u8; 21],
        redefined: Vec<(RelationId, RelationId)>,
    ) -> Result<(), Fault> {
        if redefined.is_empty() {
            return Ok(());
        }
        let mut frames = BytesMut::new();
        worker::put_frame(&mut frames, begin);
        for (before, after) in &redefined {
            worker::put_frame(&mut frames, &frame::redefined(before.0, after.0));
        }
        self.append(frames.freeze(), None).await?;
        self.ordinal = u32::try_from(redefined.len()).map_err(|_| too_many())?;
        Ok(())
    }

    async fn run(
        mut self,
        mut rows: mpsc::Receiver<Rows>,
        mut progress: SnapshotProgress,
        publisher: &Publisher,
    ) -> Result<Self, Fault> {
        publisher.snapshotting(progress);
        while let Some(read) = rows.recv().await {
            if read.rows > 0 {
                self.append(read.frames, None).await?;
                let next = self.ordinal.checked_add(read.rows);
                self.ordinal = next.ok_or_else(too_many)?;
            }
            progress.tables_done += read.tables;
            progress.rows_done += u64::from(read.rows);
            progress.rows_total = progress.rows_total.max(progress.rows_done);
            progress.bytes_done += read.bytes;
            publisher.snapshotting(progress);
        }
        Ok(self)
    }

    /// Hands one part on; `end` with the last.
    async fn append(&mut self, frames: Bytes, end: Option<Lsn>) -> Result<(), Fault> {
        let tables = std::mem::take(&mut self.tables);
        let block = Block {
            first: self.commit,
            part: self.part,
            ordinal: self.ordinal,
            last: self.commit,
            complete: end.is_some(),
            end: end.unwrap_or(self.commit),
            time: self.time,
            frames,
            tables,
        };
        self.part = self.part.saturating_add(1);
        self.appender.send(Append::Block(block)).await.map_err(|_| journal_ended())
    }
}

fn too_many() -> Fault {
    Fault::person(
        "the snapshot has more than 4,294,967,295 rows, and a transaction has at most as many",
        "publish fewer tables at first (`source.tables`), and backfill the others later",
    )
}
