//! Messages that own what is in them, and any of them at random.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use walmill::model::ReplicaIdentity;
use walmill::pgoutput::{Message, OldKind, OldTuple, Prepared, Tuple, Value};

/// A message as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    Begin {
        final_lsn: u64,
        time: i64,
        xid: u32,
    },
    Commit {
        commit_lsn: u64,
        end_lsn: u64,
        time: i64,
    },
    Origin {
        commit_lsn: u64,
        name: String,
    },
    Relation(Table),
    Type {
        oid: u32,
        schema: String,
        name: String,
    },
    Insert {
        relation: u32,
        new: Row,
    },
    /// Of our own, for the journal.
    Row {
        relation: u32,
        new: Row,
    },
    Update {
        relation: u32,
        old: Option<(Old, Row)>,
        new: Row,
    },
    Delete {
        relation: u32,
        old: (Old, Row),
    },
    Truncate {
        cascade: bool,
        restart_identity: bool,
        relations: Vec<u32>,
    },
    Message {
        transactional: bool,
        lsn: u64,
        prefix: String,
        content: Vec<u8>,
    },
    StreamStart {
        xid: u32,
        first: bool,
    },
    StreamStop,
    StreamCommit {
        xid: u32,
        commit_lsn: u64,
        end_lsn: u64,
        time: i64,
    },
    StreamAbort {
        xid: u32,
        subxid: u32,
        at: Option<(u64, i64)>,
    },
    BeginPrepare(Held),
    Prepare(Held),
    CommitPrepared {
        commit_lsn: u64,
        end_lsn: u64,
        time: i64,
        xid: u32,
        gid: String,
    },
    RollbackPrepared {
        ends: (u64, u64),
        times: (i64, i64),
        xid: u32,
        gid: String,
    },
    StreamPrepare(Held),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) identity: u8,
    pub(super) columns: Vec<(bool, String, u32, i32)>,
}

/// A prepared transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) prepare_lsn: u64,
    pub(super) end_lsn: u64,
    pub(super) time: i64,
    pub(super) xid: u32,
    pub(super) gid: String,
}

pub(super) type Row = Vec<Cell>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Old {
    Key,
    Full,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

impl Sent {
    /// Whether it says whose it is inside a streamed block.
    pub(super) fn has_owner(&self) -> bool {
        matches!(
            self,
            Self::Relation(_)
                | Self::Type { .. }
                | Self::Insert { .. }
                | Self::Update { .. }
                | Self::Delete { .. }
                | Self::Truncate { .. }
                | Self::Message { .. }
        )
    }
}

impl From<Message<'_>> for Sent {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Begin { final_lsn, time, xid } => {
                Self::Begin { final_lsn: final_lsn.0, time, xid }
            }
            Message::Commit { commit_lsn, end_lsn, time } => {
                Self::Commit { commit_lsn: commit_lsn.0, end_lsn: end_lsn.0, time }
            }
            Message::Origin { commit_lsn, name } => {
                Self::Origin { commit_lsn: commit_lsn.0, name: name.into() }
            }
            Message::Relation(relation) => Self::Relation(Table {
                oid: relation.oid,
                schema: relation.schema.into(),
                name: relation.table.into(),
                identity: identity(relation.identity),
                columns: relation
                    .columns
                    .iter()
                    .map(|column| {
                        (column.key, column.name.into(), column.type_oid, column.type_mod)
                    })
                    .collect(),
            }),
            Message::Type { oid, schema, name } => {
                Self::Type { oid, schema: schema.into(), name: name.into() }
            }
            Message::Insert { relation, new } => Self::Insert { relation, new: row(new) },
            Message::Row { relation, new } => Self::Row { relation, new: row(new) },
            Message::Update { relation, old: before, new } => {
                Self::Update { relation, old: before.map(old), new: row(new) }
            }
            Message::Delete { relation, old: before } => {
                Self::Delete { relation, old: old(before) }
            }
            Message::Truncate { cascade, restart_identity, relations } => {
                Self::Truncate { cascade, restart_identity, relations: relations.iter().collect() }
            }
            Message::Message { transactional, lsn, prefix, content } => Self::Message {
                transactional,
                lsn: lsn.0,
                prefix: prefix.into(),
                content: content.into(),
            },
            Message::StreamStart { xid, first } => Self::StreamStart { xid, first },
            Message::StreamStop => Self::StreamStop,
            Message::StreamCommit { xid, commit_lsn, end_lsn, time } => {
                Self::StreamCommit { xid, commit_lsn: commit_lsn.0, end_lsn: end_lsn.0, time }
            }
            Message::StreamAbort { xid, subxid, at } => {
                Self::StreamAbort { xid, subxid, at: at.map(|(lsn, time)| (lsn.0, time)) }
            }
            Message::BeginPrepare(prepared) => Self::BeginPrepare(prepared.into()),
            Message::Prepare(prepared) => Self::Prepare(prepared.into()),
            Message::StreamPrepare(prepared) => Self::StreamPrepare(prepared.into()),
            Message::CommitPrepared { commit_lsn, end_lsn, time, xid, gid } => {
                let (commit_lsn, end_lsn) = (commit_lsn.0, end_lsn.0);
                Self::CommitPrepared { commit_lsn, end_lsn, time, xid, gid: gid.into() }
            }
            Message::RollbackPrepared {
                prepare_end_lsn,
                end_lsn,
                prepare_time,
                time,
                xid,
                gid,
            } => Self::RollbackPrepared {
                ends: (prepare_end_lsn.0, end_lsn.0),
                times: (prepare_time, time),
                xid,
                gid: gid.into(),
            },
        }
    }
}

