//! What a guest returns is hostile until it has been checked here: every index, length, offset,
//! tag and text. Whoever gets a plan or an outcome behind these checks may believe it.
//!
//! The checks are linear in the size of the answer, and in the good case they allocate nothing
//! (but for the nesting of JSON).

mod cells;

use super::bindings::{OutColumn, Outcome, Plan, Relation, Shape, Source};
use crate::model::access::Grant;
use cells::Heap;

/// Verdicts.
pub const PASS: u8 = 0;
/// See [`PASS`].
pub const DROP: u8 = 1;
/// See [`PASS`].
pub const EMIT: u8 = 2;
/// See [`PASS`].
pub const REJECT: u8 = 3;

/// Bytes in the name of a column, a table or a route.
const LONGEST_NAME: usize = 255;
/// Shapes in a plan.
const MOST_SHAPES: usize = 256;
/// Columns in a shape; PostgreSQL's own limit is 1,600.
const MOST_COLUMNS: usize = 2_000;
/// Bytes of names and constants in a plan: each row of a shape repeats them.
const LARGEST_PLAN: usize = 256 << 10;
/// Keys in a grant, values in all of them together, and bytes of a value.
const MOST_KEYS: usize = 64;
const MOST_VALUES: usize = 10_000;
const LONGEST_VALUE: usize = 1_024;
/// Rows in an outcome.
const MOST_ROWS: usize = 1 << 16;

/// Whether the plan fits the relation.
///
/// # Errors
/// What does not, in words for the plugin's author.
pub fn check_plan(plan: &Plan, relation: &Relation) -> Result<(), String> {
    let columns = relation.columns.len();
    let mut needed = vec![false; columns];
    for &column in &plan.needs {
        match needed.get_mut(column as usize) {
            Some(needed) if !*needed => *needed = true,
            Some(_) => return Err(format!("`needs` has column {column} twice")),
            None => return Err(format!("`needs` has column {column} of {columns}")),
        }
    }
    if plan.shapes.len() > MOST_SHAPES {
        return Err(format!("{} shapes, more than {MOST_SHAPES}", plan.shapes.len()));
    }
    let mut size = 0;
    for (at, shape) in plan.shapes.iter().enumerate() {
        check_shape(shape, columns, &mut size).map_err(|what| format!("shape {at}: {what}"))?;
    }
    match plan.pass_shape.map(|at| (at, plan.shapes.get(at as usize))) {
        Some((at, None)) => Err(format!("`pass-shape` is {at} of {}", plan.shapes.len())),
        Some((at, Some(shape))) if computed(shape).next().is_some() => {
            Err(format!("`pass-shape` is {at}, which has a computed column"))
        }
        _ => Ok(()),
    }
}

fn check_shape(shape: &Shape, columns: usize, size: &mut usize) -> Result<(), String> {
    if let Some(table) = &shape.table {
        check_name(table).map_err(|what| format!("table {what}"))?;
    }
    if shape.columns.len() > MOST_COLUMNS {
        return Err(format!("{} columns, more than {MOST_COLUMNS}", shape.columns.len()));
    }
    for column in &shape.columns {
        *size += check_out_column(column, columns)?;
        if *size > LARGEST_PLAN {
            return Err(format!("names and constants of more than {LARGEST_PLAN} bytes"));
        }
    }
    let mut names: Vec<&str> = shape.columns.iter().map(|column| column.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("column {:?} twice", pair[0])),
        None => Ok(()),
    }
}

