//! The plugin's answer to a batch.

use std::collections::{BTreeMap, HashMap};

use crate::bindings::walmill::plugin::types::Outcome;
use crate::{Cell, Event, tag};

const PASS: u8 = 0;
const DROP: u8 = 1;
const EMIT: u8 = 2;
const REJECT: u8 = 3;
/// Routes that are compared one by one; beyond, looking them up is cheaper.
const FEW: usize = 8;

/// A verdict for each event of a batch: pass, until something else is said.
#[derive(Debug)]
pub struct Verdicts {
    out: Outcome,
    /// Those behind the first few.
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
        Self { out, routes: HashMap::new(), reasons: BTreeMap::new() }
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
        // Most batches go to a few streams.
        let few = self.out.routes.iter().take(FEW).position(|known| known == stream);
        if let Some(at) = few {
            return Route(at as u32 + 1);
        }
        if let Some(&route) = self.routes.get(stream) {
            return route;
        }
        self.out.routes.push(stream.to_owned());
        let route = Route(self.out.routes.len() as u32);
        if self.out.routes.len() > FEW {
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
        if self.out.row_events.is_empty() {
            // Where one event is emitted, most are.
            let events = self.out.verdicts.len() - event.index;
            self.out.row_events.reserve(events);
            self.out.row_shapes.reserve(events);
            self.out.starts.reserve(events + 1);
        }
        self.out.row_events.push(event.index as u32);
        self.out.row_shapes.push(shape);
        self.out.starts.push(self.out.tags.len() as u32);
        RowWriter { out: &mut self.out }
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
        Ok(self.out)
    }
}

/// Takes the computed cells of a row.
#[derive(Debug)]
pub struct RowWriter<'a> {
    out: &'a mut Outcome,
}

impl RowWriter<'_> {
    /// The next computed cell.
    pub fn cell<'c>(&mut self, cell: impl Into<Cell<'c>>) -> &mut Self {
        let (tag, data) = cell.into().write(&mut self.out.heap);
        self.out.tags.push(tag);
        self.out.data.push(data);
        self
    }

    /// The next computed cell, a text that is written where it stays.
    pub fn text(&mut self, write: impl FnOnce(&mut Text<'_>)) -> &mut Self {
        let start = self.out.heap.len();
        write(&mut Text(&mut self.out.heap));
        let len = self.out.heap.len() - start;
        self.out.tags.push(tag::TEXT);
        self.out.data.push((start as u64) << 32 | len as u64);
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

/// A text in the making; see [`RowWriter::text`].
#[derive(Debug)]
pub struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    #[inline]
    fn write_char(&mut self, c: char) -> std::fmt::Result {
        if c.is_ascii() {
            self.0.push(c as u8);
            return Ok(());
        }
        self.write_str(c.encode_utf8(&mut [0; 4]))
    }
}
