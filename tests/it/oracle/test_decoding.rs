//! Reads the text of PostgreSQL's plugin `test_decoding` (contrib/test_decoding).

use super::{Cell, Change, Row, Transaction};

/// Columns that only this decoder tells: pgoutput leaves generated ones out.
const GENERATED: &str = "twice";

/// The transactions in a slot's lines, those without a change left out.
pub(super) fn transactions<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Transaction> {
    let (mut done, mut open) = (Vec::<Transaction>::new(), false);
    for line in lines {
        if let Some(xid) = line.strip_prefix("BEGIN ") {
            let xid = Some(xid.parse().expect("a transaction's number"));
            done.push(Transaction { xid, changes: Vec::new() });
            open = true;
        } else if line.starts_with("COMMIT ") {
            open = false;
        } else {
            if !open {
                done.push(Transaction { xid: None, changes: Vec::new() });
            }
            done.last_mut().expect("one").changes.push(change(line));
        }
    }
    done.retain(|transaction| !transaction.changes.is_empty());
    done
}

fn change(line: &str) -> Change {
    match line.strip_prefix("message: ") {
        Some(rest) => message(rest),
        None => of_table(line.strip_prefix("table ").unwrap_or_else(|| panic!("{line}"))),
    }
}

/// `transactional: 1 prefix: p, sz: 4 content:text`
fn message(rest: &str) -> Change {
    let (transactional, rest) = between(rest, "transactional: ", " prefix: ");
    let (prefix, rest) = rest.split_once(", sz: ").expect("a size");
    let (_, content) = rest.split_once(" content:").expect("content");
    Change::Message {
        transactional: transactional == "1",
        prefix: prefix.into(),
        content: content.into(),
    }
}

fn between<'a>(text: &'a str, before: &str, behind: &str) -> (&'a str, &'a str) {
    text.strip_prefix(before).and_then(|text| text.split_once(behind)).expect(before)
}

fn of_table(line: &str) -> Change {
    let mut text = Text(line);
    let mut tables = vec![text.table()];
    while text.take(", ") {
        tables.push(text.table());
    }
    assert!(text.take(": "), "{line}");
    if text.take("TRUNCATE: ") {
        let (cascade, restart) = (line.ends_with("cascade"), line.contains("restart_seqs"));
        return Change::Truncate { tables: roots(tables), cascade, restart };
    }
    let table = roots(tables).remove(0);
    if text.take("INSERT: ") {
        return Change::Row { table, op: "INSERT", old: None, new: Some(text.row()) };
    }
    if text.take("DELETE: ") {
        return Change::Row { table, op: "DELETE", old: Some(text.row()), new: None };
    }
    assert!(text.take("UPDATE: "), "{line}");
    let old = text.take("old-key: ").then(|| text.row());
    // Only behind an old key is the new row called so.
    text.take("new-tuple: ");
    Change::Row { table, op: "UPDATE", old, new: Some(text.row()) }
}

/// A part of a partitioned table goes under the name of the whole, and beside it not at all.
fn roots(mut tables: Vec<String>) -> Vec<String> {
    let whole = |table: &String| match table.as_str() {
        "public.parts_low" | "public.parts_high" => "public.parts".to_owned(),
        other => other.to_owned(),
    };
    tables = tables.iter().map(whole).collect();
    let mut seen = Vec::new();
    tables.retain(|table| {
        !seen.contains(table) && {
            seen.push(table.clone());
            true
        }
    });
    tables
}

/// What is left of a line.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn take(&mut self, word: &str) -> bool {
        let rest = self.0.strip_prefix(word);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// `schema.table`, each quoted where it must be.
    fn table(&mut self) -> String {
        let schema = self.identifier(".");
        assert!(self.take("."));
        format!("{schema}.{}", self.identifier(":,"))
    }

    /// An identifier up to one of these.
    fn identifier(&mut self, end: &str) -> String {
        if self.0.starts_with('"') {
            return self.quoted('"');
        }
        let len = self.0.find(|c| end.contains(c)).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(len);
        self.0 = rest;
        name.to_owned()
    }

    /// What stands between quotes, where a doubled one is one.
    fn quoted(&mut self, quote: char) -> String {
        let mut text = String::new();
        let mut letters = self.0[1..].char_indices().peekable();
        while let Some((at, letter)) = letters.next() {
            let doubled = letters.peek().is_some_and(|(_, next)| *next == quote);
            match letter {
                letter if letter != quote => text.push(letter),
                _ if doubled => text.extend(letters.next().map(|(_, letter)| letter)),
                _ => {
                    self.0 = &self.0[1 + at + 1..];
                    return text;
                }
            }
        }
        panic!("no end of {:?}", self.0);
    }

    /// `name[type]:value` …, up to the end or the new row.
    fn row(&mut self) -> Row {
        let mut row = Row::new();
        while !self.0.is_empty() && !self.0.starts_with("new-tuple: ") {
            let name = self.identifier("[");
            assert!(self.take("["), "{:?}", self.0);
            let kind = self.kind();
            let cell = self.cell(&kind);
            if name != GENERATED {
                row.push((name, cell));
            }
            self.take(" ");
        }
        row
    }

    /// A type up to its bracket; arrays have brackets of their own.
    fn kind(&mut self) -> String {
        let end = self.0.find("]:").expect("a type's end");
        let kind = self.0[..end].to_owned();
        self.0 = &self.0[end + 2..];
        kind
    }

    fn cell(&mut self, kind: &str) -> Cell {
        if self.take("null") {
            return Cell::Null;
        }
        if self.take("unchanged-toast-datum") {
            return Cell::Unchanged;
        }
        self.take("B");
        if self.0.starts_with('\'') {
            return Cell::Text(self.quoted('\''));
        }
        let (value, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        self.0 = rest;
        match (kind, value) {
            ("boolean", "true") => Cell::Text("t".into()),
            ("boolean", "false") => Cell::Text("f".into()),
            _ => Cell::Text(value.into()),
        }
    }
}

#[test]
fn its_lines_are_read() {
    let line = "table public.\"A \"\"b\": UPDATE: old-key: id[bigint]:1 new-tuple: id[bigint]:2 \
                \"x y\"[text[]]:'{a,''b}' big[text]:unchanged-toast-datum c[boolean]:true \
                bits[bit varying]:B'01' twice[bigint]:4 n[text]:null";
    let text = |text: &str| Cell::Text(text.into());
    let named = |name: &str, cell| (name.to_owned(), cell);
    let expected = Change::Row {
        table: "public.A \"b".into(),
        op: "UPDATE",
        old: Some(vec![named("id", text("1"))]),
        new: Some(vec![
            named("id", text("2")),
            named("x y", text("{a,'b}")),
            named("big", Cell::Unchanged),
            named("c", text("t")),
            named("bits", text("01")),
            named("n", Cell::Null),
        ]),
    };
    assert_eq!(change(line), expected);
}
