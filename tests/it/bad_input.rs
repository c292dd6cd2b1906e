//! What is wrong is said clearly, with what to do about it and the right exit code.

use std::process::Command;

use crate::support::process::Walmill;
use crate::support::{cluster, connect, execute};

const CONFIG: &str = r#"
[source]
url = "DATABASE"
start_timeout = "300ms"
tables = ["public.orders"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[[pipeline]]
name = "orders"
tables = ["public.orders"]
"#;

/// Runs it to its end; checks the exit code, and that it says all of `words`.
fn check(walmill: &Walmill, code: i32, words: &[&str]) {
    let (ended, log) = walmill.run_to_end();
    assert_eq!(ended, code, "{log}");
    for word in words {
        assert!(log.contains(word), "no {word:?} in:\n{log}");
    }
    assert!(!log.contains("s3cret"), "{log}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_an_environment_error() {
    let walmill = Walmill::prepare(CONFIG, "postgres://u:s3cret@127.0.0.1:1/app");
    check(&walmill, 3, &["127.0.0.1:1", "help:"]);
}

#[tokio::test]
async fn a_wrong_password_a_wrong_database_and_a_missing_right_are_told_apart() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE orders (id int PRIMARY KEY)").await;
    execute(&database, "CREATE ROLE plain LOGIN PASSWORD 's3cret'").await;
    let at = format!("127.0.0.1:{}/postgres", cluster.port());
    let cases: [(String, &[&str]); 3] = [
        (format!("postgres://postgres:wrong-s3cret@{at}"), &["password", "help:"]),
        (cluster.database_url("nowhere"), &["nowhere", "help:"]),
        (format!("postgres://plain:s3cret@{at}"), &["REPLICATION", "help:"]),
    ];
    for (url, words) in cases {
        check(&Walmill::prepare(CONFIG, &url), 3, words);
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_is_named() {
    let cluster = cluster();
    check(&Walmill::prepare(CONFIG, &cluster.url()), 3, &["`public.orders`", "help:"]);
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE other (id int PRIMARY KEY)").await;
    let config = CONFIG.replace("tables = [\"public.orders\"]\n\n[store]", "\n[store]");
    check(&Walmill::prepare(&config, &cluster.url()), 3, &["`public.orders`", "pipeline"]);
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_environment_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let config = CONFIG.replace("PORT", &port.to_string());
    let walmill = Walmill::prepare(&config, "postgres://u@127.0.0.1:1/app");
    check(&walmill, 3, &["in use", "server.listen"]);
}

#[tokio::test]
async fn plugins_that_are_no_plugins_are_named_with_their_files() {
    let core = wat::parse_str("(module (func (export \"add\")))").expect("valid text");
    let cases: [(Option<&[u8]>, &str); 3] =
        [(None, "guest.wasm"), (Some(b"garbage"), "guest.wasm"), (Some(&core), "describe")];
    for (bytes, word) in cases {
        let config =
            format!("{CONFIG}plugins = [\"guest\"]\n[plugins.guest]\npath = \"guest.wasm\"");
        let walmill = Walmill::prepare(&config, "postgres://u@127.0.0.1:1/app");
        if let Some(bytes) = bytes {
            std::fs::write(walmill.folder().join("guest.wasm"), bytes).expect("write");
        }
        check(&walmill, 2, &["guest", word]);
    }
}

#[tokio::test]
async fn an_unknown_key_is_a_usage_error_with_its_line() {
    let config = CONFIG.replace("start_timeout", "start_timout");
    let walmill = Walmill::prepare(&config, "postgres://u@127.0.0.1:1/app");
    check(&walmill, 2, &["walmill.toml:4:1", "start_timeout"]);
}

#[tokio::test]
async fn two_of_them_on_one_data_folder_are_one_too_many() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE orders (id int PRIMARY KEY)").await;
    let patient = CONFIG.replace("300ms", "1m");
    let first = Walmill::start(&patient, &cluster.url()).await;
    let data = first.folder().join("data");
    let config = CONFIG.replace("\"data\"", &format!("{:?}", data.display()));
    check(&Walmill::prepare(&config, &cluster.url()), 3, &["in use", "store.path"]);
}

#[test]
fn init_writes_a_config_that_checks_and_overwrites_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_walmill"))
            .args(arguments)
            .current_dir(folder.path())
            .env("DATABASE_URL", "postgres://walmill:s3cret@localhost/app")
            .output()
            .expect("run walmill")
    };
    let made = run(&["init"]);
    assert!(made.status.success(), "{made:?}");
    let example = std::fs::read_to_string(folder.path().join(".env.example")).expect("a file");
    assert!(example.contains("localhost/app") && !example.contains("s3cret"), "{example}");
    assert!(run(&["check"]).status.success(), "{:?}", run(&["check"]));
    let again = run(&["init"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    std::fs::write(folder.path().join("walmill.toml"), "[sauce]").expect("write");
    let json = run(&["check", "--json"]);
    assert_eq!(json.status.code(), Some(2), "{json:?}");
    let findings: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(findings[0]["code"], "unknown-key");
}
