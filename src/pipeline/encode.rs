//! Rows written as CloudEvents in the JSON event format, once, straight from the bytes that
//! PostgreSQL sent (CloudEvents 1.0.2, "JSON Event Format").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::rows::{Batch, Cell, Row, Span, Table, Tables, Value};
use super::{json, tagged};
use crate::model::event::{EventsBuilder, KEY_END, REPLAYED};
use crate::model::veil::Veil;
use crate::model::{EventId, Kind, Op};

/// Writes events. It keeps what is the same for every event, and its scratch space.
#[derive(Debug)]
pub struct Encoder {
    /// `"specversion":…,"source":…` up to the type.
    head: Vec<u8>,
    /// Names keys that a plugin hides.
    veil: Veil,
    key: Vec<u8>,
    /// What order needs beside the key: the one that the row had before, where an update changed
    /// it, or that this is a barrier.
    key_end: Vec<u8>,
    /// What differs from transaction to transaction: which one, and its text.
    transaction: Option<u32>,
    transaction_text: Vec<u8>,
    /// What an event says that comes again; nothing for others.
    again: &'static [u8],
}

impl Encoder {
    /// Events of a source, `/<source name>/<system identifier>/<timeline>`.
    #[must_use]
    pub fn new(source: &str, veil: Veil) -> Self {
        let mut head = b"{\"specversion\":\"1.0\",\"source\":".to_vec();
        json::string(&mut head, source.as_bytes());
        let (key, key_end, transaction_text) = (Vec::new(), Vec::new(), Vec::new());
        Self { head, veil, key, key_end, transaction: None, transaction_text, again: b"" }
    }

    /// Forgets the transaction it wrote last: another batch counts its own. `again`: its events
    /// say that they are replayed.
    pub fn start_batch(&mut self, again: bool) {
        self.transaction = None;
        self.again = if again { REPLAYED } else { b"" };
    }

    /// Appends the row's event to its stream. `last`: nothing of its transaction follows there.
    pub fn event(
        &mut self,
        out: &mut EventsBuilder,
        batch: &Batch,
        tables: &Tables,
        row: &Row,
        stream: &str,
        last: bool,
    ) {
        let table = tables.get(row.table);
        self.key.clear();
        write_key(&mut self.key, &self.veil, batch, table, row.op, (row.new, row.hidden_key));
        self.key_end.clear();
        if row.op.is_barrier() {
            self.key_end.push(KEY_END);
        } else if changes_key(batch, table, row) {
            self.key_end.push(KEY_END);
            let old = (row.old, row.hidden_old);
            write_key(&mut self.key_end, &self.veil, batch, table, row.op, old);
        }
        self.write_transaction(batch, row.transaction);
        let Self { head, key, key_end, transaction_text, again, .. } = self;
        let offset = batch.offset(row);
        out.committed(batch.transactions[row.transaction as usize].time);
        out.push(
            offset,
            |out| {
                out.extend_from_slice(key);
                out.extend_from_slice(key_end);
            },
            |out| {
                out.extend_from_slice(head);
                out.extend_from_slice(b",\"id\":\"");
                json::event_id(out, EventId(offset));
                out.extend_from_slice(match row.op {
                    Op::Message | Op::Schema | Op::Gap => b"\",\"type\":\"walmill.",
                    _ => b"\",\"type\":\"walmill.row.",
                });
                out.extend_from_slice(row.op.name().as_bytes());
                out.extend_from_slice(b"\",\"subject\":");
                json::string(out, key);
                out.extend_from_slice(transaction_text);
                out.extend_from_slice(b",\"partitionkey\":");
                json::string(out, key);
                out.extend_from_slice(b",\"stream\":");
                json::string(out, stream.as_bytes());
                if last {
                    out.extend_from_slice(b",\"txend\":true");
                }
                out.extend_from_slice(again);
                out.extend_from_slice(b",\"data\":");
                write_data(out, batch, table, row);
                out.push(b'}');
            },
        );
    }

    /// The row as it stands, for the dead letters: the same `data`, with no envelope.
    #[must_use]
    pub fn data(batch: &Batch, tables: &Tables, row: &Row) -> Vec<u8> {
        let mut out = Vec::new();
        write_data(&mut out, batch, tables.get(row.table), row);
        out
    }

    /// `,"time":…,"datacontenttype":…,"lsn":…,"xid":…`, written once for each transaction.
    fn write_transaction(&mut self, batch: &Batch, index: u32) {
        if self.transaction == Some(index) {
            return;
        }
        self.transaction = Some(index);
        let transaction = &batch.transactions[index as usize];
        let out = &mut self.transaction_text;
        out.clear();
        out.extend_from_slice(b",\"time\":\"");
        json::time(out, transaction.time);
        out.extend_from_slice(b"\",\"datacontenttype\":\"application/json\",\"lsn\":\"");
        json::lsn(out, transaction.commit);
        out.extend_from_slice(b"\",\"xid\":\"");
        json::integer(out, i64::from(transaction.xid));
        out.push(b'"');
    }
}

