//! Messages as PostgreSQL writes them (src/backend/replication/logical/proto.c).

use super::model::{Cell, Held, Old, Sent, Table};

/// 2000-01-01 in microseconds since 1970-01-01.
const EPOCH: i64 = 946_684_800_000_000;

/// A message's bytes; with its owner's number behind the tag where it stands in a streamed block.
pub(super) fn message(sent: &Sent, owner: Option<u32>) -> Vec<u8> {
    let mut out = Out(vec![tag(sent)]);
    if let Some(owner) = owner {
        out.u32(owner);
    }
    match sent {
        Sent::Begin { final_lsn, time, xid } => out.u64(*final_lsn).time(*time).u32(*xid),
        Sent::Commit { commit_lsn, end_lsn, time } => {
            out.u8(0).u64(*commit_lsn).u64(*end_lsn).time(*time)
        }
        Sent::Origin { commit_lsn, name } => out.u64(*commit_lsn).text(name),
        Sent::Relation(table) => out.table(table),
        Sent::Type { oid, schema, name } => out.u32(*oid).text(schema).text(name),
        Sent::Insert { relation, new } | Sent::Row { relation, new } => {
            out.u32(*relation).u8(b'N').row(new)
        }
        Sent::Update { relation, old, new } => {
            out.u32(*relation);
            if let Some(old) = old {
                out.old(old);
            }
            out.u8(b'N').row(new)
        }
        Sent::Delete { relation, old } => out.u32(*relation).old(old),
        Sent::Truncate { cascade, restart_identity, relations } => {
            out.len(relations.len()).u8(u8::from(*cascade) | u8::from(*restart_identity) << 1);
            relations.iter().fold(&mut out, |out, relation| out.u32(*relation))
        }
        Sent::Message { transactional, lsn, prefix, content } => {
            out.u8(u8::from(*transactional)).u64(*lsn).text(prefix).sized(content)
        }
        Sent::StreamStart { xid, first } => out.u32(*xid).u8(u8::from(*first)),
        Sent::StreamStop => &mut out,
        Sent::StreamCommit { xid, commit_lsn, end_lsn, time } => {
            out.u32(*xid).u8(0).u64(*commit_lsn).u64(*end_lsn).time(*time)
        }
        Sent::StreamAbort { xid, subxid, at } => {
            out.u32(*xid).u32(*subxid);
            at.iter().fold(&mut out, |out, (lsn, time)| out.u64(*lsn).time(*time))
        }
        Sent::BeginPrepare(held) => out.held(held),
        Sent::Prepare(held) | Sent::StreamPrepare(held) => out.u8(0).held(held),
        Sent::CommitPrepared { commit_lsn, end_lsn, time, xid, gid } => {
            out.u8(0).u64(*commit_lsn).u64(*end_lsn).time(*time).u32(*xid).text(gid)
        }
        Sent::RollbackPrepared { ends, times, xid, gid } => {
            out.u8(0).u64(ends.0).u64(ends.1).time(times.0).time(times.1).u32(*xid).text(gid)
        }
    };
    out.0
}

fn tag(sent: &Sent) -> u8 {
    match sent {
        Sent::Begin { .. } => b'B',
        Sent::Commit { .. } => b'C',
        Sent::Origin { .. } => b'O',
        Sent::Relation(_) => b'R',
        Sent::Type { .. } => b'Y',
        Sent::Insert { .. } => b'I',
        Sent::Row { .. } => b's',
        Sent::Update { .. } => b'U',
        Sent::Delete { .. } => b'D',
        Sent::Truncate { .. } => b'T',
        Sent::Message { .. } => b'M',
        Sent::StreamStart { .. } => b'S',
        Sent::StreamStop => b'E',
        Sent::StreamCommit { .. } => b'c',
        Sent::StreamAbort { .. } => b'A',
        Sent::BeginPrepare(_) => b'b',
        Sent::Prepare(_) => b'P',
        Sent::CommitPrepared { .. } => b'K',
        Sent::RollbackPrepared { .. } => b'r',
        Sent::StreamPrepare(_) => b'p',
    }
}

struct Out(Vec<u8>);

impl Out {
    fn u8(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    fn u16(&mut self, number: usize) -> &mut Self {
        let number = u16::try_from(number).expect("a small count");
        self.0.extend(number.to_be_bytes());
        self
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn len(&mut self, len: usize) -> &mut Self {
        self.u32(u32::try_from(len).expect("a small length"))
    }

    fn time(&mut self, time: i64) -> &mut Self {
        self.0.extend((time - EPOCH).to_be_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend(text.as_bytes());
        self.u8(0)
    }

    fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        self.len(bytes.len());
        self.0.extend(bytes);
        self
    }

    fn table(&mut self, table: &Table) -> &mut Self {
        self.u32(table.oid).text(&table.schema).text(&table.name).u8(table.identity);
        self.u16(table.columns.len());
        table.columns.iter().fold(self, |out, (key, name, oid, modifier)| {
            out.u8(u8::from(*key)).text(name).u32(*oid).u32(modifier.cast_unsigned())
        })
    }

    fn held(&mut self, held: &Held) -> &mut Self {
        self.u64(held.prepare_lsn).u64(held.end_lsn).time(held.time).u32(held.xid).text(&held.gid)
    }

    fn old(&mut self, (kind, row): &(Old, Vec<Cell>)) -> &mut Self {
        let kind = match kind {
            Old::Key => b'K',
            Old::Full => b'O',
        };
        self.u8(kind).row(row)
    }

    fn row(&mut self, row: &[Cell]) -> &mut Self {
        self.u16(row.len());
        row.iter().fold(self, |out, cell| match cell {
            Cell::Null => out.u8(b'n'),
            Cell::Unchanged => out.u8(b'u'),
            Cell::Text(text) => out.u8(b't').sized(text),
            Cell::Binary(bytes) => out.u8(b'b').sized(bytes),
        })
    }
}
