//! Filters of many subscribers, by what they can be found by.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, Hasher, RandomState};
use std::ops::Range;

use super::scan::{Members, Rows};
use crate::model::EventRecord;
use crate::model::event::Order;
use crate::server::filter::{Condition, Filter, Group, Literal, hash_value};

/// Filters by subscriber, a number that the caller chooses.
#[derive(Default)]
pub struct Index {
    columns: Columns,
    /// Each different group once.
    groups: HashMap<Group, usize>,
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// Groups by the hash of a column and a value that it wants there.
    by_value: HashMap<u64, Vec<usize>>,
    /// Groups that cannot be looked up.
    asked: BTreeSet<usize>,
    state: RandomState,
}

/// One group, and who has it.
struct Entry {
    group: Group,
    /// The column of each of its conditions.
    columns: Box<[usize]>,
    subscribers: BTreeSet<usize>,
}

impl Index {
    /// Notes a subscriber's filter.
    pub fn insert(&mut self, filter: &Filter, subscriber: usize) {
        for group in filter.groups() {
            let at = match self.groups.get(group) {
                Some(at) => *at,
                None => self.add(group),
            };
            if let Some(entry) = &mut self.entries[at] {
                entry.subscribers.insert(subscriber);
            }
        }
    }

    /// Forgets it again.
    pub fn remove(&mut self, filter: &Filter, subscriber: usize) {
        for group in filter.groups() {
            let Some(&at) = self.groups.get(group) else { continue };
            let Some(entry) = &mut self.entries[at] else { continue };
            entry.subscribers.remove(&subscriber);
            if entry.subscribers.is_empty() {
                self.drop_group(at);
            }
        }
    }

    fn add(&mut self, group: &Group) -> usize {
        let columns: Box<[usize]> = group
            .conditions()
            .iter()
            .map(|condition| self.columns.take(condition.label()))
            .collect();
        let at = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        match group.key() {
            Some((key, values)) => {
                self.columns.look_up(columns[key]);
                for hash in self.hashes(columns[key], values) {
                    self.by_value.entry(hash).or_default().push(at);
                }
            }
            None => {
                self.asked.insert(at);
            }
        }
        self.groups.insert(group.clone(), at);
        self.entries[at] =
            Some(Entry { group: group.clone(), columns, subscribers: BTreeSet::new() });
        at
    }

    fn drop_group(&mut self, at: usize) {
        let Some(Entry { group, columns, .. }) = self.entries[at].take() else { return };
        if let Some((key, values)) = group.key() {
            for hash in self.hashes(columns[key], values) {
                if let Some(groups) = self.by_value.get_mut(&hash) {
                    groups.retain(|other| *other != at);
                    if groups.is_empty() {
                        self.by_value.remove(&hash);
                    }
                }
            }
            self.columns.look_up_no_more(columns[key]);
        }
        self.asked.remove(&at);
        self.groups.remove(&group);
        for (condition, column) in group.conditions().iter().zip(&columns) {
            self.columns.give_back(condition.label(), *column);
        }
        self.free.push(at);
    }

    fn hashes(&self, column: usize, values: &[Literal]) -> BTreeSet<u64> {
        let mut hashes = BTreeSet::new();
        for literal in values {
            literal.hashes(&mut |write| {
                hashes.insert(hash(&self.state, column, write));
            });
        }
        hashes
    }

    /// Who wants the event, each once. A barrier (TRUNCATE, a changed definition, a gap) is about
    /// every row, and `None`: it is for everyone.
    pub fn find<'a>(
        &mut self,
        event: &EventRecord,
        found: &'a mut Vec<usize>,
    ) -> Option<&'a [usize]> {
        found.clear();
        if event.order() == Order::All {
            return None;
        }
        self.columns.read(&event.json);
        let Self { columns, entries, by_value, asked, state, .. } = self;
        let mut ask = |at: usize| {
            let Some(entry) = entries.get(at).and_then(Option::as_ref) else { return };
            if entry.holds(columns, &event.json) {
                found.extend(&entry.subscribers);
            }
        };
        for (column, value) in columns.looked_up(&event.json) {
            hash_value(value, &mut |write| {
                let groups = by_value.get(&hash(state, column, write));
                groups.into_iter().flatten().for_each(|at| ask(*at));
            });
        }
        asked.iter().for_each(|at| ask(*at));
        found.sort_unstable();
        found.dedup();
        Some(found)
    }
}

