//! What a plugin's author types, with the program that they type it to: from nothing to a changed
//! event in the stream.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::{PATIENCE, Walmill, built_plugins};
use crate::support::{cluster, connect, execute, folder, until};

/// A folder to type commands in, with a language's compiler on the PATH.
struct Desk {
    folder: TempDir,
    language: &'static str,
}

/// What a command came to.
struct Typed {
    code: i32,
    out: String,
    err: String,
}

impl Desk {
    /// None, and a word on stderr, where the language is not to be had.
    fn with(language: &'static str) -> Option<Self> {
        let desk = Self { folder: folder(), language };
        let output = desk.shell("true", "");
        if output.status.success() {
            return Some(desk);
        }
        eprintln!("skipped: {language}: {}", String::from_utf8_lossy(&output.stderr));
        None
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// A line to be run in the folder. What is meant for walmill's own build is not meant for it.
    fn line(&self, line: &str) -> Command {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/toolchains");
        let tools = tools.join(self.language);
        let script = format!("set -e; v=$({}); eval \"$v\"; {line}", tools.display());
        let mut command = Command::new("bash");
        command.args(["-c", &script]).current_dir(self.folder.path());
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
            command.env_remove(variable);
        }
        command.env_remove("CARGO_TARGET_DIR");
        command
    }