impl From<Prepared<'_>> for Held {
    fn from(prepared: Prepared<'_>) -> Self {
        Self {
            prepare_lsn: prepared.prepare_lsn.0,
            end_lsn: prepared.end_lsn.0,
            time: prepared.time,
            xid: prepared.xid,
            gid: prepared.gid.into(),
        }
    }
}

fn identity(identity: ReplicaIdentity) -> u8 {
    match identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    }
}

fn old(old: OldTuple<'_>) -> (Old, Row) {
    let kind = match old.kind {
        OldKind::Key => Old::Key,
        OldKind::Full => Old::Full,
    };
    (kind, row(old.tuple))
}

fn row(tuple: Tuple<'_>) -> Row {
    let cell = |value| match value {
        Value::Null => Cell::Null,
        Value::Unchanged => Cell::Unchanged,
        Value::Text(text) => Cell::Text(text.into()),
        Value::Binary(bytes) => Cell::Binary(bytes.into()),
    };
    tuple.iter().map(cell).collect()
}

/// Any message.
pub(super) fn any_message() -> impl Strategy<Value = Sent> {
    prop_oneof![version_1(), version_2(), version_3()]
}

fn version_1() -> impl Strategy<Value = Sent> {
    let lsns = (any::<u64>(), any::<u64>());
    prop_oneof![
        (any::<u64>(), time(), any::<u32>()).prop_map(|(final_lsn, time, xid)| Sent::Begin {
            final_lsn,
            time,
            xid
        }),
        (lsns, time()).prop_map(|((commit_lsn, end_lsn), time)| {
            Sent::Commit { commit_lsn, end_lsn, time }
        }),
        (any::<u64>(), text()).prop_map(|(commit_lsn, name)| Sent::Origin { commit_lsn, name }),
        table().prop_map(Sent::Relation),
        (any::<u32>(), text(), text()).prop_map(|(oid, schema, name)| Sent::Type {
            oid,
            schema,
            name
        }),
        (any::<u32>(), cells()).prop_map(|(relation, new)| Sent::Insert { relation, new }),
        (any::<u32>(), cells()).prop_map(|(relation, new)| Sent::Row { relation, new }),
        (any::<u32>(), option::of((kind(), cells())), cells())
            .prop_map(|(relation, old, new)| Sent::Update { relation, old, new }),
        (any::<u32>(), (kind(), cells()))
            .prop_map(|(relation, old)| Sent::Delete { relation, old }),
        (any::<[bool; 2]>(), vec(any::<u32>(), 0..5)).prop_map(|(options, relations)| {
            let [cascade, restart_identity] = options;
            Sent::Truncate { cascade, restart_identity, relations }
        }),
        (any::<bool>(), any::<u64>(), text(), bytes()).prop_map(
            |(transactional, lsn, prefix, content)| Sent::Message {
                transactional,
                lsn,
                prefix,
                content,
            }
        ),
    ]
}

fn version_2() -> impl Strategy<Value = Sent> {
    let at = option::of((any::<u64>(), time()));
    prop_oneof![
        (any::<u32>(), any::<bool>()).prop_map(|(xid, first)| Sent::StreamStart { xid, first }),
        Just(Sent::StreamStop),
        (any::<u32>(), any::<[u64; 2]>(), time()).prop_map(|(xid, [commit_lsn, end_lsn], time)| {
            Sent::StreamCommit { xid, commit_lsn, end_lsn, time }
        }),
        (any::<[u32; 2]>(), at).prop_map(|([xid, subxid], at)| Sent::StreamAbort {
            xid,
            subxid,
            at,
        }),
    ]
}

fn version_3() -> impl Strategy<Value = Sent> {
    prop_oneof![
        held().prop_map(Sent::BeginPrepare),
        held().prop_map(Sent::Prepare),
        held().prop_map(Sent::StreamPrepare),
        (any::<[u64; 2]>(), time(), any::<u32>(), text()).prop_map(
            |([commit_lsn, end_lsn], time, xid, gid)| Sent::CommitPrepared {
                commit_lsn,
                end_lsn,
                time,
                xid,
                gid,
            }
        ),
        (any::<(u64, u64)>(), (time(), time()), any::<u32>(), text())
            .prop_map(|(ends, times, xid, gid)| Sent::RollbackPrepared { ends, times, xid, gid }),
    ]
}

fn held() -> impl Strategy<Value = Held> {
    (any::<[u64; 2]>(), time(), any::<u32>(), text()).prop_map(
        |([prepare_lsn, end_lsn], time, xid, gid)| Held { prepare_lsn, end_lsn, time, xid, gid },
    )
}

fn table() -> impl Strategy<Value = Table> {
    let identity = prop::sample::select(b"dnfi".as_slice());
    let column = (any::<bool>(), text(), any::<u32>(), any::<i32>());
    (any::<u32>(), text(), text(), identity, vec(column, 0..6)).prop_map(
        |(oid, schema, name, identity, columns)| Table { oid, schema, name, identity, columns },
    )
}

/// Microseconds since 1970 that have a place in PostgreSQL's count, which begins in 2000.
fn time() -> impl Strategy<Value = i64> {
    any::<i64>().prop_map(|time| time / 2)
}

/// Text as names have it: any but the zero that ends it.
fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

fn kind() -> impl Strategy<Value = Old> {
    prop_oneof![Just(Old::Key), Just(Old::Full)]
}

fn cells() -> impl Strategy<Value = Row> {
    let cell = prop_oneof![
        Just(Cell::Null),
        Just(Cell::Unchanged),
        bytes().prop_map(Cell::Text),
        bytes().prop_map(Cell::Binary),
    ];
    vec(cell, 0..6)
}