impl Entry {
    fn holds(&self, columns: &Columns, json: &[u8]) -> bool {
        let holds = |(condition, column): (&Condition, &usize)| {
            condition.holds(columns.value(*column, json))
        };
        self.group.conditions().iter().zip(&self.columns).all(holds)
    }
}

fn hash(state: &RandomState, column: usize, write: &dyn Fn(&mut dyn Hasher)) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write_usize(column);
    write(&mut hasher);
    hasher.finish()
}

/// The columns that filters name, and where their values stand in the event at hand.
#[derive(Default)]
struct Columns {
    by_label: HashMap<Box<[u8]>, usize>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Those that the event at hand has a value for.
    present: Vec<usize>,
}

#[derive(Default)]
struct Slot {
    /// Conditions about it.
    conditions: usize,
    /// Groups that are found by its values.
    looked_up: usize,
    /// Where its value stands.
    value: Option<Range<usize>>,
}

impl Columns {
    fn take(&mut self, label: &[u8]) -> usize {
        if let Some(&at) = self.by_label.get(label) {
            self.slots[at].conditions += 1;
            return at;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        self.slots[at] = Slot { conditions: 1, ..Slot::default() };
        self.by_label.insert(label.into(), at);
        at
    }

    fn give_back(&mut self, label: &[u8], at: usize) {
        self.slots[at].conditions -= 1;
        if self.slots[at].conditions == 0 {
            self.by_label.remove(label);
            self.free.push(at);
        }
    }

    fn look_up(&mut self, at: usize) {
        self.slots[at].looked_up += 1;
    }

    fn look_up_no_more(&mut self, at: usize) {
        self.slots[at].looked_up -= 1;
    }

    /// Finds the values of an event's row: as it is now, or as it was if it is gone. What an update
    /// left as it was, and PostgreSQL did not send again, is where the old row is, if at all.
    fn read(&mut self, json: &[u8]) {
        for at in self.present.drain(..) {
            self.slots[at].value = None;
        }
        let rows = Rows::of(json);
        let about = rows.about.into_iter().filter(|(_, value)| !value.is_empty());
        let rows = [rows.record, rows.old_record].into_iter().flat_map(Members::of);
        for (label, value) in about.chain(rows) {
            let Some(&at) = self.by_label.get(label) else { continue };
            // It is a part of that JSON.
            let start = value.as_ptr() as usize - json.as_ptr() as usize;
            if self.slots[at].value.is_none() {
                self.slots[at].value = Some(start..start + value.len());
                self.present.push(at);
            }
        }
    }

    fn value<'a>(&self, at: usize, json: &'a [u8]) -> Option<&'a [u8]> {
        json.get(self.slots[at].value.clone()?)
    }

    /// The values by which groups are looked up.
    fn looked_up<'a>(&self, json: &'a [u8]) -> impl Iterator<Item = (usize, &'a [u8])> {
        let present = self.present.iter().filter(|at| self.slots[**at].looked_up > 0);
        present.filter_map(|at| Some((*at, self.value(*at, json)?)))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::Offset;

    fn event(key: &'static [u8], data: &str) -> EventRecord {
        let json = format!(r#"{{"id":"1","subject":"s","data":{data}}}"#);
        EventRecord { offset: Offset::START, key: Bytes::from_static(key), json: json.into() }
    }

    fn filter(groups: &[&str]) -> Filter {
        Filter::read(groups.iter().copied(), "filter").unwrap()
    }

    fn find(index: &mut Index, data: &str) -> Vec<usize> {
        let mut found = Vec::new();
        index.find(&event(b"s.t/1", data), &mut found).expect("an event about one row").to_vec()
    }

    #[test]
    fn an_event_finds_those_whose_filter_fits_and_each_once() {
        let mut index = Index::default();
        index.insert(&filter(&["country=eq.NZ"]), 0);
        index.insert(&filter(&["country=eq.NZ,amount=gt.5"]), 1);
        index.insert(&filter(&["country=in.(AU,NZ)", "amount=gt.1"]), 2);
        index.insert(&filter(&["amount=gt.1"]), 3);
        index.insert(&filter(&["note=is.null"]), 4);
        let data = |country: &str, amount: &str| {
            format!(
                r#"{{"op":"insert","record":{{"country":"{country}","amount":{amount},"note":null}}}}"#
            )
        };
        assert_eq!(find(&mut index, &data("NZ", "9.5")), [0, 1, 2, 3, 4]);
        assert_eq!(find(&mut index, &data("AU", "1")), [2, 4]);
        assert_eq!(find(&mut index, &data("DE", "2")), [2, 3, 4]);
        index.remove(&filter(&["country=in.(AU,NZ)", "amount=gt.1"]), 2);
        assert_eq!(find(&mut index, &data("DE", "2")), [3, 4]);
        assert_eq!(find(&mut index, &data("NZ", "1")), [0, 4]);
    }

    #[test]
    fn a_row_that_is_gone_counts_as_it_was_and_what_was_not_sent_again_too() {
        let mut index = Index::default();
        index.insert(&filter(&["country=eq.NZ"]), 7);
        let gone = r#"{"op":"delete","record":null,"old_record":{"id":1,"country":"NZ"}}"#;
        assert_eq!(find(&mut index, gone), [7]);
        let unchanged = r#"{"op":"update","record":{"id":1},"old_record":{"country":"NZ"}}"#;
        assert_eq!(find(&mut index, unchanged), [7]);
        let moved = r#"{"record":{"country":"AU"},"old_record":{"country":"NZ"}}"#;
        assert_eq!(find(&mut index, moved), [0; 0]);
        assert_eq!(find(&mut index, r#"{"prefix":"p","content":{"country":"NZ"}}"#), [0; 0]);
    }

    #[test]
    fn a_filter_can_be_about_a_table_and_about_no_column_of_that_name() {
        let mut index = Index::default();
        index.insert(&Filter::of_changes(Some("public"), Some("posts"), None), 1);
        index.insert(&Filter::of_changes(None, Some("posts"), Some("delete")), 2);
        index.insert(&Filter::of_changes(None, None, None), 3);
        let data = |op: &str, table: &str, record: &str| {
            format!(r#"{{"schema":"public","table":"{table}","op":"{op}","record":{record}}}"#)
        };
        assert_eq!(find(&mut index, &data("insert", "posts", "{}")), [1, 3]);
        assert_eq!(find(&mut index, &data("delete", "posts", "null")), [1, 2, 3]);
        let column = r#"{"table":"posts","schema":"public"}"#;
        assert_eq!(find(&mut index, &data("insert", "users", column)), [3]);
    }

    #[test]
    fn a_barrier_is_for_everyone() {
        let mut index = Index::default();
        index.insert(&filter(&["country=eq.NZ"]), 7);
        assert_eq!(index.find(&event(b"s.t\0", "{}"), &mut Vec::new()), None);
    }

    #[test]
    fn when_all_have_left_nothing_is_kept() {
        let mut index = Index::default();
        let filters: Vec<Filter> =
            (0..50).map(|n| filter(&[&format!("c{n}=eq.{n},d=gt.{n}"), "e=is.null"])).collect();
        for (subscriber, filter) in filters.iter().enumerate() {
            index.insert(filter, subscriber);
        }
        for (subscriber, filter) in filters.iter().enumerate() {
            index.remove(filter, subscriber);
        }
        assert!(index.groups.is_empty() && index.by_value.is_empty() && index.asked.is_empty());
        assert!(index.columns.by_label.is_empty());
        assert_eq!(index.free.len(), index.entries.len());
    }

    proptest::proptest! {
        #[test]
        fn the_index_finds_just_who_would_be_found_by_asking_each(
            filters in proptest::collection::vec(
                proptest::collection::vec(
                    ("[ab]", "(eq|neq|lt|not\\.eq|in)", "[0-3](\\.0)?"), 1..3), 1..12),
            a in 0..4_u32, b in "(null|\"1\"|2\\.00|3e0|true)",
        ) {
            let texts: Vec<String> = filters.iter().map(|conditions| {
                let text = |(column, operator, value): &(String, String, String)| match &**operator {
                    "in" => format!("{column}=in.({value},9)"),
                    _ => format!("{column}={operator}.{value}"),
                };
                conditions.iter().map(text).collect::<Vec<_>>().join(",")
            }).collect();
            let data = format!(r#"{{"record":{{"a":{a},"b":{b}}}}}"#);
            let (mut all, mut alone) = (Index::default(), Vec::new());
            for (subscriber, text) in texts.iter().enumerate() {
                all.insert(&filter(&[text]), subscriber);
                let row = [("\"a\"", u32::to_string(&a)), ("\"b\"", String::clone(&b))];
                let of = |label: &[u8]| row.iter().find(|(own, _)| own.as_bytes() == label);
                let holds = filter(&[text]).groups()[0].conditions().iter().all(|condition| {
                    condition.holds(of(condition.label()).map(|(_, value)| value.as_bytes()))
                });
                if holds {
                    alone.push(subscriber);
                }
            }
            proptest::prop_assert_eq!(find(&mut all, &data), alone);
        }
    }
}
