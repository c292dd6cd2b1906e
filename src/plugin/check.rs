//! What a guest returns is hostile until it has been checked here: every index, length, offset,
//! tag and text. Whoever gets a plan or an outcome behind these checks may believe it.
//!
//! The checks are linear in the size of the answer, and in the good case they allocate nothing
//! (but for the nesting of JSON).

mod cells;

use super::bindings::{OutColumn, Outcome, Plan, Relation, Shape, Source};
use crate::model::access::Grant;
use crate::model::quantity::ByteSize;
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
/// Columns of a shape that may be the same input: each repeats the value.
const MOST_REPEATS: usize = 8;
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
    let mut repeats = vec![0; columns];
    for column in &shape.columns {
        let Source::Input(at) = column.source else { continue };
        repeats[at as usize] += 1;
        if repeats[at as usize] > MOST_REPEATS {
            return Err(format!("input {at} more than {MOST_REPEATS} times"));
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

/// How much an outcome may come to.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// The plugin's name.
    pub plugin: &'a str,
    /// Of one event: `limits.event_output`.
    pub event: ByteSize,
    /// Of one call: `limits.output`.
    pub call: ByteSize,
}

impl Bounds<'_> {
    /// Whether an event may become so many bytes.
    ///
    /// # Errors
    /// Not so many.
    #[inline]
    pub fn check_event(&self, bytes: u64) -> Result<(), Fault> {
        if bytes <= self.event.bytes() { Ok(()) } else { Err(self.large_event()) }
    }

    /// Whether the events of a call may become so many bytes.
    ///
    /// # Errors
    /// Not so many.
    #[inline]
    pub fn check_call(&self, bytes: u64) -> Result<(), Fault> {
        if bytes <= self.call.bytes() { Ok(()) } else { Err(self.large_call()) }
    }

    #[cold]
    fn large_event(&self) -> Fault {
        let Self { plugin, event: limit, .. } = self;
        Fault::Large(format!(
            "made more than {limit} of one event: raise `plugins.{plugin}.limits.event_output`"
        ))
    }

    #[cold]
    fn large_call(&self) -> Fault {
        let Self { plugin, call: limit, .. } = self;
        Fault::Large(format!(
            "made more than {limit} of the events of one call: raise \
             `plugins.{plugin}.limits.output`"
        ))
    }
}

/// What is the matter with an outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not hold together; in words for the plugin's author.
    #[error("{0}")]
    Wrong(String),
    /// It is more than the plugin may make; in words for the operator.
    #[error("{0}")]
    Large(String),
}

impl Fault {
    /// Says where.
    fn at(self, place: impl FnOnce() -> String) -> Self {
        match self {
            Self::Wrong(what) => Self::Wrong(format!("{}: {what}", place())),
            large @ Self::Large(_) => large,
        }
    }
}

/// What a plan's shapes say about the rows that are made in them: all that an outcome is checked
/// by, so that nothing is asked of the plan for each row.
#[derive(Debug)]
pub struct Shapes(Box<[Made]>);

#[derive(Debug)]
struct Made {
    /// The tags of its computed columns, in order.
    computed: Box<[u8]>,
    /// Bytes of names and constants that each row has.
    text: u64,
}

impl Shapes {
    /// Those of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let made = |shape: &Shape| Made { computed: computed(shape).collect(), text: text(shape) };
        Self(plan.shapes.iter().map(made).collect())
    }
}

/// Whether the outcome is a whole answer to a batch of `count` events, of which `shapes_of` gives
/// what their plans say.
///
/// # Errors
/// See [`Fault`].
pub fn check_outcome<'p>(
    outcome: &Outcome,
    count: usize,
    bounds: Bounds<'_>,
    shapes_of: impl FnMut(usize) -> Option<&'p Shapes>,
) -> Result<(), Fault> {
    let emits = check_verdicts(outcome, count).map_err(Fault::Wrong)?;
    check_routes(outcome, count).map_err(Fault::Wrong)?;
    check_starts(outcome).map_err(Fault::Wrong)?;
    check_rows(outcome, emits, bounds, shapes_of)
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
    bounds: Bounds<'_>,
    mut shapes_of: impl FnMut(usize) -> Option<&'p Shapes>,
) -> Result<(), Fault> {
    let wrong = |what: String| Err(Fault::Wrong(what));
    let mut emitted = 0;
    let mut last = None;
    let mut heap = Heap::new(&outcome.heap, bounds);
    // The text of a plan is bounded, so that one row for each event cannot repeat too much of it.
    let repeats = outcome.row_events.len() > emits;
    for (row, &event) in outcome.row_events.iter().enumerate() {
        if outcome.verdicts.get(event as usize) != Some(&EMIT) {
            return wrong(format!("row {row} is of event {event}, whose verdict is not emit"));
        }
        match last {
            Some(last) if event < last => return wrong(format!("row {row} is out of order")),
            Some(last) if event == last => {}
            _ => {
                emitted += 1;
                heap.next_event();
            }
        }
        last = Some(event);
        let unknown = || Fault::Wrong("an event of an unknown relation".into());
        let Shapes(shapes) = shapes_of(event as usize).ok_or_else(unknown)?;
        let at = outcome.row_shapes[row] as usize;
        let Some(shape) = shapes.get(at) else {
            return wrong(format!("row {row} has shape {at} of {}", shapes.len()));
        };
        if repeats {
            heap.count(shape.text)?;
        }
        check_cells(outcome, row, &shape.computed, &mut heap)?;
    }
    if emitted != emits {
        return wrong(format!("{emits} events are emitted, but only {emitted} have rows"));
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
    computed: &[u8],
    heap: &mut Heap<'_>,
) -> Result<(), Fault> {
    let Outcome { starts, tags, data, .. } = outcome;
    let cells = match starts.as_slice() {
        [] => 0..0,
        starts => starts[row] as usize..starts[row + 1] as usize,
    };
    if cells.len() != computed.len() {
        let (count, wanted) = (cells.len(), computed.len());
        return Err(Fault::Wrong(format!(
            "row {row} has {count} cells for {wanted} computed columns"
        )));
    }
    for (at, (&declared, cell)) in computed.iter().zip(cells).enumerate() {
        heap.check(declared, tags[cell], data[cell])
            .map_err(|fault| fault.at(|| format!("row {row}, computed cell {at}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
