//! What arrived at one output, and whether it may have.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::value::RawValue;
use walmill::model::{EventId, Lsn, Offset};

use crate::promise::{Broken, Promise};

/// A row: its table and key.
pub type Key = (String, String);

/// What happened to a row, at which it can be told from whatever else happened to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Step {
    /// How often its table had been emptied before.
    pub emptied: u32,
    pub op: String,
    /// The row version, where the event tells it: of the new row, or of the one deleted.
    pub version: Option<i64>,
}

/// Which events an output gets, and which of their order it can see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum View {
    /// All of them, in one order.
    #[default]
    Whole,
    /// Those of one table, without versions, in one order.
    Items,
    /// The same in Kafka's partitions: each row's in order, beside those of other rows.
    ItemsApart,
}

/// The steps of each row, in their order.
#[derive(Debug, Default, Clone)]
pub struct Steps {
    view: View,
    pub rows: BTreeMap<Key, Vec<Step>>,
    pub emptied: BTreeMap<String, u32>,
    pub events: usize,
}

impl Steps {
    /// None yet.
    pub fn of(view: View) -> Self {
        Self { view, ..Self::default() }
    }

    /// What they are of.
    pub fn view(&self) -> View {
        self.view
    }

    /// Adds one event. `key` is none for a table that is emptied; an update that gives the row
    /// another key is a step of both.
    pub fn add(
        &mut self,
        table: &str,
        op: &str,
        (key, old_key): (Option<&str>, Option<&str>),
        version: Option<i64>,
    ) {
        let (whole, apart) = (self.view == View::Whole, self.view == View::ItemsApart);
        if !whole && table != "items" {
            return;
        }
        self.events += 1;
        let version = version.filter(|_| whole);
        let old_key = old_key.filter(|_| !apart);
        let emptied = self.emptied.entry(table.to_owned()).or_default();
        let Some(key) = key else {
            *emptied += 1;
            return;
        };
        let emptied = if apart { 0 } else { *emptied };
        let step = Step { emptied, op: op.to_owned(), version };
        for key in old_key.filter(|old| *old != key).into_iter().chain([key]) {
            let row = (table.to_owned(), key.to_owned());
            self.rows.entry(row).or_default().push(step.clone());
        }
    }

    /// The first thing that is otherwise in what arrived.
    pub fn compare(&self, arrived: &Self, at: &str) -> Result<(), Broken> {
        if self.emptied != arrived.emptied {
            let what = format!("emptied: {:?}, arrived: {:?}", self.emptied, arrived.emptied);
            return Err(Broken::new(Promise::NothingLost, at, what));
        }
        for (row, wanted) in &self.rows {
            let none = Vec::new();
            let got = arrived.rows.get(row).unwrap_or(&none);
            let same = wanted.iter().zip(got).take_while(|(a, b)| same(a, b)).count();
            if same == wanted.len() && same == got.len() {
                continue;
            }
            let promise = match got.len().cmp(&wanted.len()) {
                std::cmp::Ordering::Less => Promise::NothingLost,
                std::cmp::Ordering::Equal => Promise::OrderPerKey,
                std::cmp::Ordering::Greater => Promise::NothingInvented,
            };
            let from = same.saturating_sub(1);
            let what = format!(
                "row {row:?} differs at step {same} of {} (arrived: {})\n  committed: {:?}\n  \
                 arrived:   {:?}",
                wanted.len(),
                got.len(),
                &wanted[from..wanted.len().min(same + 3)],
                &got[from.min(got.len())..got.len().min(same + 3)],
            );
            return Err(Broken::new(promise, at, what));
        }
        if let Some(row) = arrived.rows.keys().find(|&row| !self.rows.contains_key(row)) {
            let what = format!("row {row:?} never was");
            return Err(Broken::new(Promise::NothingInvented, at, what));
        }
        Ok(())
    }
}

