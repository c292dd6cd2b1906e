//! A plugin decides what each reader may see.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use walmill::metrics::Metrics;
use walmill::plugin::{self, Authorizer, Engine, Registry};
use walmill::server::Config;
use walmill::store;

use super::{ask, key, page};
use crate::support::serving::{Authorizers, Serving};

const RULE: &str = "[[auth.rules]]\nstreams = ['posts']\nauthorizer = 'region'\n";

/// The plugin, which wants to be asked again after so many seconds.
fn guest(again: u32) -> Vec<u8> {
    let text = include_str!("region.wat").replace("AGAIN", &again.to_string());
    wat::parse_str(text).expect("valid text")
}

fn open(path: &Path) -> (Registry, Authorizers) {
    let config: plugin::Config =
        toml::from_str(&format!("path = {:?}", path.display())).expect("a config");
    let configs = BTreeMap::from([("region".to_owned(), config)]);
    let engine = Engine::new(None).expect("an engine");
    let registry = Registry::open(&engine, configs, Arc::new(Metrics::new()));
    let registry = registry.unwrap_or_else(|errors| panic!("{errors:?}"));
    let authorizer = Authorizer::new(&registry, "region").expect("an authorizer");
    (registry, BTreeMap::from([("region".to_owned(), Arc::new(authorizer) as Arc<_>)]))
}

fn row(id: u32, region: &str) -> Value {
    let record = json!({ "id": id, "region": region, "email": "a@b.example" });
    json!({ "op": "insert", "key": { "id": id }, "record": record, "old_record": null })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorizer_says_which_rows_and_columns_a_reader_sees() {
    let folder = crate::support::folder();
    let path = folder.path().join("region.wasm");
    std::fs::write(&path, guest(0)).expect("write");
    let (_registry, authorizers) = open(&path);
    let (north, one) = key("north", "streams = ['*']\nclaims = { r = 'n' }");
    let (south, two) = key("south", "streams = ['*']\nclaims = { r = 's' }");
    let (nowhere, three) = key("nowhere", "streams = ['*']");
    let config: Config = toml::from_str(&format!("{one}{two}{three}{RULE}")).expect("a config");
    let server = Serving::authorized(config, store::Config::default(), authorizers).await;
    server.commit_rows("posts", &[row(1, "n"), row(2, "s"), row(3, "x"), row(4, "n")]);
    for (who, expected) in [(&north, vec![1, 4]), (&south, vec![2])] {
        let (status, body) = page(&server, "/v1/streams/posts/events", who).await;
        assert_eq!(status, 200, "{body}");
        assert!(!body.to_string().contains('@'), "{body}");
        let ids = body["events"].as_array().expect("events").iter();
        let ids: Vec<u64> = ids.map(|e| e["data"]["record"]["id"].as_u64().unwrap()).collect();
        assert_eq!(ids, expected);
    }
    let path = "/v1/streams/posts/events";
    assert_eq!(ask(&server, reqwest::Method::GET, path, Some(&nowhere)).await, 403);
    let (_, finding) = page(&server, path, &nowhere).await;
    assert_eq!(finding["message"], "no region");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stays_the_same_is_no_interruption_and_another_one_ends_the_connection() {
    let folder = crate::support::folder();
    let path = folder.path().join("region.wasm");
    std::fs::write(&path, guest(1)).expect("write");
    let (registry, authorizers) = open(&path);
    let (north, lines) = key("north", "streams = ['*']\nclaims = { r = 'n' }");
    let config: Config = toml::from_str(&format!("{lines}{RULE}")).expect("a config");
    let server = Serving::authorized(config, store::Config::default(), authorizers).await;
    let authorization = format!("Bearer {north}");
    let headers = [("authorization", authorization.as_str())];
    let mut client = server.try_connect("/v1/ws", &headers).await.expect("connect");
    assert_eq!(client.subscribe(&["posts"], "latest").await["type"], "subscribed");
    // Another version that answers the same.
    registry.offer("region", guest(2)).expect("a plugin");
    server.commit_rows("posts", &[row(1, "n")]);
    assert_eq!(client.next().await["event"]["data"]["record"]["id"], 1);
    // And one that grants something else.
    let text = include_str!("region.wat").replace("AGAIN", "0").replace("offset=6", "offset=2");
    registry.offer("region", wat::parse_str(text).expect("valid text")).expect("a plugin");
    let (messages, close) = client.rest().await;
    assert_eq!(messages.last().expect("a last word")["code"], "access-changed");
    assert_eq!(close.expect("a close frame").0, 4403);
}

/// The plugin with the reader's own parameters as its reason where there is no region.
fn telling() -> Vec<u8> {
    let text = include_str!("region.wat").replace("AGAIN", "0");
    let reason =
        "(i32.store (i32.const 1284) (i32.const 523)) (i32.store (i32.const 1288) (i32.const 9))";
    let params =
        "(i32.store (i32.const 1284) (local.get 4)) (i32.store (i32.const 1288) (local.get 5))";
    assert!(text.contains(reason));
    wat::parse_str(text.replace(reason, params)).expect("valid text")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorizer_is_told_what_a_reader_asks_for() {
    let folder = crate::support::folder();
    let path = folder.path().join("region.wasm");
    std::fs::write(&path, telling()).expect("write");
    let (_registry, authorizers) = open(&path);
    let (nowhere, lines) = key("nowhere", "streams = ['*']");
    let config: Config = toml::from_str(&format!("{lines}{RULE}")).expect("a config");
    let server = Serving::authorized(config, store::Config::default(), authorizers).await;
    server.commit_rows("posts", &[row(1, "n")]);
    for (path, told) in [
        ("/v1/streams/posts/events", json!({ "from": "earliest", "filter": [] })),
        (
            "/v1/streams/posts/events?after=2026-11-25&filter=id=eq.1,id=lt.5&filter=id=eq.7",
            json!({ "from": "2026-11-25", "filter": ["id=eq.1,id=lt.5", "id=eq.7"] }),
        ),
        ("/v1/streams/posts/sse", json!({ "from": "latest", "filter": [] })),
        (
            "/v1/streams/posts/sse?last_event_id=earliest&filter=id=eq.1",
            json!({ "from": "earliest", "filter": ["id=eq.1"] }),
        ),
    ] {
        let (status, finding) = page(&server, path, &nowhere).await;
        assert_eq!(status, 403, "{path}");
        let message = finding["message"].as_str().expect("a reason");
        assert_eq!(serde_json::from_str::<Value>(message).expect("JSON"), told, "{path}");
    }
    let authorization = format!("Bearer {nowhere}");
    let headers = [("authorization", authorization.as_str())];
    let mut client = server.try_connect("/v1/ws", &headers).await.expect("connect");
    for (from, told) in [(json!("earliest"), "earliest"), (json!({ "posts": "0/8/0" }), "0/8/0")] {
        let refused = client.subscribe(&["posts"], from).await;
        let message = refused["message"].as_str().expect("a reason");
        let told = json!({ "from": told, "filter": [] });
        assert_eq!(serde_json::from_str::<Value>(message).expect("JSON"), told, "{refused}");
    }
}
