//! What a person is told about a config.

use expect_test::{Expect, expect};

use super::Config;
use super::document::Document;
use super::finding::Finding;

const GOOD: &str = r#"
[source]
url = "${DATABASE_URL}"
tables = ["public.*"]

[plugins.redact]
path = "redact.wasm"

[[pipeline]]
name = "orders"
tables = ["public.orders"]
plugins = ["redact"]
streams = ["orders.*"]
"#;

fn parse(text: &str, set: &[&str]) -> Result<(Config, Vec<Finding>), Vec<Finding>> {
    let document = Document::of(text, "walmill.toml");
    let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
    let lookup = |name: &str| {
        (name == "DATABASE_URL").then(|| "postgres://walmill:secret@localhost/app".to_owned())
    };
    Config::parse(&document, &set, &lookup).map(|loaded| (loaded.config, loaded.warnings))
}

/// The findings about `text`, put under a config that is fine.
fn check(text: &str, expected: &Expect) {
    let findings = match parse(&format!("{GOOD}{text}"), &[]) {
        Ok((_, warnings)) => warnings,
        Err(findings) => findings,
    };
    let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
    expected.assert_eq(&text.join("\n"));
}

#[test]
fn a_good_config_has_no_findings() {
    check("", &expect![[""]]);
}

#[test]
fn an_unknown_key_has_its_place_and_what_was_meant() {
    check(
        "[store]\nretenton = { age = '1d' }",
        &expect![[r#"
        error[unknown-key]: unknown key `retenton`
          at walmill.toml:15:1 store.retenton
          help: did you mean `retention`?"#]],
    );
    check(
        "[serv]\nlisten = '127.0.0.1:1'",
        &expect![[r#"
        error[unknown-key]: unknown key `serv`
          at walmill.toml:14:2 serv
          help: did you mean `server`?"#]],
    );
}

#[test]
fn a_value_of_the_wrong_kind_says_what_belongs_there() {
    check(
        "[server]\nlisten = 4000",
        &expect![[r#"
        error[invalid-value]: invalid type: integer `4000`, expected socket address
          at walmill.toml:15:10 server.listen"#]],
    );
    check(
        "[server]\nlisten = '127.0.0.1:65536'",
        &expect![[r#"
        error[invalid-value]: invalid socket address syntax
          at walmill.toml:15:10 server.listen"#]],
    );
    check(
        "[store]\nretention = { age = '-1d' }",
        &expect![[r#"
        error[invalid-value]: `-1d` is no span of time: write a whole number and a unit (ms, s, m, h, d), as in `30s`, `7d` or `1h30m`
          at walmill.toml:15:21 store.retention.age"#]],
    );
    check(
        "[[pipeline]]\nname = 'x'\ntables = ['orders']",
        &expect![[r#"
        error[invalid-value]: `orders` is no table: write `schema.table`, as in `public.orders` or `public.*`
          at walmill.toml:16:10 pipeline[1].tables[0]"#]],
    );
}

#[test]
fn broken_toml_has_its_place() {
    check(
        "[server\n",
        &expect![[r#"
        error[syntax]: unclosed table, expected `]`
          at walmill.toml:14:8"#]],
    );
    check(
        "[source]\nurl = 'x'",
        &expect![[r#"
        error[syntax]: duplicate key
          at walmill.toml:14:2"#]],
    );
}

#[test]
fn every_missing_variable_is_named_at_once() {
    check(
        "[[output.webhook]]\nname = 'a'\nstreams = ['orders']\nurl = '${HOOK}'\n\
         secret = '${KEY:?ask the billing team}'",
        &expect![[r#"
            error[missing-variable]: the variable `HOOK` is not set
              at walmill.toml:17:7
              help: set `HOOK` in the environment, or give a default: `${HOOK:-…}`
            error[missing-variable]: the variable `KEY` is not set: ask the billing team
              at walmill.toml:18:10
              help: set `KEY` in the environment, or give a default: `${KEY:-…}`"#]],
    );
}

#[test]
fn a_plugin_that_makes_requests_is_said_to_differ_in_a_replay() {
    let set = ["plugins.redact.allow.http=[\"https://api.example.com\"]"];
    let (_, warnings) = parse(GOOD, &set).expect("a config that is fine");
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.to_string().contains("plugin `redact` may make requests"), "{warning}");
    let error = parse(GOOD, &["plugins.redact.allow.http=[\"example.com\"]"]).unwrap_err();
    assert!(error[0].to_string().contains("no origin"), "{error:?}");
}

#[test]
fn a_plugin_that_keeps_state_stands_in_one_place() {
    let other = "[[pipeline]]\nname = 'b'\ntables = ['public.b']\nplugins = ['redact']";
    let text = format!("{GOOD}{other}");
    assert!(parse(&text, &[]).is_ok(), "without state it may stand anywhere");
    let findings = parse(&text, &["plugins.redact.allow.kv=true"]).unwrap_err();
    let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
    expect![[r#"
        error[shared-state]: plugin `redact` keeps state (`allow.kv`), so it can stand in one place only, and it stands in another already
          at walmill.toml:17:12 pipeline[1].plugins[0]
          help: add a second section, `[plugins.redact-2]` with the same `path`, and name that here: its state is its own"#]].assert_eq(&text.join("\n"));
    let twice = GOOD.replace("[\"redact\"]", "[\"redact\", \"redact\"]");
    let findings = parse(&twice, &["plugins.redact.allow.kv=true"]).unwrap_err();
    assert!(findings[0].path.ends_with("pipeline[0].plugins[1]"), "{}", findings[0]);
}

#[test]
fn names_that_nobody_has_are_found() {
    check(
        "[[pipeline]]\nname = 'b'\ntables = ['public.b']\nplugins = ['redcat']",
        &expect![[r#"
        error[unknown-plugin]: no plugin `redcat`
          at walmill.toml:17:12 pipeline[1].plugins[0]
          help: did you mean `redact`?"#]],
    );
    check(
        "[[pipeline]]\nname = 'b'\ntables = ['private.b']",
        &expect![[r#"
        error[unknown-table]: the source does not publish `private.b`
          at walmill.toml:16:11 pipeline[1].tables[0]
          help: add "private.b" to `source.tables`"#]],
    );
    check(
        "[[pipeline]]\nname = 'orders'\ntables = ['public.b']",
        &expect![[r#"
        error[duplicate-name]: there are two pipelines `orders`
          at walmill.toml:15:8 pipeline[1].name
          help: rename one of them"#]],
    );
    check(
        "[[pipeline]]\nname = 'b'",
        &expect![[r#"
        error[empty-pipeline]: pipeline `b` takes no table and no message
          at walmill.toml:14:1 pipeline[1]
          help: add `tables = ["public.*"]`"#]],
    );
    check(
        "[plugins.other]\npath = 'x.wasm'",
        &expect![[r#"
        warning[unused-plugin]: no pipeline runs the plugin `other`
          at walmill.toml:14:1 plugins.other
          help: add it to a pipeline's `plugins`, or remove its section"#]],
    );
    check(
        "[[output.webhook]]\nname = 'a'\nstreams = ['order']\nurl = 'https://x.example'\n\
         unsigned = true",
        &expect![[r#"
            error[unknown-stream]: no pipeline makes a stream `order`
              at walmill.toml:16:12 output.webhook[0].streams[0]
              help: did you mean `orders`?"#]],
    );
}

#[test]
fn a_route_over_a_pattern_may_feed_an_output() {
    check(
        "[[output.webhook]]\nname = 'a'\nstreams = ['orders.nz']\nurl = 'https://x.example'\n\
         unsigned = true",
        &expect![[""]],
    );
}

#[test]
fn set_goes_over_the_file() {
    let (config, _) = parse(GOOD, &["server.listen=127.0.0.1:4001", "source.slot=other"]).unwrap();
    assert_eq!(config.server.listen.port(), 4001);
    assert_eq!(config.source.slot.as_str(), "other");
    let findings = parse(GOOD, &["server.lisen=x"]).unwrap_err();
    assert!(findings[0].to_string().contains("listen"), "{findings:?}");
}

#[test]
fn a_password_is_shown_nowhere() {
    let (config, _) = parse(GOOD, &[]).unwrap();
    assert!(!format!("{config:?}").contains("secret"));
    let findings = parse(&GOOD.replace("${DATABASE_URL}", "postgres://u:secret@:x"), &[]);
    assert!(!format!("{findings:?}").contains("secret"), "{findings:?}");
}

#[test]
fn what_is_wrong_with_who_may_has_its_place() {
    check(
        "[[server.auth.rules]]\nstreams = ['orders']\nauthorizer = 'redcat'",
        &expect![[r#"
        error[unknown-plugin]: no plugin `redcat`
          at walmill.toml:16:14 server.auth.rules[0].authorizer
          help: did you mean `redact`?"#]],
    );
    check(
        "[[server.auth.keys]]\nname = 'one'\nhash = 'sha256:short'",
        &expect![[r#"
        error[invalid-value]: this is no hash of an API key: `walmill secret new --for api-key` makes a key and prints `hash = "sha256:…"`
          at walmill.toml:16:8 server.auth.keys[0].hash"#]],
    );
    check(
        "[server.auth]\nkey = []",
        &expect![[r#"
        error[unknown-key]: unknown key `key`
          at walmill.toml:15:1 server.auth.key
          help: did you mean `keys`?"#]],
    );
}