/// An event may not tell the version; then what is known is compared.
fn same(wanted: &Step, got: &Step) -> bool {
    let versions = got.version.is_none() || wanted.version == got.version;
    versions && wanted.op == got.op && wanted.emptied == got.emptied
}

/// How an output gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It keeps a cursor: each event once, all in the order of their commits.
    Reader,
    /// At least once, in the order of each key.
    Pushed,
}

/// What arrived at one output since the round began.
pub struct Ledger {
    name: String,
    kind: Kind,
    bodies: Arc<Mutex<Bodies>>,
    seen: HashSet<Offset>,
    newest: Offset,
    again: u64,
    /// Everything up to here was delivered and noted before walmill was last ended in peace.
    settled: Lsn,
    steps: Steps,
    broken: Option<Broken>,
}

/// What each event's data was when it first arrived anywhere.
pub type Bodies = HashMap<Offset, u64>;

/// The ledger as the tasks that fill it and the one that reads it share it.
#[derive(Clone)]
pub struct Book(Arc<Mutex<Ledger>>);

#[derive(Deserialize)]
struct Data<'a> {
    table: String,
    op: String,
    key: Option<Id>,
    #[serde(borrow)]
    record: Option<Record<'a>>,
    #[serde(borrow)]
    old_record: Option<Record<'a>>,
}

#[derive(Deserialize)]
struct Id {
    id: serde_json::Value,
}

#[derive(Deserialize)]
struct Record<'a> {
    id: Option<serde_json::Value>,
    v: Option<i64>,
    #[serde(borrow)]
    note: Option<std::borrow::Cow<'a, str>>,
    version: Option<String>,
}

impl Book {
    pub fn new(name: &str, kind: Kind, view: View, bodies: &Arc<Mutex<Bodies>>) -> Self {
        Self(Arc::new(Mutex::new(Ledger {
            name: name.to_owned(),
            kind,
            bodies: Arc::clone(bodies),
            seen: HashSet::new(),
            newest: Offset::default(),
            again: 0,
            settled: Lsn::ZERO,
            steps: Steps::of(view),
            broken: None,
        })))
    }

    fn open(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event arrived: its id and its data.
    pub fn arrived(&self, id: &str, data: &str) {
        let mut ledger = self.open();
        if let Err(broken) = ledger.arrived(id, data) {
            ledger.broken.get_or_insert(broken);
        }
    }

    /// A whole CloudEvent arrived.
    pub fn event(&self, json: &str) {
        #[derive(Deserialize)]
        struct Event<'a> {
            id: String,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        match serde_json::from_str::<Event<'_>>(json) {
            Ok(event) => self.arrived(&event.id, event.data.get()),
            Err(error) => self.breaks(Promise::NothingInvented, format!("{error} in {json:.500}")),
        }
    }

    /// Something is wrong that is no event.
    pub fn breaks(&self, promise: Promise, what: impl Into<String>) {
        let mut ledger = self.open();
        let broken = Broken::new(promise, &ledger.name, what);
        ledger.broken.get_or_insert(broken);
    }

    pub fn name(&self) -> String {
        self.open().name.clone()
    }

    /// Different events so far, and how many came again.
    pub fn count(&self) -> (usize, u64) {
        let ledger = self.open();
        (ledger.seen.len(), ledger.again)
    }

    /// Whether a row's step has arrived.
    pub fn has(&self, row: &Key) -> bool {
        self.open().steps.rows.contains_key(row)
    }

    /// What was found wrong when it arrived.
    pub fn check(&self) -> Result<(), Broken> {
        self.open().broken.clone().map_or(Ok(()), Err)
    }

    /// Whether it sees no order between rows.
    pub fn is_apart(&self) -> bool {
        self.open().steps.view == View::ItemsApart
    }

