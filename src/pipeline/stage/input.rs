//! What a call is given: the batch that crosses, the tables that are announced, and the moment at
//! which the call takes place.

use super::super::rows::{Batch, Row, Table};
use super::super::tagged;
use crate::model::{Op, ReplicaIdentity};
use crate::plugin::{Moment, bindings};

/// When a call for these rows takes place.
pub(super) fn moment(batch: &Batch, rows: &[Row]) -> Moment {
    let first = &rows[0];
    let transaction = &batch.transactions[first.transaction as usize];
    match rows {
        [row] => Moment::of_event(transaction.time, transaction.commit.0, row.ordinal),
        rows if rows.iter().all(|row| row.transaction == first.transaction) => {
            Moment::of_transaction(transaction.time)
        }
        _ => Moment::of_several(transaction.time),
    }
}

/// Whether the row is of a table that a plugin can plan for.
pub(in crate::pipeline) fn is_of_table(op: Op) -> bool {
    !matches!(op, Op::Message | Op::Schema | Op::Gap)
}

pub(super) fn op_code(op: Op) -> u8 {
    match op {
        Op::Insert => 0,
        Op::Update => 1,
        Op::Delete => 2,
        Op::Truncate => 3,
        Op::Message => 4,
        Op::Snapshot => 5,
        // Never crosses: it passes every plugin.
        Op::Schema | Op::Gap => u8::MAX,
    }
}

/// A batch of nothing, which takes no memory.
pub(super) fn empty() -> bindings::Batch {
    bindings::Batch {
        count: 0,
        ops: Vec::new(),
        relations: Vec::new(),
        lsns: Vec::new(),
        times: Vec::new(),
        starts: Vec::new(),
        tags: Vec::new(),
        data: Vec::new(),
        heap: Vec::new(),
    }
}

pub(super) fn clear(input: &mut bindings::Batch) {
    input.count = 0;
    input.ops.clear();
    input.relations.clear();
    input.lsns.clear();
    input.times.clear();
    input.starts.clear();
    input.starts.push(0);
    input.tags.clear();
    input.data.clear();
    input.heap.clear();
}

pub(super) fn fill_envelope(input: &mut bindings::Batch, batch: &Batch, rows: &[Row]) {
    for row in rows {
        let transaction = &batch.transactions[row.transaction as usize];
        input.lsns.push(transaction.commit.0);
        input.times.push(transaction.time);
    }
}

pub(in crate::pipeline) fn describe(table: &Table) -> bindings::Relation {
    let relation = &table.relation;
    bindings::Relation {
        id: table.id,
        schema: relation.schema.clone(),
        table: relation.table.clone(),
        columns: relation
            .columns
            .iter()
            .map(|column| bindings::Column {
                name: column.name.clone(),
                type_oid: column.type_oid,
                type_name: column.type_name.clone(),
                tag: tagged::of(column.kind),
                key: column.key,
            })
            .collect(),
        full_old_rows: relation.identity == ReplicaIdentity::Full,
    }
}
