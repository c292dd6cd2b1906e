//! `walmill doctor` at databases that something is wrong with: it finds it, and what it suggests
//! mends it.

mod faults;
mod others;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;
use walmill::cluster::{Cluster, Options};

use crate::support::{connect, execute};

/// The role walmill is meant to have.
const ROLE: &str = "create role walmill login replication password 's3cret';
    create table a (id int primary key, note text);
    create table b (id int primary key, note text);
    grant select on a, b to walmill;
    create publication walmill for table a, b with (publish_via_partition_root = true)";
const SLOT: &str = "select pg_create_logical_replication_slot('walmill', 'pgoutput')";

const CONFIG: &str = r#"
[source]
url = "DATABASE"
create_slot = false
create_publication = false

[store]
path = "data"
min_free = "1MiB"
retention = { size = "1MiB" }

[[pipeline]]
name = "all"
tables = ["public.*"]
"#;

/// A database and a config for it.
struct Patient {
    cluster: Cluster,
    client: Client,
    folder: TempDir,
    config: String,
}

impl Patient {
    /// One with nothing wrong.
    async fn healthy() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let options = Options {
            settings: [vec![("max_slot_wal_keep_size".into(), "10GB".into())], options.settings]
                .concat(),
            ..options
        };
        let cluster = Cluster::start(&options).expect("a throw-away PostgreSQL");
        let client = connect(&cluster).await;
        execute(&client, ROLE).await;
        // Not in a transaction that has written.
        execute(&client, SLOT).await;
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("postgres://walmill:s3cret@127.0.0.1:{}/postgres", cluster.port());
        let config = CONFIG.replace("DATABASE", &url);
        Self { cluster, client, folder, config }
    }

    /// The server's.
    async fn version(&self) -> i32 {
        let version = "select current_setting('server_version_num')::int / 10000";
        self.client.query_one(version, &[]).await.expect(version).get(0)
    }

    fn doctor(&self, arguments: &[&str]) -> Output {
        doctor(self.folder.path(), &self.config, arguments)
    }

    /// What it finds.
    fn findings(&self) -> Vec<Value> {
        findings(&self.doctor(&["--json"]))
    }

    fn codes(&self) -> Vec<String> {
        self.findings().iter().map(|finding| text(finding, "code")).collect()
    }

    /// The finding of this code.
    #[track_caller]
    fn finding(&self, code: &str) -> Value {
        let findings = self.findings();
        let found = findings.iter().find(|finding| finding["code"] == code);
        found.unwrap_or_else(|| panic!("no {code} in {findings:#?}")).clone()
    }

    /// Runs SQL; what changes the configuration is in force when this returns.
    async fn run(&self, sql: &str) {
        let loaded = "select pg_conf_load_time()::text";
        let ask =
            async || -> String { self.client.query_one(loaded, &[]).await.expect(loaded).get(0) };
        let before = ask().await;
        for statement in sql.lines().filter_map(|line| line.split("--").next()) {
            if statement.contains("ALTER SYSTEM") || statement.contains("pg_reload_conf") {
                // Not in one transaction with others.
                for single in statement.split(';') {
                    execute(&self.client, single).await;
                }
            } else {
                execute(&self.client, statement).await;
            }
        }
        while sql.contains("pg_reload_conf") && ask().await == before {
            tokio::task::yield_now().await;
        }
    }
}

fn doctor(folder: &Path, config: &str, arguments: &[&str]) -> Output {
    let file = folder.join("walmill.toml");
    std::fs::write(&file, config).expect("write the config");
    let output = Command::new(env!("CARGO_BIN_EXE_walmill"))
        .arg("doctor")
        .arg("--config")
        .arg(file)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("run walmill");
    for said in [&output.stdout, &output.stderr] {
        assert!(!String::from_utf8_lossy(said).contains("s3cret"), "{output:?}");
    }
    output
}