/// `schema.table/key`, with a key of several columns parted by `/`. Where a plugin dropped or
/// replaced a key column its value must not come out here, so the old one stands behind a veil:
/// still the same for the same row, so order per key holds.
fn write_key(
    out: &mut Vec<u8>,
    veil: &Veil,
    batch: &Batch,
    table: &Table,
    op: Op,
    (of, hidden): (Span, Span),
) {
    if matches!(op, Op::Message | Op::Gap) {
        return out.extend_from_slice(op.name().as_bytes());
    }
    out.extend_from_slice(table.relation.schema.as_bytes());
    out.push(b'.');
    out.extend_from_slice(table.relation.table.as_bytes());
    if op == Op::Schema {
        return;
    }
    if hidden.is_some() {
        return write_hidden_key(out, veil, batch, hidden);
    }
    let cells = batch.cells(of);
    for &column in &table.key {
        if let Some(&cell) = cells.get(column) {
            out.push(b'/');
            write_key_part(out, batch, table, column, cell);
        }
    }
}

/// Whether an update gave the row another key, one that is shown or one that a plugin hides.
fn changes_key(batch: &Batch, table: &Table, row: &Row) -> bool {
    if !row.old.is_some() {
        return false;
    }
    let differ = |new: Option<&Cell>, old: Option<&Cell>| match (new, old) {
        (Some(&new), Some(&old)) => {
            let known = !old.is(tagged::ABSENT) && !new.is(tagged::UNCHANGED);
            known && batch.value(new) != batch.value(old)
        }
        _ => false,
    };
    if row.hidden_key.is_some() {
        let (new, old) = (batch.cells(row.hidden_key), batch.cells(row.hidden_old));
        return new.iter().zip(old).any(|(new, old)| differ(Some(new), Some(old)));
    }
    let (new, old) = (batch.cells(row.new), batch.cells(row.old));
    table.key.iter().any(|&column| differ(new.get(column), old.get(column)))
}

fn write_hidden_key(out: &mut Vec<u8>, veil: &Veil, batch: &Batch, key: Span) {
    let mut veiled = veil.begin();
    for &cell in batch.cells(key) {
        // A length before each part, so that no two keys give the same bytes.
        match batch.value(cell) {
            Value::Text(bytes) | Value::Heap(_, bytes) => {
                veiled.part(&(bytes.len() as u64).to_be_bytes());
                veiled.part(bytes);
            }
            Value::Inline(tag, data) => {
                veiled.part(&[u8::MAX, tag]);
                veiled.part(&data.to_be_bytes());
            }
        }
    }
    veiled.write(out);
}

fn format_hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// One column of a key as text; `/`, `%` and control characters percent-encoded.
fn write_key_part(out: &mut Vec<u8>, batch: &Batch, table: &Table, column: usize, cell: Cell) {
    let mut scratch = Vec::new();
    let text: &[u8] = match batch.value(cell) {
        Value::Text(text) | Value::Heap(tagged::TEXT | tagged::NUMERIC, text) => text,
        Value::Inline(..) | Value::Heap(..) => {
            write_cell(&mut scratch, batch, table.kind(column), cell);
            scratch.strip_prefix(b"\"").and_then(|s| s.strip_suffix(b"\"")).unwrap_or(&scratch)
        }
    };
    let mut rest = text;
    while let Some(odd) = rest.iter().position(|byte| matches!(byte, b'/' | b'%' | 0..=31 | 127)) {
        out.extend_from_slice(&rest[..odd]);
        out.push(b'%');
        out.extend_from_slice(&format_hex(rest[odd]));
        rest = &rest[odd + 1..];
    }
    out.extend_from_slice(rest);
}

/// `{schema, table, op, key, record, old_record, unchanged}`
fn write_data(out: &mut Vec<u8>, batch: &Batch, table: &Table, row: &Row) {
    match row.op {
        Op::Message => return write_message(out, batch, row),
        // Its data came as JSON.
        Op::Schema | Op::Gap => return out.extend_from_slice(bytes(batch, row, 0)),
        _ => {}
    }
    out.push(b'{');
    out.extend_from_slice(&table.names);
    out.extend_from_slice(b",\"op\":\"");
    out.extend_from_slice(row.op.name().as_bytes());
    out.extend_from_slice(b"\",\"key\":");
    write_key_record(out, batch, table, row);
    let (record, old) = match row.op {
        Op::Delete => (Span::NONE, row.new),
        Op::Truncate => (Span::NONE, Span::NONE),
        _ => (row.new, row.old),
    };
    out.extend_from_slice(b",\"record\":");
    write_record(out, batch, table, record);
    out.extend_from_slice(b",\"old_record\":");
    write_record(out, batch, table, old);
    out.extend_from_slice(b",\"unchanged\":");
    write_list(out, b"[]", |out| {
        for (cell, (label, _)) in batch.cells(record).iter().zip(table.members()) {
            if cell.is(tagged::UNCHANGED) {
                out.extend_from_slice(label.strip_suffix(b":").unwrap_or(label));
            }
        }
    });
    out.push(b'}');
}