    /// Runs a line to its end.
    fn shell(&self, line: &str, input: &str) -> Output {
        let mut command = self.line(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a shell");
        let mut stdin = child.stdin.take().expect("its input");
        // A command that doesn't read may have ended already.
        let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("it ends")
    }

    /// `walmill …`
    fn walmill(&self, line: &str, input: &str) -> Typed {
        let line = format!("{} {line}", env!("CARGO_BIN_EXE_walmill"));
        let output = self.shell(&line, input);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Typed { code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The same, which must go well.
    fn fine(&self, line: &str) -> String {
        let Typed { code, out, err } = self.walmill(line, "");
        assert_eq!(code, 0, "walmill {line}\n{out}{err}");
        out
    }
}

const CONFIG: &str = r#"
[source]
url = "DATABASE"
slot = "walmill"
publication = "walmill"
tables = ["public.people"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[plugins.local]
path = "OUTPUT"
config = { country = "NZ" }

[[pipeline]]
name = "people"
tables = ["public.people"]
plugins = ["local"]
"#;

/// From `plugin new` to a changed event in the stream, by four commands.
async fn from_new_to_the_stream(language: &'static str, output: &str) {
    let Some(desk) = Desk::with(language) else { return };
    desk.fine(&format!("plugin new -l {language} local"));
    desk.fine("plugin build local");
    let tested = desk.fine("plugin test local");
    assert!(tested.contains("all as expected"), "{tested}");

    let cluster = cluster();
    let client = connect(&cluster).await;
    let table = "create table people (id bigint primary key, name text, country text);
                 create publication walmill for table people";
    execute(&client, table).await;
    let output = desk.path("local").join(output);
    let config = CONFIG.replace("OUTPUT", output.to_str().expect("a UTF-8 path"));
    let mut walmill = Walmill::start(&config, &cluster.url()).await;
    let rows = "insert into people values (1, 'Ada', 'NZ'), (2, 'Bob', 'DE'), (3, 'Cy', 'NZ')";
    execute(&client, rows).await;
    let page = async {
        loop {
            let page = walmill.json("/v1/streams/people/events?wait=10s").await;
            if page["events"].as_array().is_some_and(|events| !events.is_empty()) {
                return page;
            }
        }
    };
    let page = tokio::time::timeout(PATIENCE, page).await.expect("events");
    let id = |event: &Value| event["data"]["record"]["id"].as_i64().expect("an id");
    let ids: Vec<i64> = page["events"].as_array().expect("events").iter().map(id).collect();
    assert_eq!(ids, [1, 3]);
    assert!(walmill.terminate().success(), "{}", walmill.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn four_commands_lead_from_nothing_to_a_changed_event_in_rust() {
    let output = "target/wasm32-unknown-unknown/release/local.wasm";
    from_new_to_the_stream("rust", output).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_commands_lead_from_nothing_to_a_changed_event_in_javascript() {
    from_new_to_the_stream("javascript", "build/plugin.wasm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_commands_lead_from_nothing_to_a_changed_event_in_python() {
    from_new_to_the_stream("python", "build/plugin.wasm").await;
}

/// A project as `plugin new` writes it builds, and answers its own golden cases.
fn a_new_project_builds_and_passes(language: &'static str) {
    let Some(desk) = Desk::with(language) else { return };
    desk.fine(&format!("plugin new -l {language} local"));
    desk.fine("plugin build local");
    let tested = desk.fine("plugin test local");
    assert!(tested.contains("all as expected"), "{tested}");
}

/// The languages whose way into the stream is not walked above.
macro_rules! templates {
    ($($test:ident($language:literal);)+) => {
        $(#[test]
        fn $test() {
            a_new_project_builds_and_passes($language);
        })+
    };
}

templates! {
    a_new_project_in_assemblyscript_builds_and_passes("assemblyscript");
    a_new_project_in_c_builds_and_passes("c");
    a_new_project_in_cpp_builds_and_passes("cpp");
    a_new_project_in_go_builds_and_passes("go");
    a_new_project_in_typescript_builds_and_passes("typescript");
    a_new_project_in_zig_builds_and_passes("zig");
}

/// `walmill dev`, ended with the test.
struct Dev {
    child: Child,
    out: PathBuf,
}

impl Dev {
    fn start(desk: &Desk, config: &Path) -> Self {
        let out = desk.path("out");
        let line = format!(
            "exec {} dev --config {} >{} 2>&1",
            env!("CARGO_BIN_EXE_walmill"),
            config.display(),
            out.display()
        );
        let child = desk.line(&line).stdin(Stdio::null()).spawn().expect("walmill dev");
        Self { child, out }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    async fn says(&self, what: &str) {
        until(what, || self.said().contains(what)).await;
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("walmill dev:\n{}", self.said());
        }
    }
}

/// The project's dependencies are compiled once for all runs of the test.
fn share_what_is_compiled(desk: &Desk) {
    let shared = built_plugins().join("author");
    let (shared, made) = (shared.display(), "wasm32-unknown-unknown/release");
    let about = desk.path("local/plugin.toml");
    let text = fs::read_to_string(&about).expect("plugin.toml");
    let copied = format!(
        "--target-dir {shared} && mkdir -p target/{made} && \
         cp {shared}/{made}/local.wasm target/{made}/\""
    );
    fs::write(&about, text.replace("--target-dir target\"", &copied)).expect("save");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_source_is_built_and_tested_and_only_then_swapped_in() {
    let Some(desk) = Desk::with("rust") else { return };
    desk.fine("plugin new -l rust local");
    share_what_is_compiled(&desk);
    desk.fine("plugin build local");
    let cluster = cluster();
    let client = connect(&cluster).await;
    let table = "create table people (id bigint primary key, name text, country text);
                 create publication walmill for table people";
    execute(&client, table).await;
    let output = desk.path("local/target/wasm32-unknown-unknown/release/local.wasm");
    let config = CONFIG.replace("OUTPUT", output.to_str().expect("a UTF-8 path"));
    let walmill = Walmill::prepare(&config, &cluster.url());
    let dev = Dev::start(&desk, &walmill.folder().join("walmill.toml"));
    dev.says("walmill runs at http://").await;
    dev.says("streaming slot=walmill").await;
    execute(&client, "insert into people values (1, 'Ada', 'NZ'), (2, 'Bob', 'DE')").await;
    dev.says(r#"people  insert public.people {"id":1,"name":"Ada","country":"NZ"}"#).await;
    assert!(!dev.said().contains("Bob"), "{}", dev.said());

    let source = desk.path("local/src/lib.rs");
    let text = fs::read_to_string(&source).expect("the source");
    fs::write(&source, text.replace(r#"text("country") =="#, r#"text("country") !="#))
        .expect("save");
    dev.says("of 3 cases fail; the version in force stays").await;
    execute(&client, "insert into people values (3, 'Cy', 'NZ')").await;
    dev.says(r#"{"id":3,"name":"Cy","country":"NZ"}"#).await;

    desk.fine("plugin test local --update");
    dev.says("is in force").await;
    execute(&client, "insert into people values (4, 'Di', 'NZ'), (5, 'Ed', 'DE')").await;
    dev.says(r#"{"id":5,"name":"Ed","country":"DE"}"#).await;
    assert!(!dev.said().contains("\"id\":4"), "{}", dev.said());
}

/// A project around a plugin that was built before: nothing has to be compiled.
fn project(desk: &Desk, plugin: &str, cases: &str) {
    let wasm = built_plugins().join(format!("{plugin}.wasm"));
    fs::create_dir(desk.path("it")).expect("a folder");
    fs::copy(wasm, desk.path("it/it.wasm")).expect("a plugin");
    let about = "[plugin]\nname = 'it'\noutput = 'it.wasm'\ntests = '*.cases.toml'\n";
    fs::write(desk.path("it/plugin.toml"), about).expect("write");
    fs::write(desk.path("it/one.cases.toml"), cases).expect("write");
}

const CASES: &str = r#"
[relation]
table = "public.people"
columns = ["id int8 key", "country text"]

[[case]]
name = "New Zealand" # kept
config = { where = "country == 'NZ'" }
change = [
    { insert = { id = 1, country = "NZ" }, out = "drop" },
    { insert = { id = 2, country = "DE" }, out = "drop" },
]
"#;

#[test]
fn a_case_that_fails_shows_both_sides_and_an_update_writes_down_what_came() {
    let desk = Desk::with("rust").expect("Rust");
    project(&desk, "filter", CASES);
    let Typed { code, out, err } = desk.walmill("plugin test it", "");
    assert_eq!(code, 1, "{out}{err}");
    let shown = "  FAIL  New Zealand\n    change 1: insert { id = 1, country = \"NZ\" }\n      \
                 - out = \"drop\"\n      + out = \"pass\"\n";
    assert!(out.contains(shown), "{out}");
    assert!(err.contains("1 of 1 cases are not as expected"), "{err}");
    desk.fine("plugin test it --update");
    let updated = fs::read_to_string(desk.path("it/one.cases.toml")).expect("the cases");
    let expected = CASES.replacen("out = \"drop\"", "out = \"pass\"", 1);
    assert_eq!(updated, expected);
    assert!(desk.fine("plugin test it").contains("1 cases, all as expected"));
}

#[test]
fn a_call_answers_for_one_event_in_either_form() {
    let desk = Desk::with("rust").expect("Rust");
    project(&desk, "filter", CASES);
    let call = |event: &str| desk.walmill("plugin call it --json", event);
    for (event, verdict) in [
        (r#"{ "insert": { "id": 1, "country": "NZ" } }"#, "pass"),
        (r#"{ "insert": { "id": 1, "country": null } }"#, "drop"),
        (
            r#"{ "data": { "schema": "public", "table": "people", "op": "update", "key": { "id": 1 },
                 "record": { "id": 1, "country": "DE" }, "old_record": null, "unchanged": [] } }"#,
            "drop",
        ),
    ] {
        let Typed { code, out, err } = call(event);
        assert_eq!(code, 0, "{out}{err}");
        let answer: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(answer["verdict"], verdict, "{event}");
    }
    let Typed { code, err, .. } = call(r#"{ "insert": { "id": "one" } }"#);
    assert_eq!(code, 0, "the filter doesn't look at the id: {err}");
    let Typed { code, err, .. } = call(r#"{ "insert": { "country": 7 } }"#);
    assert_eq!(code, 1);
    assert!(err.contains("change 1: `country`: 7 is no text"), "{err}");
    let Typed { code, err, .. } = call("nonsense");
    assert_eq!(code, 2, "{err}");
}

#[test]
fn inspect_says_what_a_plugin_is_and_what_it_must_be_granted() {
    let desk = Desk::with("rust").expect("Rust");
    project(&desk, "count", CASES);
    let told: Value = serde_json::from_str(&desk.fine("plugin inspect it --json")).expect("JSON");
    assert_eq!(told["form"], "core module");
    assert_eq!(told["language"], "Rust");
    assert_eq!(told["needs"], serde_json::json!(["allow.kv = true"]));
    assert!(told["world"].as_str().is_some_and(|world| world.starts_with("plugin ")), "{told}");
    let size = fs::metadata(desk.path("it/it.wasm")).expect("the plugin").len();
    assert_eq!(told["size"], size);
    fs::write(desk.path("it/it.wasm"), "nothing").expect("write");
    let Typed { code, err, .. } = desk.walmill("plugin inspect it", "");
    assert_eq!(code, 1);
    assert!(err.contains("not a WebAssembly binary"), "{err}");
}

#[test]
fn a_bench_says_what_it_measured() {
    let desk = Desk::with("rust").expect("Rust");
    project(&desk, "filter", CASES);
    let told: Value = serde_json::from_str(&desk.fine("plugin bench it --json")).expect("JSON");
    let figures = told["figures"].as_array().expect("figures");
    let batches: Vec<u64> = figures.iter().filter_map(|row| row["batch"].as_u64()).collect();
    assert_eq!(batches, [1, 16, 256, 4096]);
    assert!(figures.iter().all(|row| row["ns_per_event"].as_f64().is_some_and(|ns| ns > 0.0)));
    assert_eq!(told["table"]["columns"].as_array().map(Vec::len), Some(10));
    let size = fs::metadata(desk.path("it/it.wasm")).expect("the plugin").len();
    assert_eq!(told["size"], size);
    for load in ["compiled_ms", "cached_ms"] {
        assert!(told["load"][load].as_f64().is_some_and(|ms| ms > 0.0), "{told}");
    }
}

#[test]
fn a_build_says_which_tool_is_missing_and_where_it_is_to_be_had() {
    let desk = Desk::with("rust").expect("Rust");
    project(&desk, "filter", CASES);
    let about = "[plugin]\nname = 'it'\noutput = 'it.wasm'\n[[plugin.needs]]\n\
                 command = 'no-such-compiler'\nhint = 'No such compiler: https://example.com'\n";
    fs::write(desk.path("it/plugin.toml"), about).expect("write");
    let Typed { code, err, .. } = desk.walmill("plugin build it", "");
    assert_eq!(code, 3);
    assert!(err.contains("`no-such-compiler` is not on the PATH"), "{err}");
    assert!(err.contains("https://example.com"), "{err}");
}

#[test]
fn nothing_is_written_over_a_folder_that_has_something_in_it() {
    let desk = Desk::with("rust").expect("Rust");
    project(&desk, "filter", CASES);
    let Typed { code, err, .. } = desk.walmill("plugin new -l rust it", "");
    assert_eq!(code, 2);
    assert!(err.contains("is there already"), "{err}");
}