fn findings(output: &Output) -> Vec<Value> {
    let findings = serde_json::from_slice::<Vec<Value>>(&output.stdout);
    findings.unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn text(finding: &Value, field: &str) -> String {
    finding[field].as_str().unwrap_or_else(|| panic!("{field} of {finding}")).to_owned()
}

#[tokio::test]
async fn nothing_is_found_where_nothing_is_wrong_and_the_role_may_little() {
    let patient = Patient::healthy().await;
    assert_eq!(patient.findings(), Vec::<Value>::new());
    let output = patient.doctor(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("ready to stream"), "{output:?}");
    // It looks and leaves no trace.
    assert!(!patient.folder.path().join("data").exists());
}

#[tokio::test]
async fn a_finding_has_its_five_fields_and_the_exit_code_says_how_bad_it_is() {
    let patient = Patient::healthy().await;
    patient.run("alter publication walmill set (publish = 'insert')").await;
    let output = patient.doctor(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "a warning: {output:?}");
    let finding = &findings(&output)[0];
    let fields: Vec<&String> = finding.as_object().expect("an object").keys().collect();
    assert_eq!(fields.len(), 5, "{finding}");
    assert_eq!(finding["severity"], "warning");
    assert_eq!(finding["path"], "publication.walmill");
    patient.run("alter publication walmill drop table a").await;
    let output = patient.doctor(&[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("error[publication-tables]"), "{said}");
    assert!(
        said.contains("ALTER PUBLICATION \"walmill\" ADD TABLE ONLY \"public\".\"a\""),
        "{said}"
    );
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_the_environment_s_fault() {
    let mut patient = Patient::healthy().await;
    let port = format!(":{}/", patient.cluster.port());
    patient.config = patient.config.replace(&port, ":1/");
    let output = patient.doctor(&["--json"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(findings(&output)[0]["code"], "unreachable");
}

#[tokio::test]
async fn fix_runs_what_is_safe_and_only_when_it_is_told_to() {
    let mut patient = Patient::healthy().await;
    patient
        .run("alter publication walmill drop table a; alter table b replica identity nothing")
        .await;
    let output = patient.doctor(&["--fix"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--yes"), "{output:?}");
    assert_eq!(patient.codes(), ["publication-tables", "identity-nothing"]);

    // The role may do nothing of it, and it says so.
    let output = patient.doctor(&["--fix", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("failed: ALTER PUBLICATION") && said.contains("owner"), "{said}");

    patient.run("alter system set max_slot_wal_keep_size = -1").await;
    patient.run("select pg_reload_conf()").await;
    let config = patient.config.clone();
    patient.config = CONFIG.replace("DATABASE", &patient.cluster.url());
    let output = patient.doctor(&["--fix", "--yes", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for ran in
        ["ALTER PUBLICATION \"walmill\" ADD", "ALTER TABLE", "ALTER SYSTEM", "pg_reload_conf"]
    {
        assert!(said.contains(&format!("ran: {ran}")) || said.contains(ran), "no {ran} in {said}");
    }
    assert_eq!(findings(&output).len(), 1, "only that it is a superuser: {output:?}");
    patient.config = config;
    assert_eq!(patient.codes(), Vec::<String>::new());
}

#[tokio::test]
async fn on_a_terminal_fix_asks_first() {
    let mut patient = Patient::healthy().await;
    patient.config = CONFIG.replace("DATABASE", &patient.cluster.url());
    patient.run("alter table a replica identity nothing").await;
    let _written = patient.doctor(&[]);
    let answer = |answer: &str| {
        let program = env!("CARGO_BIN_EXE_walmill");
        let config = patient.folder.path().join("walmill.toml");
        let line = format!("{program} doctor --fix --config {}", config.display());
        // A terminal of its own.
        let mut terminal = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .ok()?;
        std::io::Write::write_all(&mut terminal.stdin.take()?, answer.as_bytes()).ok()?;
        let output = terminal.wait_with_output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(said) = answer("n\n") else {
        eprintln!("skipped: there is no program `script` here");
        return;
    };
    assert!(said.contains("REPLICA IDENTITY FULL") && said.contains("[y/N]"), "{said}");
    assert!(!said.contains("ran:"), "{said}");
    assert_eq!(patient.codes(), ["role-superuser", "identity-nothing"]);
    let said = answer("y\n").expect("once more");
    assert!(said.contains("ran: ALTER TABLE"), "{said}");
    assert_eq!(patient.codes(), ["role-superuser"]);
}

#[test]
fn every_code_is_in_the_docs_and_no_other() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/doctor.md");
    let docs = std::fs::read_to_string(docs).expect("docs/doctor.md");
    let mut listed: Vec<&str> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(code, _)| code))
        .collect();
    let mut known = walmill::source::doctor::codes().to_vec();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
}