/// How many bytes of names and constants the column has.
fn check_out_column(column: &OutColumn, columns: usize) -> Result<usize, String> {
    let name = &column.name;
    check_name(name).map_err(|what| format!("column {what}"))?;
    let text = match &column.source {
        Source::Input(at) if *at as usize >= columns => {
            return Err(format!("column {name:?} is input {at} of {columns}"));
        }
        Source::Computed(tag) if !matches!(tag, 1..=6 | 16..=21) => {
            return Err(format!("column {name:?} is computed with tag {tag}, which is no type"));
        }
        Source::Fixed(text) => text.len(),
        Source::Input(_) | Source::Computed(_) => 0,
    };
    Ok(name.len() + text)
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        Err("without a name".into())
    } else if name.len() > LONGEST_NAME {
        Err(format!("name of {} bytes, more than {LONGEST_NAME}", name.len()))
    } else if name.chars().any(char::is_control) {
        Err(format!("name {name:?} with a control character"))
    } else {
        Ok(())
    }
}

/// Whether the grant is one that can be kept for as long as a subscriber is there.
///
/// # Errors
/// What is wrong with it, in words for the plugin's author.
pub fn check_grant(grant: &Grant) -> Result<(), String> {
    let Grant { rows, hidden, .. } = grant;
    if rows.len() > MOST_KEYS {
        return Err(format!("{} row keys, more than {MOST_KEYS}", rows.len()));
    }
    let values: usize = rows.iter().map(|key| key.values.len()).sum();
    if values > MOST_VALUES {
        return Err(format!("{values} values in its row keys, more than {MOST_VALUES}"));
    }
    if hidden.len() > MOST_COLUMNS {
        return Err(format!("{} hidden columns, more than {MOST_COLUMNS}", hidden.len()));
    }
    let named = rows.iter().map(|key| &key.column).chain(hidden);
    { named }.try_for_each(|name| check_name(name).map_err(|what| format!("column {what}")))?;
    let long = |value: &&String| value.len() > LONGEST_VALUE;
    match rows.iter().flat_map(|key| &key.values).find(long) {
        Some(value) => Err(format!("a value of {} bytes, more than {LONGEST_VALUE}", value.len())),
        None => Ok(()),
    }
}

/// Whether the outcome is a whole answer to a batch of `count` events, of which `plan_of` gives
/// the plans.
///
/// # Errors
/// What does not hold together, in words for the plugin's author.
pub fn check_outcome<'p>(
    outcome: &Outcome,
    count: usize,
    plan_of: impl FnMut(usize) -> Option<&'p Plan>,
) -> Result<(), String> {
    let emits = check_verdicts(outcome, count)?;
    check_routes(outcome, count)?;
    check_starts(outcome)?;
    check_rows(outcome, emits, plan_of)
}

/// How many events are emitted.
fn check_verdicts(outcome: &Outcome, count: usize) -> Result<usize, String> {
    let Outcome { verdicts, reasons, .. } = outcome;
    if verdicts.len() != count {
        return Err(format!("{} verdicts for {count} events", verdicts.len()));
    }
    let (mut emits, mut rejects) = (0, 0);
    for (event, verdict) in verdicts.iter().enumerate() {
        match *verdict {
            PASS | DROP => {}
            EMIT => emits += 1,
            REJECT => rejects += 1,
            other => return Err(format!("verdict {other} for event {event}")),
        }
    }
    if reasons.len() != rejects {
        return Err(format!("{} reasons for {rejects} rejects", reasons.len()));
    }
    Ok(emits)
}

fn check_routes(outcome: &Outcome, count: usize) -> Result<(), String> {
    let Outcome { routes, event_routes, row_routes, row_events, .. } = outcome;
    for route in routes {
        check_name(route).map_err(|what| format!("route {what}"))?;
    }
    for (what, list, length) in
        [("event-routes", event_routes, count), ("row-routes", row_routes, row_events.len())]
    {
        if !list.is_empty() && list.len() != length {
            return Err(format!("`{what}` has {} entries for {length}", list.len()));
        }
        if let Some(route) = list.iter().find(|route| **route as usize > routes.len()) {
            return Err(format!("`{what}` has route {route} of {}", routes.len()));
        }
    }
    Ok(())
}

