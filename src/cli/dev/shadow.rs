//! What a new version makes of the last events, beside the one that it takes over from, for people.

use std::fmt::Write as _;

use serde_json::Value;

/// Examples that are shown for each pipeline.
const EXAMPLES: usize = 5;

/// What came of a version: an entry of the plugin's history.
pub(super) fn decision(plugin: &str, entry: &Value) -> String {
    let version = text(entry, "version");
    let mut shown = match (entry["error"].as_str(), text(entry, "outcome")) {
        (Some(error), _) => format!("{plugin}: {version} is refused: {error}\n"),
        (None, "waiting") => format!("{plugin}: {version} waits for `walmill plugin promote`\n"),
        (None, _) => format!("{plugin}: {version} is in force\n"),
    };
    let report = &entry["shadow"];
    if let Some(note) = report["note"].as_str() {
        line(&mut shown, &format!("  {note}"));
    }
    for pipeline in report["pipelines"].as_array().into_iter().flatten() {
        comparison(&mut shown, pipeline);
    }
    shown
}

fn comparison(shown: &mut String, pipeline: &Value) {
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let (events, differ) = (count(&pipeline["events"]), count(&pipeline["differ"]));
    let name = text(pipeline, "pipeline");
    if events == 0 {
        return line(shown, &format!("  {name}: there are no events yet to compare with"));
    }
    if differ == 0 {
        return line(shown, &format!("  {name}: the same for the last {events} events"));
    }
    line(shown, &format!("  {name}: {differ} of the last {events} events become something else"));
    for key in ["emitted", "dropped", "rejected", "failed"] {
        let (before, after) = (count(&pipeline["before"][key]), count(&pipeline["after"][key]));
        if before != after {
            line(shown, &format!("    {key}: {before} before, {after} now"));
        }
    }
    let examples = pipeline["examples"].as_array().map_or(&[][..], Vec::as_slice);
    for example in examples.iter().take(EXAMPLES) {
        line(shown, &format!("    {} {}", text(example, "event"), text(example, "table")));
        line(shown, &format!("      - {}", verdict(&example["before"])));
        line(shown, &format!("      + {}", verdict(&example["after"])));
    }
}

fn verdict(verdict: &Value) -> String {
    match text(verdict, "verdict") {
        "emitted" => {
            let events = verdict["events"].as_array().into_iter().flatten();
            let record = |event: &Value| record(event.as_str().unwrap_or_default());
            format!("emitted {}", events.map(record).collect::<Vec<_>>().join(", "))
        }
        word => match verdict["reason"].as_str() {
            Some(reason) => format!("{word}: {reason}"),
            None => word.into(),
        },
    }
}

/// Of an event's JSON what differs most: its record. An event that was cut short stays text.
fn record(event: &str) -> String {
    match serde_json::from_str::<Value>(event) {
        Ok(event) => event["data"]["record"].to_string(),
        Err(_) => event.into(),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn line(shown: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(shown, "{text}");
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_is_shown_with_both_sides() {
        let entry = json!({ "version": "0123456789ab", "outcome": "in-force", "error": null,
            "shadow": { "note": null, "pipelines": [
                { "pipeline": "quiet", "events": 0, "differ": 0 },
                { "pipeline": "same", "events": 7, "differ": 0 },
                { "pipeline": "people", "events": 100, "differ": 1,
                  "before": { "emitted": 50, "dropped": 50 },
                  "after": { "emitted": 49, "dropped": 51 },
                  "examples": [ { "event": "0/1/2", "table": "public.people",
                      "before": { "verdict": "emitted",
                                  "events": ["{\"data\":{\"record\":{\"id\":1}}}"] },
                      "after": { "verdict": "rejected", "reason": "too old" } } ] } ] } });
        expect![[r#"
            local: 0123456789ab is in force
              quiet: there are no events yet to compare with
              same: the same for the last 7 events
              people: 1 of the last 100 events become something else
                emitted: 50 before, 49 now
                dropped: 50 before, 51 now
                0/1/2 public.people
                  - emitted {"id":1}
                  + rejected: too old
        "#]]
        .assert_eq(&decision("local", &entry));
    }

    #[test]
    fn a_refused_version_says_why() {
        let entry =
            json!({ "version": "0123456789ab", "error": "not a WebAssembly binary: empty" });
        expect![[r#"
            local: 0123456789ab is refused: not a WebAssembly binary: empty
        "#]]
        .assert_eq(&decision("local", &entry));
    }
}
