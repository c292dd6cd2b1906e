//! Broadcast and presence.

use serde_json::{Value, json};

use super::{NEWEST, SECOND, Stand, client};

/// Two clients in one room, the first of them as the options say.
fn room(options: Value) -> Value {
    json!({ "name": "room", "options": { "config": options } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_reaches_every_version_and_the_sender_where_it_asked() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let mut clients = Vec::new();
    for version in SECOND {
        clients.push(stand.subscribed(version, &room(json!({}))).await);
    }
    let echo = room(json!({ "broadcast": { "self": true, "ack": true } }));
    let mut sender = stand.subscribed(NEWEST, &echo).await;
    sender.act(&json!({ "act": "send", "event": "cursor", "payload": { "x": 1 } })).await;
    assert_eq!(sender.next("send").await, "ok");
    for client in clients.iter_mut().chain([&mut sender]) {
        let message = client.next("broadcast").await;
        assert_eq!(
            (&message["event"], &message["payload"]),
            (&json!("cursor"), &json!({ "x": 1 }))
        );
    }
    clients[0].act(&json!({ "act": "send", "event": "old", "payload": { "y": 2 } })).await;
    assert_eq!(sender.next("broadcast").await["payload"], json!({ "y": 2 }));
    assert_eq!(clients[1].next("broadcast").await["event"], "old");
    assert_eq!(clients[0].heard("broadcast"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_to_those_who_can_read_them() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let mut old = stand.subscribed("realtime-2.15.6", &room(json!({}))).await;
    let mut new = stand.subscribed(NEWEST, &room(json!({}))).await;
    let mut sender = stand.subscribed(NEWEST, &room(json!({}))).await;
    sender.act(&json!({ "act": "send", "event": "raw", "bytes": [0, 255, 7] })).await;
    sender.act(&json!({ "act": "send", "event": "text", "payload": {} })).await;
    assert_eq!(new.next("bytes").await, json!({ "event": "raw", "bytes": [0, 255, 7] }));
    assert_eq!(old.next("broadcast").await["event"], "text");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_over_http_reaches_the_room() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let mut client = stand.subscribed(NEWEST, &room(json!({}))).await;
    let http = reqwest::Client::new();
    for path in ["/api/broadcast", "/realtime/v1/api/broadcast"] {
        let message = json!({ "topic": "room", "event": path, "payload": { "a": [1] } });
        let request = http.post(stand.walmill.url(path)).header("content-type", "application/json");
        let body = json!({ "messages": [message] }).to_string();
        let answer = request.body(body).send().await.expect("an answer");
        assert_eq!(answer.status(), 202);
        let message = client.next("broadcast").await;
        assert_eq!((&message["event"], &message["payload"]["a"]), (&json!(path), &json!([1])));
    }
    client.act(&json!({ "act": "post", "event": "single", "payload": { "b": 1 } })).await;
    assert_eq!(client.next("broadcast").await["payload"], json!({ "b": 1 }));
    let request = http.post(stand.walmill.url("/api/broadcast")).body("{}");
    assert_eq!(request.send().await.expect("an answer").status(), 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_synced_and_ends_with_the_connection() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let with_key = |key: &str| room(json!({ "presence": { "key": key } }));
    for version in ["realtime-2.11.15", NEWEST] {
        let mut ann = stand.subscribed(version, &with_key("ann")).await;
        assert_eq!(ann.next("sync").await, json!({}), "{version}");
        let mut bob = stand.subscribed(NEWEST, &with_key("bob")).await;
        ann.act(&json!({ "act": "track", "payload": { "mood": "ok" } })).await;
        assert_eq!(ann.next("track").await, "ok");
        let came = bob.next("came").await;
        assert_eq!((&came["key"], &came["newPresences"][0]["mood"]), (&json!("ann"), &json!("ok")));
        let mut late = stand.subscribed(NEWEST, &with_key("late")).await;
        assert_eq!(late.next("sync").await["ann"][0]["mood"], "ok");
        drop(ann);
        let went = bob.next("went").await;
        assert_eq!(
            (&went["key"], &went["leftPresences"][0]["mood"]),
            (&json!("ann"), &json!("ok"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_under_one_key_are_present_apart_and_one_may_say_that_it_is_gone() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    let with_key = |key: &str| room(json!({ "presence": { "key": key } }));
    for version in ["realtime-2.11.15", NEWEST] {
        let mut bob = stand.subscribed(NEWEST, &with_key("bob")).await;
        let mut phone = stand.subscribed(version, &with_key("ann")).await;
        let mut desk = stand.subscribed(version, &with_key("ann")).await;
        for (client, at) in [(&mut phone, "phone"), (&mut desk, "desk")] {
            client.act(&json!({ "act": "track", "payload": { "at": at } })).await;
            let came = bob.next("came").await;
            assert_eq!((&came["key"], &came["newPresences"][0]["at"]), (&json!("ann"), &json!(at)));
        }
        let mut late = stand.subscribed(NEWEST, &with_key("late")).await;
        let present = late.next("sync").await["ann"].clone();
        let at: Vec<_> = present.as_array().expect("metas").iter().map(|m| &m["at"]).collect();
        assert_eq!(at, ["phone", "desk"], "{version}");
        phone.act(&json!({ "act": "untrack" })).await;
        let went = bob.next("went").await;
        assert_eq!(
            (&went["key"], &went["leftPresences"][0]["at"]),
            (&json!("ann"), &json!("phone"))
        );
        assert_eq!(went["currentPresences"][0]["at"], "desk", "{version}");
    }
}
