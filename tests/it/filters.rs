//! Filters that clients give, over every way to read a stream.

use std::sync::Arc;

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use walmill::model::{ByteSize, EventId, Lsn, Offset, Period};
use walmill::server::Config;
use walmill::store;

use crate::support::process::Walmill;
use crate::support::serving::{Serving, Socket};
use crate::support::{cluster, connect, execute, until};

fn id(commit: u64, ordinal: u32) -> String {
    EventId(Offset::new(Lsn(8 * commit), ordinal)).to_string()
}

fn insert(number: u64, country: &str) -> Value {
    json!({ "op": "insert", "record": { "id": number, "country": country }, "old_record": null })
}

async fn subscribe(client: &mut Socket, filter: Value, from: &str) -> Value {
    let message = json!({
        "type": "subscribe", "id": "1", "streams": ["posts"], "from": from, "filter": filter,
    });
    client.send(&message).await;
    client.next().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_gets_what_its_filter_lets_through_of_what_was_there_and_what_comes() {
    let server = Serving::start().await;
    server.commit_rows("posts", &[insert(1, "NZ"), insert(2, "AU"), insert(3, "NZ")]);
    let mut client = server.connect().await;
    let subscribed = subscribe(&mut client, json!("country=eq.NZ"), "earliest").await;
    assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
    assert_eq!(client.ids(2).await, [id(1, 0), id(1, 2)]);
    let mut several = server.connect().await;
    let groups = json!(["country=eq.AU,id=gt.4", "id=eq.6"]);
    subscribe(&mut several, groups, "latest").await;
    server.commit_rows("posts", &[insert(4, "AU"), insert(5, "AU"), insert(6, "NZ")]);
    assert_eq!(client.ids(1).await, [id(2, 2)]);
    assert_eq!(several.ids(2).await, [id(2, 1), id(2, 2)]);
    let gone =
        json!({ "op": "delete", "record": null, "old_record": { "id": 1, "country": "NZ" } });
    server.commit_rows("posts", &[gone, insert(7, "NZ")]);
    assert_eq!(client.ids(2).await, [id(3, 0), id(3, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_what_the_filter_lets_through_and_its_cursor_is_behind_the_rest() {
    let server = Serving::start().await;
    server.commit_rows("posts", &[insert(1, "NZ"), insert(2, "AU"), insert(3, "DE")]);
    let (status, page) = server.get("/v1/streams/posts/events?filter=country=eq.NZ").await;
    assert_eq!((status, page["events"].as_array().unwrap().len()), (200, 1));
    assert_eq!((&page["next"], &page["more"]), (&json!(server.cursor(1, 2)), &json!(false)));
    let either = "filter=country=eq.NZ&filter=country=eq.DE";
    let (_, page) = server.get(&format!("/v1/streams/posts/events?{either}")).await;
    assert_eq!(page["events"].as_array().unwrap().len(), 2);
    let after = server.cursor(1, 2);
    let waits = format!("/v1/streams/posts/events?filter=country=eq.NZ&after={after}&wait=30s");
    let (page, ()) = tokio::join!(server.get(&waits), async {
        server.commit_rows("posts", &[insert(4, "AU")]);
        server.commit_rows("posts", &[insert(5, "NZ")]);
    });
    assert_eq!(page.1["events"][0]["id"], id(3, 0), "it waits for what is wanted");
}

/// The ids of the rows in what a way to read says: events, in their order.
fn rows(events: &[Value]) -> Vec<u64> {
    events.iter().filter_map(|event| event["data"]["record"]["id"].as_u64()).collect()
}

/// Everything that a stream of server-sent events says, up to its end.
async fn server_sent(address: String) -> Vec<Value> {
    let text = reqwest::get(address).await.expect("an answer").text().await.expect("its end");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|json| serde_json::from_str(json).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operator_means_the_same_over_every_way_to_read() {
    let server = Serving::start().await;
    let row = |id: u64, n: Value, name: &str| json!({ "op": "insert", "record": { "id": id, "n": n, "name": name }, "old_record": null });
    let all = [row(1, json!(10), "alpha"), row(2, json!(20), "beta"), row(3, json!(null), "alps")];
    let cases: [(&str, &[u64]); 12] = [
        ("n=eq.10", &[1]),
        ("n=neq.10", &[2]),
        ("n=lt.20", &[1]),
        ("n=lte.20", &[1, 2]),
        ("n=gt.10", &[2]),
        ("n=gte.10", &[1, 2]),
        ("n=in.(20,30)", &[2]),
        ("name=like.al%", &[1, 3]),
        ("name=like.%_t_", &[2]),
        ("n=is.null", &[3]),
        ("n=not.is.null,name=like.a%", &[1]),
        ("n=gte.10,n=lt.15,name=neq.beta", &[1]),
    ];
    // Once out of the log, and once as it comes.
    server.commit_rows("posts", &all);
    let mut readers = Vec::new();
    for (filter, wanted) in cases {
        let mut client = server.connect().await;
        subscribe(&mut client, json!(filter), "earliest").await;
        let query = format!("from=earliest&filter={}", filter.replace('%', "%25"));
        let sse = server.url(&format!("/v1/streams/posts/sse?{query}"));
        readers.push((filter, wanted, client, query, tokio::spawn(server_sent(sse))));
    }
    let sse = walmill::metrics::Name { name: "sse".into() };
    let wanted: usize = cases.iter().map(|(_, wanted)| wanted.len()).sum();
    let sent = |times: usize| {
        let sent = server.metrics.client_events.get_or_create(&sse).get();
        sent == (times * wanted) as u64
    };
    until("what was there has been sent", || sent(1)).await;
    server.commit_rows("posts", &all);
    for (filter, wanted, client, query, _) in &mut readers {
        let mut came = Vec::new();
        while came.len() < 2 * wanted.len() {
            came.push(client.next().await["event"].clone());
        }
        let twice = wanted.repeat(2);
        assert_eq!(rows(&came), twice, "{filter}");
        let (_, page) = server.get(&format!("/v1/streams/posts/events?{query}")).await;
        assert_eq!(rows(page["events"].as_array().expect("events")), twice, "{filter}");
    }
    until("what came has been sent", || sent(2)).await;
    server.shutdown.cancel();
    for (filter, wanted, client, _, sse) in readers {
        let (messages, _) = client.rest().await;
        assert_eq!(messages.len(), 1, "{filter}: nothing more but the goodbye");
        assert_eq!(rows(&sse.await.expect("no panic")), wanted.repeat(2), "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_filters_are_refused_wherever_they_are_given() {
    let server = Serving::start().await;
    let long = format!("a=eq.{}", "x".repeat(20_000));
    for filter in ["", "a", "a=zz.1", "=eq.1", "a=eq.1,", "a=in.(1", "%00", "a=like", long.as_str()]
    {
        for path in ["/v1/streams/posts/events", "/v1/streams/posts/sse"] {
            let (status, finding) = server.get(&format!("{path}?filter={filter}")).await;
            if filter.len() < 10_000 {
                assert_eq!((status, &finding["code"]), (400, &json!("bad-filter")), "{filter}");
            } else {
                assert!((400..500).contains(&status), "{status}");
            }
        }
    }
    let mut client = server.connect().await;
    for filter in
        [json!(""), json!([]), json!(["a=eq.1", "b"]), json!(vec!["a=eq.1"; 17]), json!(long)]
    {
        let answer = subscribe(&mut client, filter.clone(), "latest").await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("bad-filter")));
    }
    assert_eq!(subscribe(&mut client, json!(7), "latest").await["code"], "bad-message");
    client.socket.send(Message::text(r#"{"type":"ping"}"#)).await.unwrap();
    assert_eq!(client.next().await["type"], "pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_subscribers_each_get_their_own_while_events_are_committed() {
    const SUBSCRIBERS: u64 = 100;
    const COMMITS: u64 = 400;
    let server = Arc::new(Serving::start().await);
    let writer = tokio::task::spawn_blocking({
        let server = Arc::clone(&server);
        move || {
            for commit in 0..COMMITS {
                let rows: Vec<Value> = (0..5)
                    .map(|n| insert(commit * 5 + n, &((commit * 5 + n) % SUBSCRIBERS).to_string()))
                    .collect();
                server.commit_rows("posts", &rows);
            }
        }
    });
    let clients: Vec<_> = (0..SUBSCRIBERS)
        .map(|own| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let mut client = server.connect().await;
                let filter = json!(format!("country=eq.{own}"));
                subscribe(&mut client, filter, "earliest").await;
                let expected: Vec<String> = (0..COMMITS * 5)
                    .filter(|number| number % SUBSCRIBERS == own)
                    .map(|number| id(1 + number / 5, u32::try_from(number % 5).unwrap()))
                    .collect();
                assert_eq!(client.ids(expected.len()).await, expected);
            })
        })
        .collect();
    writer.await.unwrap();
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_falls_behind_reads_the_log_and_misses_nothing() {
    let config = Config { client_buffer: ByteSize::new(16 << 10), ..Config::default() };
    let server = Serving::configured(config, store::Config::default()).await;
    let mut client = server.connect().await;
    let message = json!({
        "type": "subscribe", "streams": ["posts"], "from": "latest", "filter": "country=eq.NZ",
        "window": 3,
    });
    client.send(&message).await;
    assert_eq!(client.next().await["type"], "subscribed");
    // Far more than a queue holds, while the window is shut.
    for commit in 0..300 {
        server.commit_rows("posts", &[insert(commit * 2, "NZ"), insert(commit * 2 + 1, "AU")]);
    }
    let mut seen = Vec::new();
    while seen.len() < 300 {
        let event = client.next().await;
        seen.push(event["event"]["id"].as_str().unwrap().to_owned());
        client.send(&json!({ "type": "ack", "stream": "posts", "cursor": event["cursor"] })).await;
    }
    assert_eq!(seen, (1..=300).map(|commit| id(commit, 0)).collect::<Vec<_>>());
    server.commit_rows("posts", &[insert(999, "NZ")]);
    assert_eq!(client.ids(1).await, [id(301, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_shutdown_the_cursor_is_behind_what_the_filter_left_out() {
    let server = Serving::start().await;
    let mut client = server.connect().await;
    subscribe(&mut client, json!("country=eq.NZ"), "latest").await;
    let mut witness = server.connect().await;
    subscribe(&mut witness, json!("country=eq.DE"), "latest").await;
    server.commit_rows("posts", &[insert(1, "NZ")]);
    assert_eq!(client.ids(1).await, [id(1, 0)]);
    server.commit_rows("posts", &[insert(2, "AU"), insert(3, "DE")]);
    // The hub is as far for both.
    assert_eq!(witness.ids(1).await, [id(2, 1)]);
    server.commit_rows("posts", &[insert(4, "DE")]);
    assert_eq!(witness.ids(1).await, [id(3, 0)]);
    server.shutdown.cancel();
    let (_, close) = client.rest().await;
    let (code, cursor) = close.expect("a close frame");
    assert_eq!(code, 1012);
    assert!([server.cursor(2, 1), server.cursor(3, 0)].contains(&cursor), "{cursor}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_reader_that_is_let_go_in_the_middle_goes_on_behind_the_last_event_it_got() {
    // All of it fits into the reader's queue, and not into what the system keeps for its socket.
    let config = Config {
        client_buffer: ByteSize::new(64 << 20),
        client_timeout: Period::from_millis(300),
        ..Config::default()
    };
    let server = Serving::configured(config, store::Config::default()).await;
    let mut client = server.connect().await;
    subscribe(&mut client, json!("country=eq.NZ"), "latest").await;
    let (text, count) = ("x".repeat(128 << 10), 200);
    let row = |number, country| {
        let record = json!({ "id": number, "country": country, "text": text });
        json!({ "op": "insert", "record": record, "old_record": null })
    };
    let rows = (0..count).flat_map(|number| [row(number, "NZ"), insert(number, "AU")]);
    server.commit_rows("posts", &rows.collect::<Vec<_>>());
    server.left("websocket", "slow", 1).await;
    let (messages, close) = client.rest().await;
    let (code, cursor) = close.expect("a close frame");
    let (_closing, events) = messages.split_last().expect("messages");
    assert!(code == 1013 && !events.is_empty() && events.len() < 200, "{}", events.len());
    // Nothing that it has is read again, and nothing that it has not is passed over.
    assert_eq!(events.last().expect("an event")["cursor"], cursor);
    let mut seen: Vec<Value> = events.iter().map(|it| it["event"]["id"].clone()).collect();
    let mut again = server.connect().await;
    subscribe(&mut again, json!("country=eq.NZ"), &cursor).await;
    seen.extend(again.ids(200 - seen.len()).await.into_iter().map(Value::from));
    assert!(seen.into_iter().eq((0..200).map(|number| Value::from(id(1, number * 2)))));
    server.commit_rows("posts", &[insert(999, "NZ")]);
    assert_eq!(again.ids(1).await, [id(2, 0)]);
}

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.items"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[[pipeline]]
name = "items"
tables = ["public.items"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn filters_compare_what_postgresql_sent_by_its_type() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(
        &database,
        "CREATE TABLE items (id int8 PRIMARY KEY, price numeric, at timestamptz, name text,
             done bool, big text);
         ALTER TABLE items REPLICA IDENTITY FULL;
         ALTER TABLE items ALTER big SET STORAGE EXTERNAL",
    )
    .await;
    let walmill = Walmill::start(CONFIG, &cluster.url()).await;
    execute(
        &database,
        "INSERT INTO items VALUES
            (9007199254740993, 10.50, '2026-11-24 03:07:13+00', 'café', true, repeat('x', 100000)),
            (2, 'NaN', 'infinity', NULL, false, 'small'),
            (3, -0.001, '2020-01-01 00:00:00+00', 'a,b', NULL, NULL);
         UPDATE items SET done = false WHERE id = 9007199254740993;
         DELETE FROM items WHERE id = 3",
    )
    .await;
    walmill
        .wait_for("/v1/streams/items/events", |page| {
            page["events"].as_array().is_some_and(|events| events.len() == 5)
        })
        .await;
    for (filter, expected) in [
        ("id=eq.9007199254740993", "insert,update"),
        ("id=eq.9007199254740992", ""),
        ("price=eq.10.5", "insert,update"),
        ("price=gt.11", "insert"),
        ("price=lt.0", "insert,delete"),
        ("at=gte.2026-11-24T04:07:13%2B01:00", "insert,insert,update"),
        ("at=lt.2021-01-01", "insert,delete"),
        ("name=eq.caf%C3%A9", "insert,update"),
        ("name=eq.\"a,b\"", "insert,delete"),
        ("name=is.null", "insert"),
        ("name=like.caf_", "insert,update"),
        ("done=eq.true", "insert"),
        ("done=is.false", "insert,update"),
        // Not sent again by the update, and known from the old row.
        ("big=like.xxx%25", "insert,update"),
        ("name=in.(\"a,b\",x)", "insert,delete"),
    ] {
        let page = walmill.json(&format!("/v1/streams/items/events?filter={filter}")).await;
        let events = page["events"].as_array().unwrap_or_else(|| panic!("{filter}: {page}"));
        let ops: Vec<&str> =
            events.iter().map(|event| event["data"]["op"].as_str().unwrap()).collect();
        assert_eq!(ops.join(","), expected, "{filter}");
    }
}