    /// Whether as much arrived as committed.
    pub fn has_all_of(&self, committed: &[Steps]) -> bool {
        let ledger = self.open();
        let wanted = committed.iter().find(|steps| steps.view == ledger.steps.view);
        wanted.is_some_and(|wanted| wanted.events <= ledger.seen.len())
    }

    /// Compares with what committed.
    pub fn compare(&self, committed: &[Steps]) -> Result<(), Broken> {
        self.check()?;
        let ledger = self.open();
        let wanted = committed.iter().find(|steps| steps.view == ledger.steps.view);
        wanted.expect("every view").compare(&ledger.steps, &ledger.name)
    }

    /// Everything that arrived is noted by walmill, which has been ended in peace: a new round.
    pub fn settle(&self) {
        let mut ledger = self.open();
        ledger.settled = ledger.settled.max(ledger.newest.commit);
        ledger.seen.clear();
        ledger.steps = Steps::of(ledger.steps.view());
    }
}

impl Ledger {
    fn arrived(&mut self, id: &str, data: &str) -> Result<(), Broken> {
        let broken = |promise, what: String| Err(Broken::new(promise, &self.name, what));
        let Ok(EventId(at)) = id.parse() else {
            return broken(Promise::NothingInvented, format!("`{id}` is no id"));
        };
        let read = match serde_json::from_str::<Data<'_>>(data) {
            Ok(read) => read,
            Err(error) => {
                let what = format!("event {id}: {error} in {data:.500}");
                return broken(Promise::NothingInvented, what);
            }
        };
        if at.commit <= self.settled {
            let what = format!("event {id} comes again, long after it was taken and noted");
            return broken(Promise::NotAgain, what);
        }
        if self.kind == Kind::Reader && at <= self.newest {
            let newest = EventId(self.newest);
            let what = format!("event {id} comes behind {newest} to a reader with a cursor");
            return broken(Promise::NotAgain, what);
        }
        let body = digest(data, &read);
        let first =
            *self.bodies.lock().unwrap_or_else(PoisonError::into_inner).entry(at).or_insert(body);
        if first != body {
            let what = format!("event {id} was otherwise when it first came: now {data:.500}");
            return broken(Promise::SameAgain, what);
        }
        if let Some(what) = torn(&read) {
            return broken(Promise::NothingInvented, format!("event {id}: {what}"));
        }
        self.newest = self.newest.max(at);
        if !self.seen.insert(at) {
            self.again += 1;
            return Ok(());
        }
        let key = read.key.as_ref().map(|key| text(&key.id));
        let old = read.old_record.as_ref();
        let old_key = old.and_then(|old| old.id.as_ref()).map(text);
        let told = if read.op == "delete" { old } else { read.record.as_ref() };
        let version = told.and_then(|record| record.v);
        self.steps.add(&read.table, &read.op, (key.as_deref(), old_key.as_deref()), version);
        Ok(())
    }
}

/// An event's data, without which version of a plugin made it: what was never synced is made again,
/// by the version of then.
fn digest(data: &str, read: &Data<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let records = [&read.record, &read.old_record].into_iter().flatten();
    match records.filter_map(|record| record.version.as_deref()).next() {
        Some(version) => data.replace(version, "").hash(&mut hasher),
        None => data.hash(&mut hasher),
    }
    hasher.finish()
}

fn text(id: &serde_json::Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

/// A note says one word over and over, the row's key and version when it was written.
fn torn(read: &Data<'_>) -> Option<String> {
    let record = read.record.as_ref()?;
    let (note, now) = (record.note.as_deref().filter(|note| !note.is_empty())?, record.v?);
    let (word, _) = note.split_once('|')?;
    let written: i64 = word.rsplit_once(':').and_then(|(_, v)| v.parse().ok())?;
    let whole = note
        .as_bytes()
        .chunks(word.len() + 1)
        .all(|part| part == &note.as_bytes()[..word.len() + 1]);
    let right = whole && written <= now;
    (!right).then(|| format!("version {now} has the note {note:.200}"))
}
