//! Events of all streams in the terminal, as they come.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::model::Offset;
use crate::store::Store;
use crate::store::stream::{Read, Stream};

/// Between two looks for streams that a route has made.
const LOOK: Duration = Duration::from_millis(500);
/// Events of one look that are shown; of more, how many there were.
const SHOWN: usize = 20;
/// Characters of an event.
const LONGEST: usize = 160;

/// Shows what comes from now on, until the runtime ends.
pub(super) async fn show(store: Store) {
    let mut known = BTreeSet::new();
    let mut is_first_look = true;
    loop {
        for stream in store.streams() {
            if known.insert(stream.name().to_owned()) {
                // A stream that is made later is shown from its first event on.
                let after = if is_first_look { *stream.head().borrow() } else { Offset::START };
                tokio::spawn(follow(stream, after));
            }
        }
        is_first_look = false;
        tokio::time::sleep(LOOK).await;
    }
}

async fn follow(stream: Arc<Stream>, mut after: Offset) {
    let mut head = stream.head();
    loop {
        let (mut lines, mut more) = (String::new(), 0);
        let mut count = 0;
        loop {
            match stream.read(after) {
                Ok(Read::Events(events)) => {
                    for event in events.after(after) {
                        after = event.offset;
                        count += 1;
                        match count <= SHOWN {
                            true => lines.push_str(&line(stream.name(), &event.json)),
                            false => more += 1,
                        }
                    }
                }
                Ok(Read::Gap { purged }) => after = purged,
                Ok(Read::End) => break,
                // The store is closing, or says in the log what is wrong with it.
                Err(_) => return,
            }
        }
        if more > 0 {
            lines.push_str(&format!("{}  … and {more} more\n", stream.name()));
        }
        // A closed stdout is no reason to end.
        let _ = std::io::stdout().lock().write_all(lines.as_bytes());
        // What came while it was read is behind `after`, and no reason to wait.
        if *head.borrow_and_update() > after {
            continue;
        }
        if head.changed().await.is_err() {
            return;
        }
    }
}

/// `people  insert public.people {"id":1}`
fn line(stream: &str, json: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        data: Option<Data<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Data<'a> {
        op: Option<&'a str>,
        schema: Option<std::borrow::Cow<'a, str>>,
        table: Option<std::borrow::Cow<'a, str>>,
        #[serde(borrow)]
        record: Option<&'a RawValue>,
        #[serde(borrow)]
        key: Option<&'a RawValue>,
    }
    let text = String::from_utf8_lossy(json);
    let shown = match serde_json::from_slice::<Event<'_>>(json) {
        Ok(Event { data: Some(Data { op: Some(op), schema, table, record, key }) }) => {
            let name = format!("{}.{}", schema.unwrap_or_default(), table.unwrap_or_default());
            let row = record.or(key).map_or("", RawValue::get);
            format!("{op} {name} {row}")
        }
        _ => text.into_owned(),
    };
    match shown.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{stream}  {} …\n", &shown[..end]),
        None => format!("{stream}  {shown}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = br#"{"data":{"schema":"public","table":"t","op":"insert","key":{"id":1},
            "record":{"id":1,"x":"y"},"old_record":null}}"#;
        assert_eq!(line("t", event), "t  insert public.t {\"id\":1,\"x\":\"y\"}\n");
        let long = format!(r#"{{"data":{{"op":"insert","record":"{}"}}}}"#, "ü".repeat(500));
        assert!(line("t", long.as_bytes()).ends_with("ü …\n"));
    }
}
