//! Frames as they are on the wire: what clients do not show, and what no client would send.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::Stand;
use crate::support::process::PATIENCE;

/// A connection, frame by frame.
pub struct Wire(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Wire {
    pub async fn open(stand: &Stand, query: &str) -> Self {
        let url =
            stand.walmill.url(&format!("/realtime/v1/websocket{query}")).replace("http:", "ws:");
        Self(tokio_tungstenite::connect_async(url).await.expect("a connection").0)
    }

    pub async fn send(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).await.expect("send");
    }

    pub async fn join(&mut self, topic: &str, payload: Value) {
        let frame = json!({ "topic": topic, "event": "phx_join", "payload": payload, "ref": "1" });
        self.send(&frame).await;
    }

    /// The next place that the channel is told.
    async fn place(&mut self) -> String {
        loop {
            let frame = self.next().await;
            if let Some(place) = frame["payload"]["cursor"].as_str() {
                return place.to_owned();
            }
        }
    }

    /// The key of the next row.
    async fn change(&mut self) -> i64 {
        loop {
            let frame = self.next().await;
            if frame["event"] == "postgres_changes" {
                return frame["payload"]["data"]["record"]["id"].as_i64().expect("a key");
            }
        }
    }

    pub async fn next(&mut self) -> Value {
        let message = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a frame in time");
        match message.expect("a frame").expect("a frame") {
            Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("{other:?}"),
        }
    }
}

fn reply(topic: &str, reference: &str, response: Value) -> Value {
    let payload = json!({ "status": "ok", "response": response });
    json!({ "topic": topic, "event": "phx_reply", "payload": payload, "ref": reference })
}

