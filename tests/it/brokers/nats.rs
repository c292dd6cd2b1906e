//! NATS JetStream: a `nats-server` that is killed, lacks its stream, or takes no more.

use async_nats::jetstream::{self, stream};
use futures_util::StreamExt as _;
use serde_json::json;
use walmill::model::Offset;
use walmill::model::replay::{Part, ReplayState};
use walmill::output::nats::{Config, Nats};
use walmill::store::dead_letter::By;

use super::server::{self, Server};
use super::{KEYS, write};
use crate::support::outputs::{Running, Streams, ids};
use crate::support::until;

fn output(streams: &Streams, server: &Server, more: &str) -> Running {
    let which = if more.contains("streams =") { "" } else { "streams = ['orders']" };
    let config = format!(
        "name = 'billing'\n{which}\nurl = 'nats://127.0.0.1:{}'\n\
         retry = {{ initial = '5ms', max = '50ms' }}\n{more}",
        server.port
    );
    let config: Config = toml::from_str(&config).expect("a config");
    let output = Nats::new(&config, "shop").expect("an output");
    Running::of(streams, config.delivery.config(), output)
}

async fn client(server: &Server) -> jetstream::Context {
    let client = async_nats::connect(format!("nats://127.0.0.1:{}", server.port)).await;
    jetstream::new(client.expect("connect to the server"))
}

async fn make_stream(context: &jetstream::Context, more: stream::Config) -> stream::Stream {
    let subjects = vec!["walmill.>".to_owned(), "orders.>".to_owned()];
    let config = stream::Config { name: "ORDERS".into(), subjects, ..more };
    context.create_stream(config).await.expect("a stream")
}

/// Everything in the stream, in its order.
async fn stored(
    context: &jetstream::Context,
) -> Vec<async_nats::jetstream::message::StreamMessage> {
    let stream = context.get_stream("ORDERS").await.expect("the stream");
    let last = stream.cached_info().state.last_sequence;
    let mut messages = Vec::new();
    for sequence in 1..=last {
        messages.push(stream.get_raw_message(sequence).await.expect("a message"));
    }
    messages
}

/// Key and id of everything in the stream.
async fn arrived(context: &jetstream::Context) -> Vec<(String, String)> {
    let header = |message: &async_nats::jetstream::message::StreamMessage, name: &str| {
        message.headers.get(name).map(ToString::to_string).unwrap_or_default()
    };
    let messages = stored(context).await;
    messages.iter().map(|m| (header(m, "ce-subject"), header(m, "Nats-Msg-Id"))).collect()
}

