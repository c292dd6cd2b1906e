//! What a plugin answered, turned back into rows.

use bytes::Bytes;

use super::super::rows::{Batch, Cell, Row};
use super::super::shape::derive;
use super::super::tagged;
use super::{Failure, Plan, Planned, Report, Routes};
use crate::plugin::check::{Bounds, Fault};
use crate::plugin::{Plugin, bindings};

const PASS: u8 = 0;
const DROP: u8 = 1;
const EMIT: u8 = 2;
const REJECT: u8 = 3;

/// A plugin's checked answer, and the rows it is about.
pub(super) struct Answer<'a> {
    pub(super) plugin: &'a Plugin,
    pub(super) rows: &'a [Row],
    pub(super) outcome: Measured,
}

/// An outcome, and the bytes of values that it makes come again.
pub(super) struct Measured {
    pub(super) outcome: bindings::Outcome,
    pub(super) repeated: u64,
}

/// Whether the rows that events are split into are within what the plugin may make of them. What
/// it computed has been counted before; here it is values that come again in each row, and how
/// many bytes they are is the answer.
pub(super) fn check_size(
    bounds: Bounds<'_>,
    batch: &Batch,
    plans: &[Planned],
    rows: &[Row],
    outcome: &bindings::Outcome,
) -> Result<u64, Fault> {
    let is_split = outcome.row_events.windows(2).any(|pair| pair[0] == pair[1]);
    if !is_split {
        return Ok(0);
    }
    let (mut last, mut of_event, mut of_call) = (None, 0, 0);
    for (&event, &shape) in outcome.row_events.iter().zip(&outcome.row_shapes) {
        let row = &rows[event as usize];
        let Some(Planned::Ready(plan)) = plans.get(row.table as usize) else { continue };
        if last.replace(event) == Some(event) {
            let Some(shape) = plan.shapes.get(shape as usize) else { continue };
            let size = shape.size(batch, row);
            of_event += size;
            of_call += size;
        } else {
            of_event = 0;
        }
        bounds.check_event(of_event)?;
        bounds.check_call(of_call)?;
    }
    Ok(of_call)
}

impl Answer<'_> {
    pub(super) fn apply(
        self,
        batch: &mut Batch,
        routes: &mut dyn Routes,
        plans: &[Planned],
        report: &mut Report,
    ) {
        let Self { plugin, rows, outcome: Measured { mut outcome, repeated } } = self;
        let fail = |row: Row, reason: String, rejected: bool| Failure {
            row,
            plugin: plugin.name().to_owned(),
            version: plugin.version().to_string(),
            reason,
            rejected,
        };
        let names: Vec<Result<u32, String>> =
            outcome.routes.iter().map(|name| routes.stream(name)).collect();
        let heap = Bytes::from(std::mem::take(&mut outcome.heap));
        batch
            .count_made(heap.len().saturating_add(usize::try_from(repeated).unwrap_or(usize::MAX)));
        // Where there is no place for it, the whole batch is made again.
        let Some(heap) = batch.add_buffer(heap) else { return };
        let mut emitted = Emitted { outcome: &outcome, heap, next: 0, cells: Vec::new() };
        let mut reasons = outcome.reasons.iter();
        for (event, &row) in rows.iter().enumerate() {
            let Some(Planned::Ready(plan)) = plans.get(row.table as usize) else { continue };
            let stream = route(&names, &outcome.event_routes, event, row.stream);
            match (outcome.verdicts[event], stream) {
                (DROP, _) => report.dropped += 1,
                (PASS, Ok(stream)) => {
                    let row = pass(batch, plan, Row { stream, ..row });
                    batch.rows.extend(row);
                }
                (EMIT, Ok(stream)) => {
                    let row = Row { stream, ..row };
                    if let Err(reason) = emitted.rows(batch, plan, event, &row, &names) {
                        report.failures.push(fail(row, reason, false));
                    }
                }
                (REJECT, _) => {
                    let reason = reasons.next().cloned().unwrap_or_default();
                    report.failures.push(fail(row, reason, true));
                }
                (_, Err(reason)) => report.failures.push(fail(row, reason.clone(), false)),
                (code, _) => {
                    let reason = format!("verdict {code} is not one that walmill knows");
                    report.failures.push(fail(row, reason, false));
                }
            }
        }
    }
}

/// Walks through the emitted rows, which are ordered by event.
struct Emitted<'a> {
    outcome: &'a bindings::Outcome,
    heap: u16,
    next: usize,
    /// The computed cells of the row in hand.
    cells: Vec<Cell>,
}

impl Emitted<'_> {
    fn rows(
        &mut self,
        batch: &mut Batch,
        plan: &Plan,
        event: usize,
        row: &Row,
        names: &[Result<u32, String>],
    ) -> Result<(), String> {
        let first = batch.rows.len();
        let mut result = Ok(());
        while self.outcome.row_events.get(self.next).is_some_and(|&e| e as usize == event) {
            let at = self.next;
            self.next += 1;
            let shape = self.outcome.row_shapes.get(at).map(|&shape| shape as usize);
            match (
                shape.and_then(|shape| plan.shapes.get(shape)),
                route(names, &self.outcome.row_routes, at, row.stream),
            ) {
                (Some(shape), Ok(stream)) => {
                    self.compute(at);
                    let derived = derive(batch, shape, row, &self.cells);
                    batch.rows.extend(derived.map(|derived| Row { stream, ..derived }));
                }
                (None, _) => result = Err("it is of a shape that the plan does not have".into()),
                (_, Err(reason)) => result = Err(reason.clone()),
            }
        }
        if result.is_err() {
            // A change is delivered whole or set aside whole.
            batch.rows.truncate(first);
        }
        result
    }

    fn compute(&mut self, row: usize) {
        self.cells.clear();
        let outcome = self.outcome;
        let (Some(&start), Some(&end)) = (outcome.starts.get(row), outcome.starts.get(row + 1))
        else {
            return;
        };
        let (heap, cells) = (self.heap, start as usize..end as usize);
        let (tags, data) = (&outcome.tags[cells.clone()], &outcome.data[cells]);
        self.cells.extend(tags.iter().zip(data).map(|(&tag, &data)| {
            if tagged::in_heap(tag) {
                let place = tagged::placed(data);
                Cell::heap(tag, heap, place.start, place.len())
            } else {
                Cell::inline(tag, data)
            }
        }));
    }
}

/// The stream for an event or a row: `own` unless the plugin chose another.
#[inline]
fn route<'n>(
    names: &'n [Result<u32, String>],
    routes: &[u32],
    at: usize,
    own: u32,
) -> Result<u32, &'n String> {
    match routes.get(at) {
        None | Some(0) => Ok(own),
        Some(&index) => names[index as usize - 1].as_ref().copied(),
    }
}

/// The row as the plan has it pass; see [`derive`].
pub(super) fn pass(batch: &mut Batch, plan: &Plan, row: Row) -> Option<Row> {
    match plan.pass_shape {
        Some(shape) => derive(batch, &plan.shapes[shape], &row, &[]),
        None => Some(row),
    }
}