pub fn refused(topic: &str, reference: &str, reason: &str) -> Value {
    let payload = json!({ "status": "error", "response": { "reason": reason } });
    json!({ "topic": topic, "event": "phx_reply", "payload": payload, "ref": reference })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_lives_as_the_protocol_says() {
    let stand = Stand::start().await;
    let mut wire = Wire::open(&stand, "").await;
    let beat = json!({ "topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "9" });
    wire.send(&beat).await;
    assert_eq!(wire.next().await, reply("phoenix", "9", json!({})));
    wire.join("realtime:public", json!({})).await;
    assert_eq!(wire.next().await, reply("realtime:public", "1", json!({})));
    let push = |event: &str, reference: &str| json!({ "topic": "realtime:public", "event": event, "payload": {}, "ref": reference });
    wire.send(&push("phx_leave", "4")).await;
    assert_eq!(wire.next().await, reply("realtime:public", "4", json!({})));
    assert_eq!(wire.next().await, push("phx_close", "1"));
    wire.send(&push("phx_leave", "5")).await;
    assert_eq!(wire.next().await, reply("realtime:public", "5", json!({})));
    for (topic, event, reason) in [
        ("elsewhere", "phx_join", "unmatched topic"),
        ("realtime:", "phx_join", "TopicNameRequired: You must provide a topic name"),
        ("realtime:nobody", "broadcast", "unmatched topic"),
        ("realtime:nobody", "access_token", "unmatched topic"),
    ] {
        wire.send(&json!({ "topic": topic, "event": event, "payload": {}, "ref": "6" })).await;
        assert_eq!(wire.next().await, refused(topic, "6", reason));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_join_repeats_the_bindings_in_their_order() {
    let stand = Stand::start().await;
    let mut wire = Wire::open(&stand, "?vsn=2.0.0&apikey=any").await;
    let asked = json!([
        { "event": "*", "schema": "public", "table": "todos", "filter": "id=eq.5" },
        { "event": "INSERT", "schema": "public", "filter": "" },
        { "event": "*", "schema": "public", "table": "todos", "filter": "id=eq.5" },
    ]);
    let config = json!({ "postgres_changes": asked, "presence": { "enabled": false } });
    wire.send(&json!(["1", "1", "realtime:any", "phx_join", { "config": config }])).await;
    let answer = wire.next().await;
    assert_eq!(answer[0], "1");
    let granted = answer[4]["response"]["postgres_changes"].as_array().expect("bindings");
    for (granted, asked) in granted.iter().zip(asked.as_array().expect("bindings")) {
        let mut granted = granted.clone();
        assert!(granted["id"].is_u64());
        granted.as_object_mut().expect("an object").remove("id");
        assert_eq!(granted, *asked);
    }
    assert_eq!(granted[0]["id"], granted[2]["id"]);
    assert_ne!(granted[0]["id"], granted[1]["id"]);
    assert_eq!(wire.next().await[3], "system");
    stand.sql("insert into todos (id) values (5)").await;
    let change = wire.next().await;
    assert_eq!((&change[0], &change[1]), (&Value::Null, &Value::Null));
    let ids = json!([granted[0]["id"], granted[1]["id"], granted[2]["id"]]);
    assert_eq!(change[4]["ids"], ids, "one frame for the channel");
    assert_eq!(change[4]["data"]["columns"][0], json!({ "name": "id", "type": "int8" }));
    assert_eq!(change[4]["data"].get("old_record"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_should_wait_until_changes_are_live_comes_when_they_are() {
    let stand = Stand::start().await;
    let mut wire = Wire::open(&stand, "").await;
    for (reference, options) in
        [json!({ "wait": true, "timeout": 15000 }), json!({ "wait": false })]
            .into_iter()
            .enumerate()
    {
        let id = reference + 1;
        let bindings = json!([{ "event": "*", "schema": "public", "table": "todos" }]);
        let config = json!({
            "postgres_changes": bindings, "postgres_changes_options": options,
            "presence": { "enabled": false },
        });
        let topic = format!("realtime:waits-{id}");
        wire.join(&topic, json!({ "config": config })).await;
        let answer = wire.next().await;
        assert_eq!((&answer["topic"], &answer["payload"]["status"]), (&json!(topic), &json!("ok")));
        // What commits behind the answer is heard, whatever was said of waiting.
        stand.sql(&format!("insert into todos (id) values ({id})")).await;
        assert_eq!(wire.change().await, i64::try_from(id).expect("a small number"));
        wire.send(&json!({ "topic": topic, "event": "phx_leave", "payload": {}, "ref": "2" }))
            .await;
        while wire.next().await["event"] != "phx_close" {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_joins_again_on_the_same_connection_misses_nothing() {
    let stand = Stand::start().await;
    let mut wire = Wire::open(&stand, "").await;
    let config = json!({ "config": { "presence": { "enabled": false },
        "postgres_changes": [{ "event": "*", "schema": "public", "table": "other" }] } });
    wire.join("realtime:a", config.clone()).await;
    wire.next().await;
    wire.next().await;
    stand.sql("insert into other values (1)").await;
    assert_eq!(wire.next().await["payload"]["data"]["record"]["id"], 1);
    wire.join("realtime:a", config).await;
    let close = wire.next().await;
    assert_eq!((&close["event"], &close["ref"]), (&json!("phx_close"), &json!("1")));
    stand.sql("insert into other values (2)").await;
    let mut events = Vec::new();
    while events.last().is_none_or(|event| event != "postgres_changes") {
        let frame = wire.next().await;
        events.push(frame["event"].as_str().expect("an event").to_owned());
        if frame["event"] == "postgres_changes" {
            assert_eq!(frame["payload"]["data"]["record"]["id"], 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_goes_on_behind_the_place_it_brings() {
    let stand = Stand::start().await;
    let join = |resume: &str| {
        json!({ "walmill": { "resume": resume }, "config": { "presence": { "enabled": false },
            "postgres_changes": [{ "event": "*", "schema": "public", "table": "other" }] } })
    };
    let mut wire = Wire::open(&stand, "").await;
    wire.join("realtime:a", join("")).await;
    let begin = wire.place().await;
    stand.sql("insert into other values (1)").await;
    assert_eq!(wire.change().await, 1);
    let place = wire.place().await;
    drop(wire);
    stand.sql("insert into other values (2); insert into other values (3)").await;
    for (place, first) in [(&place, 2), (&begin, 1)] {
        let mut wire = Wire::open(&stand, "").await;
        wire.join("realtime:a", join(place)).await;
        for id in first..=3 {
            assert_eq!(wire.change().await, id);
        }
    }
    // A place of another store: what is kept is told from its start, and that something may miss.
    let mut wire = Wire::open(&stand, "").await;
    let (name, cursor) = place.split_once('=').expect("a stream and a cursor");
    let other = format!("{name}={}", cursor.replacen(|c| c != 'A', "A", 6));
    wire.join("realtime:a", join(&other)).await;
    let lost = loop {
        let frame = wire.next().await;
        if frame["payload"]["extension"] == "walmill" {
            break frame;
        }
    };
    assert_eq!(lost["payload"]["status"], "error", "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_passed_over_and_the_connection_lives() {
    let stand = Stand::start().await;
    let mut wire = Wire::open(&stand, "?vsn=2.0.0").await;
    let deep = "[".repeat(100_000);
    for text in ["", "{", "null", "[]", "[1,2,3,4,5]", "\"phx_join\"", "\u{0}", &deep] {
        wire.0.send(Message::text(text)).await.expect("send");
    }
    for bytes in
        [&b""[..], b"\x03", b"\x03\xFF\xFF\xFF\xFF\xFF\x01short", b"\x09\0\0\0\0\0\0", &[0; 1000]]
    {
        wire.0.send(Message::binary(bytes.to_vec())).await.expect("send");
    }
    wire.send(&json!([null, "1", "phoenix", "heartbeat", {}])).await;
    assert_eq!(wire.next().await[1], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_join_is_refused_and_what_nobody_knows_is_passed_over() {
    let stand = Stand::start().await;
    let mut wire = Wire::open(&stand, "").await;
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let payload = format!(r#"{{"config":{{"postgres_changes":{deep}}}}}"#);
    let push = |event: &str, payload: &str| {
        let text = format!(
            r#"{{"topic":"realtime:public","event":"{event}","payload":{payload},"ref":"1"}}"#
        );
        Message::text(text)
    };
    wire.0.send(push("phx_join", &payload)).await.expect("send");
    let answer = wire.next().await;
    let reason = answer["payload"]["response"]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("UnableToSubscribe: the payload cannot be read"), "{reason}");
    let binding = json!({ "event": "*", "schema": "public" });
    let wide = ["or=(a.eq.1,b.eq.2)"; 6].join(",");
    let long = format!("id=eq.{}", "1".repeat(1 << 20));
    for (config, part) in [
        (json!({ "postgres_changes": vec![binding.clone(); 101] }), "100 bindings"),
        (json!({ "postgres_changes": vec![json!({ "filter": wide }); 10] }), "500 ways"),
        (
            json!({ "private": [], "presence": 1, "broadcast": "x", "postgres_changes": [7, "x", []] }),
            "",
        ),
        (
            json!({ "postgres_changes": [{ "event": 1, "schema": [], "table": {}, "filter": 5, "select": [1] }] }),
            "",
        ),
        (json!({ "postgres_changes": [{ "event": "*", "filter": long }] }), ""),
    ] {
        wire.join("realtime:odd", json!({ "config": config })).await;
        let answer = loop {
            let frame = wire.next().await;
            if frame["event"] == "phx_reply" {
                break frame;
            }
        };
        match part {
            "" => assert_eq!(answer["payload"]["status"], "ok", "{answer}"),
            part => assert!(answer["payload"].to_string().contains(part), "{answer}"),
        }
    }
    wire.join("realtime:public", json!({})).await;
    wire.send(&json!({ "topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "h" }))
        .await;
    let mut frames = Vec::new();
    while frames.last().is_none_or(|frame: &Value| frame["ref"] != "h") {
        frames.push(wire.next().await);
    }
    assert!(
        frames.iter().any(|f| f["topic"] == "realtime:public" && f["payload"]["status"] == "ok")
    );
    for event in ["postgres_changes", "phx_close", "phx_reply", "nothing", "system", "*", ""] {
        wire.0.send(push(event, "{}")).await.expect("send");
    }
    for payload in ["null", "[]", "7", "\"x\"", &deep, r#"{"access_token":[]}"#] {
        wire.0.send(push("access_token", payload)).await.expect("send");
    }
    wire.send(&json!({ "topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "i" }))
        .await;
    assert_eq!(wire.next().await, reply("phoenix", "i", json!({})));
    stand.sql("insert into other values (1)").await;
    assert_eq!(wire.next().await["payload"]["record"]["id"], "1", "the channel lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_of_any_size_leaves_the_connection_and_what_others_get_as_it_was() {
    let stand = Stand::start().await;
    let mut quiet = Wire::open(&stand, "").await;
    quiet.join("realtime:public:other", json!({})).await;
    quiet.next().await;
    let mut wire = Wire::open(&stand, "?vsn=2.0.0").await;
    // Numbers that look like nothing in particular, and are the same each time.
    let mut state = 1_u64;
    let mut byte = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for size in [1, 7, 100, 4_000, 1 << 20, (5 << 20) - 1] {
        let mut bytes: Vec<u8> = (0..size).map(|_| byte()).collect();
        wire.0.send(Message::binary(bytes.clone())).await.expect("send");
        bytes[0] = 3;
        wire.0.send(Message::binary(bytes)).await.expect("send");
        wire.0.send(Message::text("[".repeat(size))).await.expect("send");
    }
    wire.send(&json!([null, "1", "phoenix", "heartbeat", {}])).await;
    assert_eq!(wire.next().await[1], "1");
    stand.sql("insert into other values (1)").await;
    assert_eq!(quiet.next().await["payload"]["record"]["id"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_a_message_ends_the_connection() {
    let stand = Stand::start().await;
    let mut wire = Wire::open(&stand, "").await;
    // It may be refused while it is still being sent.
    let _ = wire.0.send(Message::text("x".repeat((5 << 20) + 1))).await;
    let ended = match wire.0.next().await {
        Some(Ok(Message::Close(Some(frame)))) => u16::from(frame.code) == 1009,
        None | Some(Err(Error::Io(_) | Error::Protocol(_))) => true,
        Some(other) => panic!("{other:?}"),
    };
    assert!(ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_joins_is_refused_and_costs_the_others_nothing() {
    let stand = Stand::start().await;
    let mut wire = Wire::open(&stand, "").await;
    for n in 0..300 {
        wire.join(&format!("realtime:topic{n}"), json!({})).await;
    }
    let mut refusals = 0;
    for _ in 0..300 {
        let reason = wire.next().await["payload"]["response"]["reason"].take();
        refusals +=
            u32::from(reason.as_str().is_some_and(|reason| reason.contains("LimitReached")));
    }
    assert!(refusals >= 200, "{refusals} of 300 were refused");
    let mut other = Wire::open(&stand, "").await;
    other.join("realtime:public", json!({})).await;
    assert_eq!(other.next().await["payload"]["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_is_refused_at_the_door() {
    let stand = Stand::start().await;
    let url = stand.walmill.url("/socket/websocket?vsn=3.0.0").replace("http:", "ws:");
    match tokio_tungstenite::connect_async(url).await {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 400),
        other => panic!("{other:?}"),
    }
}
