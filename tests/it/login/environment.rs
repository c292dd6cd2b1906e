//! The program in an environment: what `PG*` variables and files in a home folder say.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use walmill::cluster::{Cluster, Options};

use super::{folder, shown, with_access};
use crate::support::{connect, execute};

/// A source that says nothing of the database.
const CONFIG: &str = "[source]\n[store]\npath = \"data\"\n[[pipeline]]\nname = \"all\"\n\
                      tables = [\"public.*\"]\n";

/// Asks the database what it thinks, in an environment that has nothing but this.
fn doctor(config: &str, home: &std::path::Path, variables: &[(&str, &str)]) -> Output {
    std::fs::write(home.join("walmill.toml"), config).expect("write the config");
    let output = Command::new(env!("CARGO_BIN_EXE_walmill"))
        .args(["doctor", "--config"])
        .arg(home.join("walmill.toml"))
        .env_clear()
        .env("HOME", home)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("run walmill");
    assert!(!said(&output).contains("s3cret"), "{output:?}");
    output
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// It got in, whatever it found there.
#[track_caller]
fn entered(output: &Output) {
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start(&with_access(&["local all r scram-sha-256"]));
    let cluster = cluster.expect("a throw-away PostgreSQL");
    let sql = "create role r superuser login password 's3cret:\\'; create database shop";
    for statement in sql.split("; ") {
        execute(&connect(&cluster).await, statement).await;
    }
    cluster
}

#[tokio::test]
async fn what_the_address_does_not_say_the_environment_says() {
    let (cluster, home) = (cluster().await, folder());
    let port = cluster.port().to_string();
    let password = ("PGPASSWORD", "s3cret:\\");
    let who = [("PGPORT", port.as_str()), ("PGUSER", "r"), password];
    let shop = [&who[..], &[("PGDATABASE", "shop")]].concat();
    entered(&doctor(CONFIG, home.path(), &[&shop[..], &[("PGHOST", "127.0.0.1")]].concat()));
    // As for psql, a database that nobody names is called as the user is.
    let output = doctor(CONFIG, home.path(), &[&who[..], &[("PGHOST", "127.0.0.1")]].concat());
    assert!(said(&output).contains("\"r\" does not exist"), "{output:?}");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let socket = shown(cluster.folder());
    for host in [("PGHOST", socket.as_str()), ("PGHOSTADDR", "127.0.0.1")] {
        entered(&doctor(CONFIG, home.path(), &[&shop[..], &[host]].concat()));
    }

    let url = CONFIG.replace("[source]", "[source]\nurl = \"postgres://r@127.0.0.1/shop\"");
    entered(&doctor(&url, home.path(), &[("PGPORT", &port), password]));
    let tls = [("PGPORT", port.as_str()), password, ("PGSSLMODE", "require")];
    let output = doctor(&url, home.path(), &tls);
    assert!(said(&output).contains("the server has no TLS"), "{output:?}");
    let bound = [("PGPORT", port.as_str()), password, ("PGCHANNELBINDING", "require")];
    let output = doctor(&url, home.path(), &bound);
    assert!(said(&output).contains("does not bind the login"), "{output:?}");
    let standby = [("PGPORT", port.as_str()), password, ("PGTARGETSESSIONATTRS", "standby")];
    let output = doctor(&url, home.path(), &standby);
    assert!(said(&output).contains("a standby is wanted"), "{output:?}");

    let wrong = [("PGPORT", port.as_str()), ("PGPASSWORD", "wrong-s3cret")];
    let output = doctor(&url, home.path(), &wrong);
    assert!(said(&output).contains("check the password of `r` in PGPASSWORD"), "{output:?}");
}

#[tokio::test]
async fn where_nothing_names_a_database_that_is_said() {
    let output = doctor(CONFIG, folder().path(), &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(said(&output).contains("no database is named"), "{output:?}");
    let password = CONFIG.replace("[source]", "[source]\nurl = \"postgres://u:s3cret/x@h/d\"");
    let output = doctor(&password, folder().path(), &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[tokio::test]
async fn a_password_file_at_home_opens_the_door_and_one_that_others_read_does_not() {
    let (cluster, home) = (cluster().await, folder());
    let file = home.path().join(".pgpass");
    let port = cluster.port().to_string();
    let write = |file: &std::path::Path, text: &str, mode| {
        std::fs::write(file, text).expect("write");
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    let socket = shown(cluster.folder());
    let by_socket = [("PGHOST", socket.as_str()), ("PGPORT", port.as_str()), ("PGUSER", "r")];
    let by_name = [("PGHOST", "localhost"), ("PGPORT", port.as_str()), ("PGUSER", "r")];
    let line = format!("localhost:{port}:r:r:s3cret\\:\\\\\n");
    let dbname = [("PGDATABASE", "shop")];
    write(&file, &line.replace(":r:r:", ":shop:r:"), 0o600);
    for variables in [&by_socket, &by_name] {
        entered(&doctor(CONFIG, home.path(), &[&variables[..], &dbname].concat()));
    }
    write(&file, "*:*:*:*:s3cret\\:\\\\", 0o644);
    let output = doctor(CONFIG, home.path(), &[&by_name[..], &dbname].concat());
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(said(&output).contains(&format!("chmod 0600 {}", shown(&file))), "{output:?}");

    let elsewhere = home.path().join("elsewhere");
    write(&elsewhere, "*:*:*:*:s3cret\\:\\\\", 0o600);
    let elsewhere = shown(&elsewhere);
    let named = [&by_name[..], &dbname, &[("PGPASSFILE", elsewhere.as_str())]].concat();
    entered(&doctor(CONFIG, home.path(), &named));
}

#[tokio::test]
async fn a_service_names_the_rest() {
    let (cluster, home) = (cluster().await, folder());
    let service = format!(
        "[shop]\nhost=127.0.0.1\nport={}\ndbname=shop\nuser=r\npassword=s3cret:\\\n",
        cluster.port()
    );
    std::fs::write(home.path().join(".pg_service.conf"), service).expect("write");
    entered(&doctor(CONFIG, home.path(), &[("PGSERVICE", "shop")]));
    let output = doctor(CONFIG, home.path(), &[("PGSERVICE", "shoe")]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(said(&output).contains("service `shoe`"), "{output:?}");
}

#[tokio::test]
async fn run_streams_from_what_the_environment_names_and_shows_no_secret() {
    let cluster = Cluster::start(&Options::default()).expect("a throw-away PostgreSQL");
    execute(&connect(&cluster).await, "create table t (id int primary key)").await;
    execute(&connect(&cluster).await, "create role r superuser login password 's3cret'").await;
    let config = format!("{CONFIG}[server]\nlisten = \"127.0.0.1:PORT\"\n");
    let mut walmill = crate::support::process::Walmill::prepare(&config, "");
    let port = cluster.port().to_string();
    walmill.launch_in(&[
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &port),
        ("PGUSER", "r"),
        ("PGDATABASE", "postgres"),
        ("PGPASSWORD", "s3cret"),
        ("WALMILL_LOG", "trace"),
    ]);
    walmill.ready().await;
    let status = walmill.text("/api/v1/status").await;
    walmill.terminate();
    for text in [status, walmill.log()] {
        assert!(!text.is_empty() && !text.contains("s3cret"), "{text}");
    }
}
