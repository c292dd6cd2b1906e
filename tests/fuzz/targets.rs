//! What is fuzzed: functions that read bytes from outside, with what must be true of any bytes. The
//! fuzz targets call them, and so does the test that runs the corpus.

use std::fs;
use std::io::ErrorKind;
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;
use walmill::metrics::Metrics;
use walmill::model::relation::Element;
use walmill::model::{Column, Kind, Lsn, Offset, Relation, ReplicaIdentity};
use walmill::pgoutput::{DecodeError, Message, decode, decode_streamed, frame};
use walmill::store::journal::Block;
use walmill::store::{Config, Store};
use walmill::{pipeline, source};

/// A replication message, alone and inside a block of an open transaction.
pub fn message(bytes: &[u8]) {
    message_as(bytes, decode);
    message_as(bytes, |bytes| decode_streamed(bytes).map(|(_, message)| message));
}

fn message_as<'a>(bytes: &'a [u8], decode: impl Fn(&'a [u8]) -> Result<Message<'a>, DecodeError>) {
    let Ok(message) = decode(bytes) else { return };
    // Printing walks every lazy part of it.
    let _ = format!("{message:?}");
    if let Message::Insert { new, .. } | Message::Update { new, .. } = message {
        assert_eq!(new.iter().count(), new.len());
    }
    // An abort may be shorter: it says where and when to those who asked.
    if let (Some((_, cut)), false) =
        (bytes.split_last(), matches!(message, Message::StreamAbort { .. }))
    {
        let cut = decode(cut);
        assert!(matches!(cut, Err(DecodeError::Truncated { .. })), "{cut:?}");
    }
}

/// Everything that a server sends on a connection.
pub fn stream(bytes: &[u8]) {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder"));
    let spills = folder.path().join("spills");
    // What one input leaves behind is not for the next one.
    if let Err(error) = fs::remove_dir_all(&spills) {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    let Ok(blocks) = source::fuzz::receive(bytes, &spills) else { return };
    for block in blocks {
        assert!(block.first <= block.last);
        let mut frames = block.frames.as_ref();
        while let Some((len, rest)) = frames.split_first_chunk() {
            let (message, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
            // Or walmill's own word that a definition changed.
            let known = decode(message).is_ok() || frame::read_redefined(message).is_some();
            assert!(known, "what is in a block is a message: {}", message.escape_ascii());
            frames = rest;
        }
        assert!(frames.is_empty());
    }
}

/// A block of the journal: a byte that says which part of a transaction it is, and its frames.
pub fn block(bytes: &[u8]) {
    static STORE: OnceLock<(TempDir, Store)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(store);
    let Some((&part, frames)) = bytes.split_first() else { return };
    let block = Block {
        first: Lsn(100),
        part: u32::from(part),
        ordinal: u32::from(part),
        last: Lsn(100),
        complete: true,
        end: Lsn(200),
        time: 0,
        tables: Vec::new(),
        frames: frames.to_vec().into(),
    };
    let Ok(events) = pipeline::fuzz::events(store, block) else { return };
    events.after(Offset::START).for_each(|event| is_json(&event.json));
}

/// A store that knows a few tables, whose values are text.
fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { path: folder.path().to_owned(), ..Config::default() };
    let store = Store::open(&config, Arc::new(Metrics::new())).expect("a store");
    for (columns, identity) in [
        (1, ReplicaIdentity::Default),
        (3, ReplicaIdentity::Full),
        (10, ReplicaIdentity::Nothing),
        (33, ReplicaIdentity::Index),
    ] {
        let (schema, table) = ("public".into(), format!("with {columns}"));
        let columns = (0..columns).map(column).collect();
        let relation = Relation { oid: 1, schema, table, identity, columns };
        store.intern_relation(&relation).expect("a relation");
    }
    (folder, store)
}

fn column(at: usize) -> Column {
    Column {
        name: format!("column {at}"),
        type_oid: 25,
        type_mod: -1,
        type_name: "text".into(),
        kind: if at % 3 == 2 { Kind::Array(Element::Text) } else { Kind::Text },
        key: at == 0,
    }
}

/// A value: a byte that says its kind, and its text.
pub fn value(bytes: &[u8]) {
    let Some((&kind, text)) = bytes.split_first() else { return };
    let kind = KINDS[usize::from(kind) % KINDS.len()];
    let json = pipeline::fuzz::value(kind, text);
    // Numbers and JSON are copied as the server made them; everything else is made JSON here.
    let copied = [Kind::Int, Kind::Float, Kind::Numeric, Kind::Json].contains(&kind)
        || matches!(
            kind,
            Kind::Array(Element::Int | Element::Float | Element::Numeric | Element::Json)
        );
    if !copied {
        is_json(&json);
    }
}

const KINDS: [Kind; 20] = [
    Kind::Bool,
    Kind::Int,
    Kind::Float,
    Kind::Timestamp,
    Kind::TimestampTz,
    Kind::Date,
    Kind::Time,
    Kind::Text,
    Kind::Numeric,
    Kind::Json,
    Kind::Bytea,
    Kind::Uuid,
    Kind::Array(Element::Bool),
    Kind::Array(Element::Int),
    Kind::Array(Element::Float),
    Kind::Array(Element::Timestamp),
    Kind::Array(Element::TimestampTz),
    Kind::Array(Element::Numeric),
    Kind::Array(Element::Json),
    Kind::Array(Element::Text),
];

fn is_json(text: &[u8]) {
    if let Err(error) = serde_json::from_slice::<serde_json::Value>(text) {
        panic!("{error}: {}", String::from_utf8_lossy(text));
    }
}
