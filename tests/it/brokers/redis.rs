//! Redis Streams: a `redis-server` that is killed, stopped, full, or a replica for a while.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};
use serde_json::json;
use walmill::output::redis::{Config, Redis};

use super::server::{self, Server};
use super::{KEYS, write};
use crate::support::outputs::{Running, Streams, ids};
use crate::support::until;

fn output(streams: &Streams, server: &Server, more: &str) -> Running {
    let url = format!("url = 'redis://127.0.0.1:{}'", server.port);
    output_with(streams, &format!("{url}\n{more}"))
}

fn output_with(streams: &Streams, more: &str) -> Running {
    let config = format!(
        "name = 'billing'\nstreams = ['orders']\nretry = {{ initial = '5ms', max = '50ms' }}\n{more}"
    );
    let config: Config = toml::from_str(&config).expect("a config");
    let output = Redis::new(&config, "shop").expect("an output");
    Running::of(streams, config.delivery.config(), output)
}

async fn client(server: &Server) -> MultiplexedConnection {
    let url = format!("redis://127.0.0.1:{}", server.port);
    let client = redis::Client::open(url).expect("a URL");
    // A server that was started again may still be reading its log.
    loop {
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        match cmd("PING").query_async::<Value>(&mut connection).await {
            Ok(_) => return connection,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

async fn run(connection: &mut MultiplexedConnection, command: &str) -> Value {
    let mut words = command.split(' ');
    let mut asked = cmd(words.next().expect("a command"));
    words.for_each(|word| {
        asked.arg(word);
    });
    asked.query_async(connection).await.unwrap_or_else(|error| panic!("{command}: {error}"))
}

/// The fields of every entry of a Redis stream.
async fn stored(connection: &mut MultiplexedConnection, key: &str) -> Vec<HashMap<String, String>> {
    type Entry = (String, HashMap<String, String>);
    let entries: Vec<Entry> =
        cmd("XRANGE").arg(key).arg("-").arg("+").query_async(connection).await.expect("a stream");
    entries.into_iter().map(|(_, fields)| fields).collect()
}

async fn arrived(connection: &mut MultiplexedConnection) -> Vec<(String, String)> {
    let entries = stored(connection, "walmill:orders").await;
    entries.into_iter().map(|fields| (fields["subject"].clone(), fields["id"].clone())).collect()
}

#[tokio::test]
async fn an_event_is_an_entry_with_its_attributes_where_its_values_lead() {
    let Some(server) = server::redis().map(|server| server.with(&[])) else { return };
    let mut streams = Streams::new();
    let rows = [(KEYS[0], json!({ "region": "nz" })), (KEYS[1], json!({ "region": "a:b\r\n" }))];
    let sent = streams.commit_rows("orders", &rows);
    let output = output(&streams, &server, "key = 'shop:{region}:{table}'");
    until("both are stored", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    let mut connection = client(&server).await;
    let entries = stored(&mut connection, "shop:nz:orders").await;
    assert_eq!((entries.len(), &entries[0]["id"]), (1, &ids(&sent)[0]));
    assert_eq!(entries[0]["specversion"], "1.0");
    assert_eq!(entries[0]["type"], "walmill.row.insert");
    let data: serde_json::Value = serde_json::from_str(&entries[0]["data"]).expect("JSON");
    assert_eq!(data["record"], json!({ "region": "nz" }));
    assert_eq!(stored(&mut connection, "shop:a%3Ab%0D%0A:orders").await.len(), 1);
}

#[tokio::test]
async fn a_stream_is_cut_to_about_its_length_and_formats_have_their_own_fields() {
    let Some(server) = server::redis().map(|server| server.with(&[])) else { return };
    let mut streams = Streams::new();
    for (format, fields) in [("plain", vec!["data"]), ("debezium", vec!["key", "value"])] {
        let more = format!("key = '{format}'\nmaxlen = 200\nformat = '{format}'");
        let output = output(&streams, &server, &more);
        let sent = write(&mut streams, 500);
        until("all is stored", || streams.checkpoint("orders") == sent.last).await;
        output.stop().await;
        let entries = stored(&mut client(&server).await, format).await;
        assert!((200..=400).contains(&entries.len()), "{} entries", entries.len());
        let mut names: Vec<_> = entries[0].keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, fields);
    }
}

#[tokio::test]
async fn a_killed_server_gets_every_event_and_each_key_in_order() {
    let Some(mut server) = server::redis().map(|server| server.with(&[])) else { return };
    let mut streams = Streams::new();
    let output = output(&streams, &server, "timeout = '2s'\nbatch = 16");
    let mut sent = super::Sent::default();
    for _ in 0..3 {
        let before = output.status.borrow().delivered;
        sent.extend(write(&mut streams, 300));
        until("it delivers", || output.status.borrow().delivered > before + 20).await;
        server.kill();
        sent.extend(write(&mut streams, 10));
        output.error().await;
        server.start();
    }
    until("all is stored", || streams.checkpoint("orders") == sent.last).await;
    output.stop().await;
    let arrived = arrived(&mut client(&server).await).await;
    sent.check(&arrived);
    sent.check_newest(&arrived);
}

#[tokio::test]
async fn what_a_stopped_server_had_not_read_does_not_come_behind_what_is_newer() {
    let Some(server) = server::redis().map(|server| server.with(&[])) else { return };
    let mut streams = Streams::new();
    let output = output(&streams, &server, "timeout = '300ms'\nbatch = 8");
    let mut sent = super::Sent::default();
    for _ in 0..5 {
        let failed = output.status.borrow().failed;
        server.signal("STOP");
        sent.extend(write(&mut streams, 100));
        until("it gave up waiting", || output.status.borrow().failed > failed).await;
        server.signal("CONT");
        until("all is stored", || streams.checkpoint("orders") == sent.last).await;
    }
    output.stop().await;
    let arrived = arrived(&mut client(&server).await).await;
    sent.check(&arrived);
    sent.check_newest(&arrived);
}

#[tokio::test]
async fn a_server_without_memory_holds_events_back_until_it_has_some() {
    let Some(server) = server::redis().map(|server| server.with(&[])) else { return };
    let mut connection = client(&server).await;
    run(&mut connection, "CONFIG SET maxmemory 1").await;
    let mut streams = Streams::new();
    let sent = write(&mut streams, 100);
    let output = output(&streams, &server, "");
    let error = output.error().await;
    assert!(error.contains("OOM") && error.contains("`maxlen`"), "{error}");
    run(&mut connection, "CONFIG SET maxmemory 0").await;
    until("all is stored", || streams.checkpoint("orders") == sent.last).await;
    until("nothing is wrong any more", || output.status.borrow().error.is_none()).await;
    output.stop().await;
    let arrived = arrived(&mut connection).await;
    sent.check(&arrived);
    assert_eq!(arrived.len(), sent.count(), "what was refused left nothing half done");
}

#[tokio::test]
async fn a_key_that_is_no_stream_and_a_primary_that_is_none_are_waited_out() {
    let Some(server) = server::redis().map(|server| server.with(&[])) else { return };
    let mut connection = client(&server).await;
    run(&mut connection, "SET walmill:orders taken").await;
    let mut streams = Streams::new();
    let sent = write(&mut streams, 20);
    let output = output(&streams, &server, "");
    let error = output.error().await;
    assert!(error.contains("WRONGTYPE") && error.contains("the key is no stream"), "{error}");
    run(&mut connection, "DEL walmill:orders").await;
    until("all is stored", || streams.checkpoint("orders") == sent.last).await;

    // As after a failover, where the name still leads to the old primary.
    run(&mut connection, &format!("REPLICAOF 127.0.0.1 {}", server.port)).await;
    let more = write(&mut streams, 20);
    let error = output.error().await;
    assert!(error.contains("it is a replica"), "{error}");
    run(&mut connection, "REPLICAOF NO ONE").await;
    until("all is stored", || streams.checkpoint("orders") == more.last).await;
    output.stop().await;
    let mut all = super::Sent::default();
    all.extend(sent);
    all.extend(more);
    all.check(&arrived(&mut connection).await);
}

#[tokio::test]
async fn who_it_is_and_whom_it_trusts_come_from_secrets() {
    let Some(server) = server::redis() else { return };
    if !super::certificates(server.folder()) {
        return;
    }
    let port = server.port.to_string();
    let secured = ["--tls-port", &port, "--port", "0", "--tls-cert-file", "server.crt"];
    let more = ["--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.crt"];
    let rest = ["--tls-auth-clients", "no", "--requirepass", "s3cret"];
    let server = server.with(&[&secured[..], &more, &rest].concat());
    let mut streams = Streams::new();
    let sent = streams.commit("orders", &[KEYS[0]]);
    let config = |password: &str, ca: &str| {
        let file = server.folder().join(ca).display().to_string();
        format!(
            "url = 'rediss://127.0.0.1:{port}'\npassword = '{password}'\n\
             tls.ca = {{ file = '{file}' }}"
        )
    };
    for (password, ca, why) in [("s3cret", "other.crt", "certificate"), ("wr0ng", "ca.crt", "auth")]
    {
        let output = output_with(&streams, &config(password, ca));
        let error = output.error().await.to_lowercase();
        assert!(error.contains(why) && !error.contains(password), "{error}");
        output.stop().await;
    }
    let output = output_with(&streams, &config("s3cret", "ca.crt"));
    until("it is stored", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
}

#[tokio::test]
async fn a_user_of_an_access_list_needs_no_more_than_its_keys_and_commands() {
    let Some(server) = server::redis() else { return };
    let user = "--user walmill on >s3cret ~walmill:* -@all +xadd +multi +exec +hello";
    let connection = "+client|list +client|kill +client|setname +client|id +ping";
    let arguments: Vec<&str> = user.split(' ').chain(connection.split(' ')).collect();
    let server = server.with(&[&arguments[..], &["--user", "default", "off"]].concat());
    let mut streams = Streams::new();
    let sent = streams.commit("orders", &[KEYS[0]]);
    for (login, why) in [
        ("", ""),
        ("user = 'walmill'\npassword = 'wr0ng'", "auth"),
        ("user = 'other'\npassword = 's3cret'", "auth"),
        ("user = 'walmill'\npassword = 's3cret'\nkey = 'elsewhere:{stream}'", "noperm"),
    ] {
        let output = output(&streams, &server, login);
        let error = output.error().await.to_lowercase();
        assert!(error.contains(why), "{login}: {error}");
        assert!(!error.contains("s3cret") && !error.contains("wr0ng"), "{error}");
        output.stop().await;
    }
    let right = output(&streams, &server, "user = 'walmill'\npassword = 's3cret'");
    until("it is stored", || streams.checkpoint("orders") == sent.last().copied()).await;
    right.stop().await;
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let Some(server) = server::redis() else { return };
    if !super::certificates(server.folder()) {
        return;
    }
    let port = server.port.to_string();
    let secured = ["--tls-port", &port, "--port", "0", "--tls-cert-file", "server.crt"];
    let more = ["--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.crt"];
    let server = server.with(&[&secured[..], &more, &["--tls-auth-clients", "yes"]].concat());
    let mut streams = Streams::new();
    let sent = streams.commit("orders", &[KEYS[0]]);
    let file = |name: &str| format!("{{ file = '{}' }}", server.folder().join(name).display());
    let config = |more: &str| {
        format!("url = 'rediss://127.0.0.1:{port}'\ntls = {{ ca = {}{more} }}", file("ca.crt"))
    };
    let stranger = output_with(&streams, &config(""));
    assert!(!stranger.error().await.is_empty());
    stranger.stop().await;
    let shown = format!(", certificate = {}, key = {}", file("server.crt"), file("server.key"));
    let output = output_with(&streams, &config(&shown));
    until("it is stored", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
}
