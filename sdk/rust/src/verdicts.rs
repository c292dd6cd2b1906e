//! The plugin's answer to a batch.

use std::collections::{BTreeMap, HashMap};

use crate::bindings::walmill::plugin::types::Outcome;
use crate::heap::Heap;
use crate::template::Rendered;
use crate::{Cell, Event, tag};

const PASS: u8 = 0;
const DROP: u8 = 1;
const EMIT: u8 = 2;
const REJECT: u8 = 3;

/// Routes that are found by looking at one after the other: most often there are few.
const FEW_ROUTES: usize = 16;
/// Bytes of values for which room is made beforehand, at most.
const MOST_ROOM: usize = 1 << 16;

/// A verdict for each event of a batch: pass, until something else is said.
#[derive(Debug)]
pub struct Verdicts {
    out: Outcome,
    heap: Heap,
    /// Those beyond the first few, by name.
    routes: HashMap<String, Route>,
    /// Why, by event.
    reasons: BTreeMap<usize, String>,
}

/// A stream, as [`Verdicts::route_to`] named it. Good for one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route(u32);

impl Verdicts {
    pub(crate) fn new(count: usize) -> Self {
        let out = Outcome {
            verdicts: vec![PASS; count],
            event_routes: Vec::new(),
            row_events: Vec::new(),
            row_shapes: Vec::new(),
            row_routes: Vec::new(),
            starts: Vec::new(),
            tags: Vec::new(),
            data: Vec::new(),
            heap: Vec::new(),
            routes: Vec::new(),
            reasons: Vec::new(),
        };
        Self { out, heap: Heap::default(), routes: HashMap::new(), reasons: BTreeMap::new() }
    }

    /// The event goes on as it is, or in the plan's `pass-shape`.
    #[inline]
    pub fn pass(&mut self, event: &Event) {
        self.out.verdicts[event.index] = PASS;
    }

    /// The event goes nowhere.
    #[inline]
    pub fn drop(&mut self, event: &Event) {
        self.out.verdicts[event.index] = DROP;
    }

    /// The event goes to the dead letters, with the reason.
    pub fn reject(&mut self, event: &Event, reason: impl Into<String>) {
        self.out.verdicts[event.index] = REJECT;
        self.reasons.insert(event.index, reason.into());
    }

    /// A stream by its name, for [`send`](Self::send). walmill takes only names that the
    /// pipeline's `streams` allow.
    pub fn route_to(&mut self, stream: &str) -> Route {
        if let Some(at) = self.out.routes.iter().take(FEW_ROUTES).position(|name| name == stream) {
            return Route(at as u32 + 1);
        }
        if let Some(&route) = self.routes.get(stream) {
            return route;
        }
        self.out.routes.push(stream.to_owned());
        let route = Route(self.out.routes.len() as u32);
        if self.out.routes.len() > FEW_ROUTES {
            self.routes.insert(stream.to_owned(), route);
        }
        route
    }

    /// The event goes to another stream than the pipeline's own.
    pub fn send(&mut self, event: &Event, route: Route) {
        if self.out.event_routes.is_empty() {
            self.out.event_routes.resize(self.out.verdicts.len(), 0);
        }
        self.out.event_routes[event.index] = route.0;
    }

    /// The event becomes a row of a shape of the plan, by the shape's index. Several calls make
    /// several rows. Write the shape's computed cells, in order:
    ///
    /// ```ignore
    /// verdicts.emit(&event, 0).cell(full_name.as_str()).cell(Cell::Null);
    /// ```
    pub fn emit(&mut self, event: &Event, shape: u32) -> RowWriter<'_> {
        self.out.verdicts[event.index] = EMIT;
        if self.out.row_events.len() < 2 {
            self.make_room(self.out.verdicts.len() - event.index);
        }
        self.out.row_events.push(event.index as u32);
        self.out.row_shapes.push(shape);
        self.out.starts.push(self.out.tags.len() as u32);
        RowWriter { out: &mut self.out, heap: &mut self.heap }
    }

    /// Room for so many rows: where one event is emitted, most are. What the second row needs, the
    /// first has shown.
    fn make_room(&mut self, events: usize) {
        let Self { out, heap, .. } = self;
        if out.row_events.is_empty() {
            out.row_events.reserve(events);
            out.row_shapes.reserve(events);
            out.starts.reserve(events + 1);
        } else {
            let cells = (out.tags.len() * events).min(MOST_ROOM / size_of::<u64>());
            out.tags.reserve(cells);
            out.data.reserve(cells);
            heap.text.reserve((heap.text.len() * events).min(MOST_ROOM));
        }
    }

    pub(crate) fn finish(mut self) -> Result<Outcome, String> {
        if !self.out.row_events.is_sorted() {
            return Err("rows were not emitted in the order of their events".into());
        }
        if self.out.tags.is_empty() {
            self.out.starts.clear();
        } else {
            self.out.starts.push(self.out.tags.len() as u32);
        }
        if !self.out.row_routes.is_empty() {
            self.out.row_routes.resize(self.out.row_events.len(), 0);
        }
        let verdicts = &self.out.verdicts;
        self.reasons.retain(|event, _| verdicts[*event] == REJECT);
        self.out.reasons = self.reasons.into_values().collect();
        self.out.heap = self.heap.finish(&self.out.tags, &mut self.out.data);
        Ok(self.out)
    }
}

/// Takes the computed cells of a row.
#[derive(Debug)]
pub struct RowWriter<'a> {
    out: &'a mut Outcome,
    heap: &'a mut Heap,
}

impl RowWriter<'_> {
    /// The next computed cell.
    pub fn cell<'c>(&mut self, cell: impl Into<Cell<'c>>) -> &mut Self {
        let (tag, data) = cell.into().write(self.heap);
        self.push(tag, data)
    }

    /// The next computed cell, made where it is handed over: `write` appends its text to what it
    /// is given, and leaves alone what is there.
    pub fn rendered(&mut self, write: impl FnOnce(&mut String) -> Rendered) -> &mut Self {
        let start = self.heap.text.len();
        let tag = match write(&mut self.heap.text) {
            Rendered::Text => {
                let place = self.heap.place_of_text(start);
                return self.push(tag::TEXT, place);
            }
            Rendered::Null => tag::NULL,
            Rendered::Unchanged => tag::UNCHANGED,
            Rendered::Absent => tag::ABSENT,
        };
        self.heap.text.truncate(start);
        self.push(tag, 0)
    }

    fn push(&mut self, tag: u8, data: u64) -> &mut Self {
        self.out.tags.push(tag);
        self.out.data.push(data);
        self
    }

    /// To another stream than the event's, for this row alone.
    pub fn to(&mut self, route: Route) -> &mut Self {
        let rows = self.out.row_events.len();
        self.out.row_routes.resize(rows, 0);
        self.out.row_routes[rows - 1] = route.0;
        self
    }
}