/// What stands between brackets, where each item begins with a comma: the first one's comma
/// becomes the opening bracket.
fn write_list(out: &mut Vec<u8>, [open, close]: &[u8; 2], items: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    items(out);
    match out.get_mut(start) {
        Some(comma) => *comma = *open,
        None => out.push(*open),
    }
    out.push(*close);
}

fn write_key_record(out: &mut Vec<u8>, batch: &Batch, table: &Table, row: &Row) {
    let cells = batch.cells(row.new);
    if table.key.is_empty() || cells.is_empty() {
        return out.extend_from_slice(b"null");
    }
    write_list(out, b"{}", |out| {
        for &column in &table.key {
            if let Some(&cell) = cells.get(column) {
                out.extend_from_slice(table.label(column));
                write_cell(out, batch, table.kind(column), cell);
            }
        }
    });
}

/// A row's columns; those that PostgreSQL did not send are left out, never shown as null.
fn write_record(out: &mut Vec<u8>, batch: &Batch, table: &Table, span: Span) {
    if !span.is_some() {
        return out.extend_from_slice(b"null");
    }
    write_list(out, b"{}", |out| {
        for (&cell, (label, kind)) in batch.cells(span).iter().zip(table.members()) {
            if !cell.is(tagged::UNCHANGED) && !cell.is(tagged::ABSENT) {
                out.extend_from_slice(label);
                write_cell(out, batch, kind, cell);
            }
        }
    });
}

fn write_cell(out: &mut Vec<u8>, batch: &Batch, kind: Kind, cell: Cell) {
    match batch.value(cell) {
        Value::Text(text) => json::value(out, kind, text),
        Value::Inline(tag, data) => write_inline(out, tag, data.cast_signed()),
        Value::Heap(tag, bytes) => write_heap(out, tag, bytes),
    }
}

fn write_inline(out: &mut Vec<u8>, tag: u8, data: i64) {
    match (tag, data) {
        (tagged::BOOLEAN, data) => {
            out.extend_from_slice(if data == 0 { b"false" } else { b"true" });
        }
        (tagged::INTEGER, data) => json::integer(out, data),
        (tagged::FLOAT, data) => write_float(out, f64::from_bits(data.cast_unsigned())),
        (tagged::TIMESTAMP | tagged::DATE, i64::MAX) => out.extend_from_slice(b"\"infinity\""),
        (tagged::TIMESTAMP | tagged::DATE, i64::MIN) => out.extend_from_slice(b"\"-infinity\""),
        (tagged::TIMESTAMP, data) => quoted(out, |out| json::time(out, data)),
        (tagged::DATE, data) => quoted(out, |out| json::date(out, data)),
        (tagged::TIME, data) => quoted(out, |out| json::time_of_day(out, data)),
        // NULL, and the markers where they stand for a value.
        _ => out.extend_from_slice(b"null"),
    }
}

fn write_float(out: &mut Vec<u8>, number: f64) {
    use std::io::Write as _;
    // Writing to a Vec does not fail.
    let _ = match number {
        _ if number.is_nan() => write!(out, "\"NaN\""),
        f64::INFINITY => write!(out, "\"Infinity\""),
        f64::NEG_INFINITY => write!(out, "\"-Infinity\""),
        number => write!(out, "{number:?}"),
    };
}

fn write_heap(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    match tag {
        tagged::NUMERIC => json::number(out, bytes),
        tagged::JSON | tagged::ARRAY => json::raw(out, bytes),
        tagged::BYTEA => quoted(out, |out| {
            out.extend_from_slice(b"\\\\x");
            bytes.iter().for_each(|&byte| out.extend_from_slice(&format_hex(byte)));
        }),
        tagged::UUID => quoted(out, |out| {
            for (at, &byte) in bytes.iter().enumerate() {
                if matches!(at, 4 | 6 | 8 | 10) {
                    out.push(b'-');
                }
                out.extend_from_slice(&format_hex(byte));
            }
        }),
        _ => json::string(out, bytes),
    }
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// The bytes of one of a row's cells.
fn bytes<'a>(batch: &'a Batch, row: &Row, at: usize) -> &'a [u8] {
    match batch.cells(row.new).get(at).map(|&cell| batch.value(cell)) {
        Some(Value::Text(bytes) | Value::Heap(_, bytes)) => bytes,
        _ => &[],
    }
}

/// `{prefix, content}` of a logical message: JSON content as it is, other text as a string, and
/// what is no text as `content_base64`.
fn write_message(out: &mut Vec<u8>, batch: &Batch, row: &Row) {
    let (prefix, content) = (bytes(batch, row, 0), bytes(batch, row, 1));
    out.extend_from_slice(b"{\"prefix\":");
    json::string(out, prefix);
    match std::str::from_utf8(content) {
        Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => {
            out.extend_from_slice(b",\"content\":");
            json::raw(out, content);
        }
        Ok(_) => {
            out.extend_from_slice(b",\"content\":");
            json::string(out, content);
        }
        Err(_) => {
            out.extend_from_slice(b",\"content_base64\":");
            json::string(out, STANDARD.encode(content).as_bytes());
        }
    }
    out.push(b'}');
}
