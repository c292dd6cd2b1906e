//! Who a client is, and what it gets for that: rows, columns, private rooms, and for how long.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;
use walmill::server::auth::mint;

use super::client::Client;
use super::frames::{Wire, refused};
use super::{CONFIG, NEWEST, Stand, client};
use crate::auth::key;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const AUTH: &str = "
[server.auth.jwt]
algorithms = ['HS256']
secret = '0123456789abcdef0123456789abcdef'
issuer = 'us'
audience = 'walmill'
leeway = '1ms'

[[server.auth.rules]]
streams = ['all']
rows = { tenant = 'tenant' }
hidden = ['secret']
";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A token of somebody with these claims.
fn token(more: Value) -> String {
    signed(SECRET, more)
}

fn signed(secret: &str, more: Value) -> String {
    let mut claims = json!({ "iss": "us", "aud": "walmill", "exp": now() + 600, "role": "anon" });
    claims.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
    let text = AUTH.replace(SECRET, secret).replace("server.auth", "auth");
    let config: walmill::server::Config = toml::from_str(&text).expect("a config");
    let claims = claims.as_object().expect("an object");
    mint(&config.auth.jwt.expect("one"), claims, None, None).expect("a token")
}

fn of(tenant: &str) -> String {
    token(json!({ "tenant": tenant }))
}

async fn stand() -> Stand {
    Stand::with(&format!("{CONFIG}{AUTH}")).await
}

/// What a client subscribes to as somebody.
fn spec(token: &str, bindings: Value) -> Value {
    json!({ "apikey": token, "presence": false, "bindings": bindings })
}

