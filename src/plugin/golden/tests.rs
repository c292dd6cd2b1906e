use expect_test::expect;

use super::super::guests::{Guest, PASS, config};
use super::*;

const CASES: &str = r#"
# What happens to people.
[relation]
table = "public.people"
columns = ["id int8 key", "name text"]

[[case]]
name = "everyone passes" # for now
change = [
    { insert = { id = 1, name = "Ada" }, out = "drop" }, # not her
    { update = { id = 1 }, out = "pass", to = "elsewhere" },
]

[[case]]
name = "a truncate"
mode = "pass"
needs = ["id"]

[[case.change]]
truncate = true
out = { id = 1 }
"#;

fn run(text: &str, format: Format, guest: Guest) -> Vec<CaseReport> {
    let plugin = guest.load(config());
    File::parse(text, format).unwrap().run(|_| Ok(plugin.clone()))
}

fn shown(reports: &[CaseReport]) -> String {
    reports.iter().map(|report| format!("{}\n{report}", report.name)).collect()
}

#[test]
fn what_is_otherwise_is_told_with_both_sides() {
    let expected = expect![[r#"
        everyone passes
            change 1: insert { id = 1, name = "Ada" }
              - out = "drop"
              + out = "pass"
            change 2: update { id = 1 }
              - to = "elsewhere"
        a truncate
            mode
              - mode = "pass"
              + mode = "call"
            needs
              - needs = ["id"]
              + needs = []
            change 1: truncate
              - out = { id = 1 }
              + out = "pass"
    "#]];
    expected.assert_eq(&shown(&run(CASES, Format::Toml, PASS)));
}

#[test]
fn an_update_leaves_the_rest_of_the_file_as_it_is() {
    let updated = updated(CASES, Format::Toml, &run(CASES, Format::Toml, PASS)).unwrap();
    let expected = expect![[r#"

        # What happens to people.
        [relation]
        table = "public.people"
        columns = ["id int8 key", "name text"]

        [[case]]
        name = "everyone passes" # for now
        change = [
            { insert = { id = 1, name = "Ada" }, out = "pass" }, # not her
            { update = { id = 1 }, out = "pass" },
        ]

        [[case]]
        name = "a truncate"
        mode = "call"
        needs = []

        [[case.change]]
        truncate = true
        out = "pass"
    "#]];
    expected.assert_eq(&updated);
    assert!(run(&updated, Format::Toml, PASS).iter().all(CaseReport::passes));
}

#[test]
fn json_says_the_same_and_is_written_for_people() {
    let json = r#"{ "relation": { "table": "public.people", "columns": ["id int8 key", "at date"] },
        "case": [ { "name": "nulls", "change": [
            { "insert": { "id": 9007199254740993, "at": null }, "out": "drop" },
            { "insert": { "id": 1, "at": "2026-11-24" }, "out": "pass" } ] } ] }"#;
    let reports = run(json, Format::Json, PASS);
    expect![[r#"
        nulls
            change 1: insert { id = 9007199254740993, at = "<null>" }
              - out = "drop"
              + out = "pass"
    "#]]
    .assert_eq(&shown(&reports));
    expect![[r#"
        {
          "relation": { "table": "public.people", "columns": ["id int8 key", "at date"] },
          "case": [
            {
              "name": "nulls",
              "change": [
                { "insert": { "id": 9007199254740993, "at": null }, "out": "pass" },
                { "insert": { "id": 1, "at": "2026-11-24" }, "out": "pass" }
              ]
            }
          ]
        }
    "#]]
    .assert_eq(&updated(json, Format::Json, &reports).unwrap());
}

/// What is said about one change to a table of two columns.
fn told(change: &str, expected: &str) {
    let text = format!(
        "relation = {{ table = 'public.people', columns = ['id int8 key', 'at timestamp'] }}\n\
         [[case]]\nname = 'one'\nchange = [{change}]\n"
    );
    // A plan that asks for nothing looks at no value, but names are looked at.
    let report = File::parse(&text, Format::Toml)
        .map(|file| file.run(|_| Ok(PASS.load(config()))).remove(0).to_string());
    assert_eq!(report.unwrap_or_else(|error| error).trim(), expected);
}

#[test]
fn a_change_that_is_none_is_told_with_its_number() {
    let out = "out = 'pass'";
    told(
        &format!("{{ insert = {{ idd = 1 }}, {out} }}"),
        "change 1: the table has no column `idd`",
    );
    let kinds = "change 1: needs one of insert, update, delete, snapshot, truncate, message";
    told(&format!("{{ {out} }}"), kinds);
    told(&format!("{{ truncate = true, delete = {{ id = 1 }}, {out} }}"), kinds);
}

#[test]
fn a_plugin_that_traps_fails_the_case_and_nothing_is_rewritten() {
    let reports = run(CASES, Format::Toml, Guest { process: "(unreachable)", ..PASS });
    assert!(reports[0].to_string().contains("`process` failed: wasm trap"), "{}", reports[0]);
    let error = updated(CASES, Format::Toml, &reports).unwrap_err().to_string();
    assert!(error.starts_with("case `everyone passes` can't be rewritten"), "{error}");
}