#[tokio::test]
async fn an_event_is_stored_under_its_id_as_a_cloud_event_where_its_values_lead() {
    let Some(server) = server::nats().map(|server| server.with(&[])) else { return };
    let context = client(&server).await;
    make_stream(&context, stream::Config::default()).await;
    let mut streams = Streams::new();
    let evil = json!({ "region": "a.b > *\r\nX: y" });
    let rows = [("public.orders/1", json!({ "region": "nz" })), ("public.orders/a b", evil)];
    let sent = streams.commit_rows("orders", &rows);
    let output = output(&streams, &server, "subject = 'orders.{region}.{op}'");
    until("both are stored", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;

    let messages = stored(&context).await;
    let subjects: Vec<_> = messages.iter().map(|message| message.subject.as_str()).collect();
    let encoded = "orders.a%2Eb%20%3E%20%2A%0D%0AX%3A%20y.insert";
    assert_eq!(subjects, ["orders.nz.insert", encoded]);
    let header = |name: &str| messages[1].headers.get(name).map(ToString::to_string);
    assert_eq!(header("Nats-Msg-Id").as_deref(), Some(ids(&sent)[1].as_str()));
    assert_eq!(header("ce-id"), header("Nats-Msg-Id"));
    assert_eq!(header("ce-specversion").as_deref(), Some("1.0"));
    assert_eq!(header("ce-type").as_deref(), Some("walmill.row.insert"));
    assert_eq!(header("ce-subject").as_deref(), Some("public.orders/a%20b"));
    assert_eq!(header("content-type").as_deref(), Some("application/json"));
    let data: serde_json::Value = serde_json::from_slice(&messages[0].payload).expect("JSON");
    assert_eq!(data["record"], json!({ "region": "nz" }));
}

#[tokio::test]
async fn a_killed_server_gets_every_event_once_and_each_key_in_order() {
    let Some(mut server) = server::nats().map(|server| server.with(&[])) else { return };
    let context = client(&server).await;
    make_stream(&context, stream::Config::default()).await;
    let mut streams = Streams::new();
    let output = output(&streams, &server, "timeout = '2s'\nin_flight = 16");
    let mut sent = write(&mut streams, 300);
    for _ in 0..3 {
        let before = output.status.borrow().delivered;
        until("it delivers", || output.status.borrow().delivered > before + 20).await;
        server.kill();
        output.error().await;
        server.start();
    }
    sent.extend(write(&mut streams, 50));
    until("all is stored", || streams.checkpoint("orders") == sent.last).await;
    output.stop().await;
    let arrived = arrived(&client(&server).await).await;
    sent.check(&arrived);
    assert_eq!(arrived.len(), sent.count(), "an id is stored once");
}

#[tokio::test]
async fn where_nobody_else_writes_a_hot_key_needs_no_round_trip_for_each_event() {
    let Some(mut server) = server::nats().map(|server| server.with(&[])) else { return };
    let mut streams = Streams::new();
    let keys = [KEYS[0]; 500];
    let mut last = streams.commit("orders", &keys).last().copied();
    let more = "stream = 'ORDERS'\ncreate_stream = true\nexclusive = true\ntimeout = '2s'";
    let output = output(&streams, &server, more);
    until("all is stored", || streams.checkpoint("orders") == last).await;
    server.kill();
    for _ in 0..20 {
        last = streams.commit("orders", &keys[..100]).last().copied();
    }
    output.error().await;
    server.start();
    until("all is stored", || streams.checkpoint("orders") == last).await;
    let context = client(&server).await;
    let ids: Vec<String> = arrived(&context).await.into_iter().map(|(_, id)| id).collect();
    let mut sorted = ids.clone();
    sorted.sort_by_key(|id| {
        let (commit, ordinal) = id.rsplit_once('/').expect("an id");
        (u64::from_str_radix(&commit[2..], 16).unwrap(), ordinal.parse::<u32>().unwrap())
    });
    assert_eq!((ids.len(), &ids), (2500, &sorted), "in order, each once");

    // Somebody else does: said, and nothing is lost.
    let mut events = 0;
    while output.status.borrow().error.is_none() && events < 100_000 {
        context.publish("walmill.orders", "mine".into()).await.unwrap().await.unwrap();
        last = streams.commit("orders", &keys).last().copied();
        events += 1;
    }
    let error = output.error().await;
    assert!(error.contains("take out `exclusive`"), "{error}");
    until("all is stored", || streams.checkpoint("orders") == last).await;
    output.stop().await;
}

#[tokio::test]
async fn events_that_two_pipelines_made_of_one_change_are_both_stored() {
    let Some(server) = server::nats().map(|server| server.with(&[])) else { return };
    let context = client(&server).await;
    make_stream(&context, stream::Config::default()).await;
    let mut streams = Streams::new();
    let keys = [KEYS[0], KEYS[1]];
    let last = streams.commit("orders", &keys).last().copied();
    streams.commit_twins("audit", &keys);
    let output = output(&streams, &server, "streams = ['orders', 'audit']");
    for stream in ["orders", "audit"] {
        until("both streams are stored", || streams.checkpoint(stream) == last).await;
    }
    output.stop().await;
    let subjects: Vec<_> =
        stored(&context).await.iter().map(|message| message.subject.to_string()).collect();
    for subject in ["walmill.orders", "walmill.audit"] {
        assert_eq!(subjects.iter().filter(|own| *own == subject).count(), 2, "{subjects:?}");
    }
}

#[tokio::test]
async fn a_replay_is_stored_again_though_the_server_has_seen_its_events_a_moment_ago() {
    let Some(server) = server::nats().map(|server| server.with(&[])) else { return };
    let context = client(&server).await;
    make_stream(&context, stream::Config::default()).await;
    let mut streams = Streams::new();
    let sent = streams.commit("orders", &[KEYS[0], KEYS[1]]);
    let output = output(&streams, &server, "");
    until("both are stored", || streams.checkpoint("orders") == sent.last().copied()).await;
    let billing = Part::Output("billing".into());
    let all = (Offset::START, Offset::end_of(sent[1].commit));
    let asked = streams.store.ask_for_replay(billing.clone(), all, (None, None));
    assert!(asked.expect("write the store").is_some());
    until("it was replayed", || {
        let replay = streams.store.replay(&billing).expect("read the store").expect("a replay");
        replay.state == ReplayState::Done
    })
    .await;
    output.stop().await;
    let header = |message: &async_nats::jetstream::message::StreamMessage| {
        message.headers.get("ce-id").map(ToString::to_string).unwrap_or_default()
    };
    let came: Vec<String> = stored(&context).await.iter().map(header).collect();
    assert_eq!(came, [ids(&sent), ids(&sent)].concat(), "under the same ids");
}

#[tokio::test]
async fn without_a_stream_it_says_so_and_goes_on_when_there_is_one() {
    let Some(server) = server::nats().map(|server| server.with(&[])) else { return };
    let context = client(&server).await;
    let mut streams = Streams::new();
    let sent = write(&mut streams, 3);
    let output = output(&streams, &server, "");
    let error = output.error().await;
    assert!(error.contains("no JetStream stream takes the event's subject"), "{error}");
    make_stream(&context, stream::Config::default()).await;
    until("all is stored", || streams.checkpoint("orders") == sent.last).await;
    until("nothing is wrong any more", || output.status.borrow().error.is_none()).await;
    output.stop().await;
    sent.check(&arrived(&context).await);
}

#[tokio::test]
async fn an_event_that_is_too_large_becomes_a_dead_letter_and_the_rest_goes_on() {
    let Some(server) = server::nats().map(|server| server.with(&[])) else { return };
    let context = client(&server).await;
    let limited = stream::Config { max_message_size: 10_000, ..Default::default() };
    make_stream(&context, limited).await;
    let mut streams = Streams::new();
    // One is more than the stream takes, one more than the server does.
    let large = |bytes| json!({ "text": "x".repeat(bytes) });
    let rows = [(KEYS[0], large(1)), (KEYS[0], large(20_000)), (KEYS[1], large(2_000_000))];
    let sent = streams.commit_rows("orders", &rows);
    let behind = streams.commit("orders", &[KEYS[0]]);
    let output = output(&streams, &server, "");
    until("the rest is stored", || streams.checkpoint("orders") == behind.last().copied()).await;
    output.stop().await;
    let arrived: Vec<_> = arrived(&context).await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(arrived, [&ids(&sent)[0], &ids(&behind)[0]].map(String::clone));
    let letters = streams.store.dead_letters(10).unwrap();
    assert_eq!(letters.len(), 2);
    for (_, letter) in letters {
        assert_eq!(letter.by, By::Output { output: "billing".into(), stream: "orders".into() });
        assert!(letter.reason.contains("too large"), "{}", letter.reason);
    }
}

#[tokio::test]
async fn a_stream_that_is_full_holds_events_back_until_there_is_room() {
    let Some(server) = server::nats().map(|server| server.with(&[])) else { return };
    let context = client(&server).await;
    let full = stream::Config {
        max_messages: 5,
        discard: stream::DiscardPolicy::New,
        retention: stream::RetentionPolicy::Limits,
        ..Default::default()
    };
    let stream = make_stream(&context, full).await;
    let mut streams = Streams::new();
    let sent = write(&mut streams, 5);
    let output = output(&streams, &server, "");
    let error = output.error().await;
    assert!(error.contains("maximum messages exceeded"), "{error}");
    let mut arrived = Vec::new();
    while arrived.len() < sent.count() {
        let consumer = stream
            .create_consumer(jetstream::consumer::pull::Config::default())
            .await
            .expect("a consumer");
        let mut messages = consumer.fetch().max_messages(5).messages().await.expect("messages");
        while let Some(message) = messages.next().await {
            let message = message.expect("a message");
            let headers = message.headers.as_ref().expect("headers");
            let header = |name: &str| headers.get(name).map(ToString::to_string).expect("it");
            arrived.push((header("ce-subject"), header("Nats-Msg-Id")));
            let sequence = message.info().expect("its place").stream_sequence;
            stream.delete_message(sequence).await.expect("delete it");
        }
    }
    until("all was stored", || streams.checkpoint("orders") == sent.last).await;
    output.stop().await;
    sent.check(&arrived);
    sent.check_newest(&arrived);
}

#[tokio::test]
async fn who_it_is_comes_from_secrets_and_a_wrong_one_is_said_and_not_shown() {
    let Some(server) = server::nats() else { return };
    let server = server.with(&["--auth", "s3cret"]);
    let mut streams = Streams::new();
    let sent = streams.commit("orders", &[KEYS[0]]);
    let wrong = output(&streams, &server, "token = 'wr0ng'\ntimeout = '5s'");
    let error = wrong.error().await.to_lowercase();
    assert!(error.contains("authorization violation") && !error.contains("wr0ng"), "{error}");
    wrong.stop().await;
    let right = "token = 's3cret'\nstream = 'ORDERS'\ncreate_stream = true";
    let output = output(&streams, &server, right);
    until("it is stored", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
}

/// Who walmill can be to a server: how the server is started, what is right, and what is wrong.
fn logins() -> Vec<(&'static str, Vec<String>, String, String)> {
    let file = |name: &str| format!("{}/tests/it/brokers/{name}", env!("CARGO_MANIFEST_DIR"));
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let seed = "SUAENZJTDUZFMXDAC6KQWTBRKOV3VRCJTZHIXQ7QQAXXJ6CE5XDQOJK7TY";
    let stranger = "SUABF3VKFURPXTYZBI7UCLGDPTACABX3XXWXC2U4EZAM5NM2AYYETUXRH4";
    vec![
        (
            "user and password",
            texts(&["--user", "walmill", "--pass", "s3cret"]),
            "user = 'walmill'\npassword = 's3cret'".into(),
            "user = 'walmill'\npassword = 'wr0ng'".into(),
        ),
        (
            "an NKey",
            texts(&["-c", &file("nkey.conf")]),
            format!("nkey = '{seed}'"),
            format!("nkey = '{stranger}'"),
        ),
        (
            "a file of credentials",
            texts(&["-c", &file("accounts.conf")]),
            format!("credentials = {{ file = '{}' }}", file("walmill.creds")),
            format!("nkey = '{stranger}'"),
        ),
    ]
}

#[tokio::test]
async fn who_it_is_may_be_a_user_an_nkey_or_a_file_of_credentials() {
    for (what, arguments, right, wrong) in logins() {
        let Some(server) = server::nats() else { return };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let server = server.with(&arguments);
        let mut streams = Streams::new();
        let sent = streams.commit("orders", &[KEYS[0]]);
        let refused = output(&streams, &server, &format!("{wrong}\ntimeout = '5s'"));
        let error = refused.error().await;
        assert!(error.to_lowercase().contains("authorization violation"), "{what}: {error}");
        for secret in ["wr0ng", "SUABF3VKFURP"] {
            assert!(!error.contains(secret), "{what}: {error}");
        }
        refused.stop().await;
        let config = format!("{right}\nstream = 'ORDERS'\ncreate_stream = true");
        let output = output(&streams, &server, &config);
        until(what, || streams.checkpoint("orders") == sent.last().copied()).await;
        output.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let Some(server) = server::nats() else { return };
    if !super::certificates(server.folder()) {
        return;
    }
    let own = ["--tlsverify", "--tlscert", "server.crt", "--tlskey", "server.key"];
    let server = server.with(&[&own[..], &["--tlscacert", "ca.crt"]].concat());
    let mut streams = Streams::new();
    let sent = streams.commit("orders", &[KEYS[0]]);
    let file = |name: &str| format!("{{ file = '{}' }}", server.folder().join(name).display());
    let tls = |more: &str| {
        format!(
            "tls = {{ ca = {}{more} }}\nstream = 'ORDERS'\ncreate_stream = true",
            file("ca.crt")
        )
    };
    let stranger = output(&streams, &server, &format!("{}\ntimeout = '5s'", tls("")));
    assert!(!stranger.error().await.is_empty());
    stranger.stop().await;
    let shown = format!(", certificate = {}, key = {}", file("server.crt"), file("server.key"));
    let output = output(&streams, &server, &tls(&shown));
    until("it is stored", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
}

#[tokio::test]
async fn a_secured_server_is_known_by_its_authority_alone() {
    let Some(server) = server::nats() else { return };
    if !super::certificates(server.folder()) {
        return;
    }
    let server = server.with(&["--tls", "--tlscert", "server.crt", "--tlskey", "server.key"]);
    let mut streams = Streams::new();
    let sent = streams.commit("orders", &[KEYS[0]]);
    let url = |ca: &str| {
        let file = server.folder().join(ca).display().to_string();
        format!("tls.ca = {{ file = '{file}' }}\nstream = 'ORDERS'\ncreate_stream = true")
    };
    let stranger = output(&streams, &server, &url("other.crt"));
    let error = stranger.error().await;
    assert!(error.contains("invalid peer certificate"), "{error}");
    stranger.stop().await;
    let output = output(&streams, &server, &url("ca.crt"));
    until("it is stored", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
}