/// Whether `starts` cuts the cells into one piece for each row.
fn check_starts(outcome: &Outcome) -> Result<(), String> {
    let Outcome { row_events, row_shapes, starts, tags, data, .. } = outcome;
    let rows = row_events.len();
    if rows > MOST_ROWS {
        return Err(format!("{rows} rows, more than {MOST_ROWS}"));
    }
    if row_shapes.len() != rows {
        return Err(format!("{} row-shapes for {rows} rows", row_shapes.len()));
    }
    if tags.len() != data.len() {
        return Err(format!("{} tags for {} cells", tags.len(), data.len()));
    }
    if starts.is_empty() {
        return match tags.len() {
            0 => Ok(()),
            cells => Err(format!("{cells} cells without `starts`")),
        };
    }
    if starts.len() != rows + 1 {
        return Err(format!("{} starts for {rows} rows", starts.len()));
    }
    let ends = (starts[0], starts[rows] as usize);
    if ends != (0, tags.len()) || !starts.is_sorted() {
        return Err(format!("`starts` does not go from 0 to {} in steps forward", tags.len()));
    }
    Ok(())
}

fn check_rows<'p>(
    outcome: &Outcome,
    emits: usize,
    mut plan_of: impl FnMut(usize) -> Option<&'p Plan>,
) -> Result<(), String> {
    let mut emitted = 0;
    let mut last = None;
    let mut heap = Heap::new(&outcome.heap);
    // The text of a plan is bounded, so that few rows cannot repeat too much of it.
    let repeats = outcome.row_events.len() > cells::MOST_BYTES as usize / LARGEST_PLAN;
    for (row, &event) in outcome.row_events.iter().enumerate() {
        if outcome.verdicts.get(event as usize) != Some(&EMIT) {
            return Err(format!("row {row} is of event {event}, whose verdict is not emit"));
        }
        match last {
            Some(last) if event < last => return Err(format!("row {row} is out of order")),
            Some(last) if event == last => {}
            _ => emitted += 1,
        }
        last = Some(event);
        let plan = plan_of(event as usize).ok_or("an event of an unknown relation")?;
        let at = outcome.row_shapes[row] as usize;
        let shape = plan
            .shapes
            .get(at)
            .ok_or_else(|| format!("row {row} has shape {at} of {}", plan.shapes.len()))?;
        if repeats {
            heap.count(text(shape)).map_err(|what| format!("row {row}: {what}"))?;
        }
        check_cells(outcome, row, shape, &mut heap)?;
    }
    if emitted != emits {
        return Err(format!("{emits} events are emitted, but only {emitted} have rows"));
    }
    Ok(())
}

/// The tags of a shape's computed columns, in order.
fn computed(shape: &Shape) -> impl Iterator<Item = u8> + '_ {
    shape.columns.iter().filter_map(|column| match column.source {
        Source::Computed(tag) => Some(tag),
        Source::Input(_) | Source::Fixed(_) => None,
    })
}

/// Bytes of names and constants that each row of the shape has.
fn text(shape: &Shape) -> u64 {
    let size = |column: &OutColumn| match &column.source {
        Source::Fixed(text) => column.name.len() + text.len(),
        Source::Input(_) | Source::Computed(_) => column.name.len(),
    };
    shape.columns.iter().map(size).sum::<usize>() as u64
}

fn check_cells(
    outcome: &Outcome,
    row: usize,
    shape: &Shape,
    heap: &mut Heap<'_>,
) -> Result<(), String> {
    let Outcome { starts, tags, data, .. } = outcome;
    let cells = match starts.as_slice() {
        [] => 0..0,
        starts => starts[row] as usize..starts[row + 1] as usize,
    };
    let (count, mut given) = (cells.len(), cells);
    let wrong_count = || {
        let wanted = computed(shape).count();
        format!("row {row} has {count} cells for {wanted} computed columns")
    };
    for (at, declared) in computed(shape).enumerate() {
        let cell = given.next().ok_or_else(wrong_count)?;
        heap.check(declared, tags[cell], data[cell])
            .map_err(|what| format!("row {row}, computed cell {at}: {what}"))?;
    }
    if given.next().is_some() { Err(wrong_count()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
