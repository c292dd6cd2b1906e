//! The demo shows an event, ends when it is told to, and leaves nothing behind.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::process::built_plugins;
use crate::support::{cluster, connect};

/// Runs the demo for a few seconds, with `folder` for everything temporary.
fn demo(folder: &Path, database: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walmill"));
    command.args(["demo", "--seconds", "10", "--rate", "50", "--listen", "127.0.0.1:0"]);
    command.arg("--plugins").arg(built_plugins()).env("TMPDIR", folder).env_remove("DATABASE_URL");
    if let Some(url) = database {
        command.env("DATABASE_URL", url);
    }
    command.output().expect("run the demo")
}

fn shown(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// A folder that the user whom PostgreSQL runs as can enter.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("permissions");
    folder
}

/// What is in a folder, but for the template that the next throw-away server is made from.
fn left_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().display().to_string());
    names.filter(|name| !name.starts_with("walmill-cache")).collect()
}

#[test]
fn the_demo_shows_an_event_and_leaves_nothing_behind() {
    let folder = open_folder();
    let output = demo(folder.path(), None);
    let shown = shown(&output);
    assert!(output.status.success(), "{shown}");
    for words in ["curl -N", "psql '", "/console", "The first event:", "\"specversion\":\"1.0\""] {
        assert!(shown.contains(words), "no {words} in {shown}");
    }
    assert_eq!(left_in(folder.path()), [""; 0], "{shown}");
}

#[test]
fn an_interrupt_that_comes_twice_is_one_and_leaves_nothing_behind() {
    let folder = open_folder();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_walmill"))
        .args(["demo", "--rate", "50", "--listen", "127.0.0.1:0", "--plugins"])
        .arg(built_plugins())
        .env("TMPDIR", folder.path())
        .env_remove("DATABASE_URL")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the demo");
    let output = BufReader::new(demo.stdout.take().expect("its output"));
    let mut lines = output.lines().map(|line| line.expect("text"));
    assert!(lines.any(|line| line.contains("The first event:")));
    let pid = Pid::from_child(&demo);
    for _ in 0..2 {
        kill_process(pid, Signal::INT).expect("SIGINT");
    }
    lines.for_each(drop);
    assert!(demo.wait().expect("wait for the demo").success());
    assert_eq!(left_in(folder.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_on_a_users_database_says_what_it_makes_and_drops_it_again() {
    let cluster = cluster();
    let folder = open_folder();
    let output = demo(folder.path(), Some(&cluster.url()));
    let shown = shown(&output);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("It gets the schema `reddit`"), "{shown}");
    assert!(shown.contains("The first event:"), "{shown}");
    let database = connect(&cluster).await;
    let left = "SELECT (SELECT count(*) FROM pg_replication_slots)
        + (SELECT count(*) FROM pg_publication)
        + (SELECT count(*) FROM pg_namespace WHERE nspname = 'reddit')";
    let count: i64 = database.query_one(left, &[]).await.expect("an answer").get(0);
    assert_eq!(count, 0, "{shown}");
    assert_eq!(left_in(folder.path()), [""; 0]);
}
