//! Changes that are lost, as an event of every pipeline.

use bytes::Bytes;
use serde::Serialize;

use super::{Batch, Cell, Changes, FrameError, Op, Place, Row, Tables, blank};
use crate::model::Lsn;
use crate::pgoutput::frame;

/// The `data` of a `walmill.gap` event.
#[derive(Debug, Serialize)]
struct Data<'a> {
    /// Everything up to here has come.
    from_lsn: Lsn,
    /// From here on the stream goes on.
    to_lsn: Lsn,
    /// Whether what the tables held there follows, as `walmill.row.snapshot`.
    snapshot: bool,
    /// Why they are lost.
    reason: &'a str,
}

impl Changes {
    /// Whichever tables it takes, a pipeline may have lost some of their changes.
    pub(super) fn read_gap(
        &mut self,
        batch: &mut Batch,
        tables: &mut Tables,
        place: &mut Place,
        frame: &[u8],
    ) -> Result<(), FrameError> {
        let offset = place.take_ordinal(1)?;
        batch.changes += 1;
        if offset > self.cursor {
            let gap = frame::read_gap(frame).ok_or("a gap that is cut")?;
            let frame::Gap { from, to, snapshot, reason } = gap;
            let data = Data { from_lsn: from, to_lsn: to, snapshot, reason };
            // Writing strings and numbers to memory does not fail.
            let data = Bytes::from(serde_json::to_vec(&data).unwrap_or_default());
            let len = data.len();
            let buffer = batch.add_buffer(data).ok_or("too many gaps in one batch")?;
            let new = batch.add_cells([Cell::text(buffer, 0, len)]);
            let table = self.message_table(tables);
            let row = Row { ordinal: offset.ordinal, table, new, ..blank(batch) };
            batch.rows.push(Row { op: Op::Gap, ..row });
        }
        batch.end = batch.end.max(offset.end());
        Ok(())
    }
}