fn everything() -> Value {
    json!([{ "event": "*", "schema": "public" }])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_the_rows_and_columns_that_its_claims_let_it_see() {
    if client::skipped() {
        return;
    }
    let stand = stand().await;
    let mut theirs = Vec::new();
    for version in ["realtime-2.11.15", "realtime-2.15.6", NEWEST, "supabase-2"] {
        theirs.push(stand.subscribed(version, &spec(&of("a"), everything())).await);
    }
    let mut other = stand.subscribed(NEWEST, &spec(&of("b"), everything())).await;
    let first = json!({ "apikey": of("a"), "token": of("a"), "topics": ["realtime:public:notes"] });
    let mut first = Client::start("realtime-1.7.5", &stand.walmill.url("/socket"), &first);
    first.next("joined").await;
    stand
        .sql(
            "insert into notes values (1, 'b', 'x', 's'), (2, 'a', 'y', 's'), (3, null, 'z', 's');
             update notes set tenant = 'a' where id = 1; delete from notes where id = 2;
             insert into whole_notes values (4, 'b', 'x', 's'), (5, 'a', 'y', 's');
             delete from whole_notes where id in (4, 5)",
        )
        .await;
    let row = |id: u32, text: &str| json!({ "id": id, "tenant": "a", "text": text });
    for client in &mut theirs {
        for (kind, new, old) in [
            ("INSERT", row(2, "y"), json!({})),
            ("UPDATE", row(1, "x"), json!({ "id": 1 })),
            // That 2 is gone cannot be told: its key alone does not say whose it was.
            ("INSERT", row(5, "y"), json!({})),
            ("DELETE", json!({}), row(5, "y")),
        ] {
            let change = client.next("change").await;
            assert_eq!((&change["eventType"], &change["new"]), (&json!(kind), &new));
            assert_eq!(change["old"], old);
        }
    }
    for (kind, id) in [("INSERT", 1), ("INSERT", 4), ("DELETE", 4)] {
        let change = other.next("change").await;
        let row = if kind == "DELETE" { &change["old"] } else { &change["new"] };
        assert_eq!((&change["eventType"], &row["id"]), (&json!(kind), &json!(id)));
    }
    assert_eq!(first.next("change").await["record"]["id"], "2");
    assert_eq!(first.next("change").await["record"]["id"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_narrows_what_the_claims_let_through_and_cannot_ask_about_hidden_columns() {
    if client::skipped() {
        return;
    }
    let stand = stand().await;
    let on = |filter: &str| json!([{ "event": "*", "schema": "public", "filter": filter }]);
    let filter = "or=(text.eq.x,id.gt.2)";
    let mut narrow = stand.subscribed(NEWEST, &spec(&of("a"), on(filter))).await;
    let mut nosy = stand.subscribed(NEWEST, &spec(&of("a"), on("secret=eq.s"))).await;
    let system = nosy.next("system").await;
    assert_eq!(system["status"], "error");
    assert!(system["message"].as_str().is_some_and(|m| m.contains("no column `secret`")));
    stand
        .sql(
            "insert into notes values (1, 'a', 'y', 's'), (2, 'a', 'x', 's'), (3, 'b', 'x', 's'),
                                      (4, 'a', 'y', 's'); truncate notes",
        )
        .await;
    assert_eq!(narrow.next("change").await["new"]["id"], 2);
    assert_eq!(narrow.next("change").await["new"]["id"], 4);
    // What is about all rows is for everyone, so it is the first thing that the other hears.
    assert_eq!(nosy.next("change").await["eventType"], "TRUNCATE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_decides_which_rows_a_client_sees() {
    if client::skipped() {
        return;
    }
    let folder = crate::support::folder();
    let path = folder.path().join("region.wasm");
    let text = include_str!("../auth/region.wat").replace("AGAIN", "0");
    std::fs::write(&path, wat::parse_str(text).expect("valid text")).expect("write");
    let (north, line) = key("north", "streams = ['*']\nclaims = { r = 'n' }");
    let config = format!(
        "{CONFIG}\n[plugins.region]\npath = {path:?}\n\n{}\n[[server.auth.rules]]\n\
         streams = ['*']\nauthorizer = 'region'\n",
        line.replace("[[auth", "[[server.auth")
    );
    let stand = Stand::with(&config).await;
    let mut client = stand.subscribed(NEWEST, &spec(&north, everything())).await;
    stand.sql("insert into places values (1, 's', 'a@b'), (2, 'n', 'a@b')").await;
    assert_eq!(client.next("change").await["new"], json!({ "id": 2, "region": "n" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_brings_other_rows_and_a_bad_one_ends_the_channel() {
    if client::skipped() {
        return;
    }
    let stand = stand().await;
    for version in ["realtime-2.15.6", NEWEST, "supabase-2"] {
        stand.sql("delete from notes").await;
        let mut wanted = spec(&of("anon"), everything());
        wanted["token"] = of("a").into();
        let mut client = stand.subscribed(version, &wanted).await;
        client.next("system").await;
        stand.sql("insert into notes values (1, 'a'), (2, 'b')").await;
        assert_eq!(client.next("change").await["new"]["id"], 1, "{version}");
        client.act(&json!({ "act": "setAuth", "token": of("b") })).await;
        // Nothing answers a new token. Until it is there rows of `b` are not shown.
        let mut id = 10;
        while client.heard("change") == 0 {
            id += 1;
            stand.sql(&format!("insert into notes values ({id}, 'b')")).await;
            client.listen().await;
        }
        client
            .act(&json!({ "act": "setAuth", "token": signed("f".repeat(32).as_str(), json!({})) }))
            .await;
        let system = client.next("system").await;
        assert_eq!((&system["extension"], &system["status"]), (&json!("system"), &json!("error")));
        let message = system["message"].as_str().expect("a message");
        assert!(message.starts_with("JwtSignatureError"), "{message}");
        assert_eq!(client.next("status").await, "CLOSED", "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_ends_when_its_token_does() {
    if client::skipped() {
        return;
    }
    let stand = stand().await;
    let mut wanted = spec(&of("anon"), everything());
    wanted["token"] = token(json!({ "tenant": "a", "exp": now() + 3 })).into();
    let mut client = stand.subscribed(NEWEST, &wanted).await;
    assert_eq!(client.next("system").await["status"], "ok");
    let system = client.next("system").await;
    assert_eq!((&system["extension"], &system["status"]), (&json!("system"), &json!("error")));
    assert_eq!(system["message"], "Token has expired");
    assert_eq!(client.next("status").await, "CLOSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_nothing_good_is_refused_at_the_door_and_at_each_join() {
    let stand = stand().await;
    let old = token(json!({ "exp": 1000 }));
    for query in ["", "&apikey=wrong", &format!("&apikey={old}")] {
        let path = format!("/realtime/v1/websocket?vsn=2.0.0{query}");
        let url = stand.walmill.url(&path).replace("http:", "ws:");
        match tokio_tungstenite::connect_async(url).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), 401, "{query}"),
            other => panic!("{other:?}"),
        }
    }
    let mut wire = Wire::open(&stand, &format!("?apikey={}", of("a"))).await;
    for (token, reason) in [
        ("no.such.token", "MalformedJWT: this is no JSON Web Token"),
        ("plain", "MalformedJWT: this is no token and no key that this walmill knows"),
        (&signed(&"f".repeat(32), json!({})), "JwtSignatureError: the token's signature is wrong"),
        (&old, "InvalidJWTToken: the token has expired"),
        (&token(json!({ "exp": null })), "InvalidJWTToken: the token has no proper `exp`"),
        (&token(json!({ "iss": "them" })), "Unauthorized: the token is from another issuer"),
    ] {
        wire.join("realtime:a", json!({ "config": {}, "access_token": token })).await;
        assert_eq!(wire.next().await, refused("realtime:a", "1", reason));
    }
    // Keys that are no tokens say nothing new, and so does a line end within one.
    let mut broken = of("a");
    broken.insert(20, '\n');
    for token in ["sb_publishable_x", &broken] {
        wire.join("realtime:b", json!({ "access_token": token })).await;
        let mut frame = wire.next().await;
        if frame["event"] == "phx_close" {
            frame = wire.next().await;
        }
        assert_eq!(frame["payload"]["status"], "ok", "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_room_is_for_those_whose_claims_name_it() {
    if client::skipped() {
        return;
    }
    let config = AUTH.replace("[[server", "streams_claim = 'rooms'\n[[server");
    let stand = Stand::with(&format!("{CONFIG}{config}")).await;
    let of = |rooms: &[&str]| token(json!({ "rooms": rooms }));
    let room = |token: &str| {
        json!({ "apikey": token, "name": "team-1", "presence": false,
                "options": { "config": { "private": true, "broadcast": { "self": true } } } })
    };
    let mine = of(&["realtime:team-*"]);
    let mut inside = stand.subscribed(NEWEST, &room(&mine)).await;
    let url = stand.walmill.url("/realtime/v1");
    let mut outside = Client::start(NEWEST, &url, &room(&of(&["realtime:other", "all"])));
    let error = outside.next("error").await;
    let error = error.as_str().expect("a text");
    assert!(error.contains("Unauthorized: You do not have permissions"), "{error}");
    outside.act(&json!({ "act": "post", "event": "e", "payload": {} })).await;
    outside.next("error").await;
    inside.act(&json!({ "act": "post", "event": "e", "payload": { "n": 1 } })).await;
    assert_eq!(inside.next("broadcast").await["payload"], json!({ "n": 1 }));
    let batch = async |who: &str| {
        let message = json!({ "topic": "team-1", "event": "e", "payload": 2, "private": true });
        let request = reqwest::Client::new().post(stand.walmill.url("/api/broadcast"));
        let request = request.header("apikey", who).header("content-type", "application/json");
        let body = json!({ "messages": [message] }).to_string();
        request.body(body).send().await.expect("an answer").status()
    };
    assert_eq!(batch(&of(&["realtime:other"])).await, 403);
    assert_eq!(batch(&mine).await, 202);
    assert_eq!(inside.next("broadcast").await["payload"], 2);
    // A token that does not name it any more ends it.
    inside.act(&json!({ "act": "setAuth", "token": of(&[]) })).await;
    assert_eq!(inside.next("status").await, "CLOSED");
}
