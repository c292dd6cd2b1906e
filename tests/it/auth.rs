//! Who may: tokens, keys, JWTs and tickets, as clients use them over real sockets.

mod commands;
mod issuers;
mod region;
mod tls;

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio_tungstenite::tungstenite::Error;
use walmill::server::Config;
use walmill::server::auth::mint;

use crate::support::process::Walmill;
use crate::support::serving::Serving;
use crate::support::{cluster, connect, execute};

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// `[server.auth.jwt]` with a secret, and what else is to be in it.
fn jwt_config(more: &str) -> String {
    format!(
        "[auth.jwt]\nalgorithms = ['HS256']\nsecret = '{SECRET}'\nissuer = 'us'\n\
         audience = 'walmill'\n{more}\n"
    )
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn claims(more: Value) -> Map<String, Value> {
    let mut claims = json!({ "iss": "us", "aud": "walmill", "exp": now() + 600 });
    for (name, value) in more.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.as_object().expect("an object").clone()
}

fn token(more: Value) -> String {
    let config: Config = toml::from_str(&jwt_config("")).expect("a config");
    mint(&config.auth.jwt.expect("one"), &claims(more), None, None).expect("a token")
}

/// An API key and the lines that the config has of it.
pub fn key(name: &str, more: &str) -> (String, String) {
    let made = Command::new(env!("CARGO_BIN_EXE_walmill"))
        .args(["secret", "new", "--for", "api-key", "--json"])
        .output()
        .expect("run walmill");
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let hash = made["hash"].as_str().expect("a hash");
    let config = format!("[[auth.keys]]\nname = '{name}'\nhash = '{hash}'\n{more}\n");
    (made["secret"].as_str().expect("a key").to_owned(), config)
}

async fn ask(server: &Serving, method: Method, path: &str, token: Option<&str>) -> StatusCode {
    let request = Client::new().request(method, server.url(path));
    let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
    request.send().await.expect("an answer").status()
}

async fn page(server: &Serving, path: &str, token: &str) -> (StatusCode, Value) {
    let answer = Client::new().get(server.url(path)).bearer_auth(token).send().await;
    let answer = answer.expect("an answer");
    (answer.status(), serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_what_the_admin_api_asks_for() {
    let (reader, one) = key("reader", "role = 'read'");
    let (operator, two) = key("operator", "role = 'operate'");
    let (nobody, three) = key("nobody", "streams = ['posts']");
    let server = Serving::written(&format!(
        "token = 's3cret'\n{one}{two}{three}{}",
        jwt_config("role_claim = 'role'")
    ))
    .await;
    let admin = token(json!({ "role": "admin" }));
    let plain = token(json!({}));
    let cases = [
        (Method::GET, "/api/v1/status", [401, 403, 403, 200, 200, 200, 200]),
        (Method::GET, "/metrics", [401, 403, 403, 200, 200, 200, 200]),
        (Method::GET, "/api/v1/dlq", [401, 403, 403, 200, 200, 200, 200]),
        (Method::POST, "/api/v1/backfills/1/x", [401, 403, 403, 403, 404, 404, 404]),
        (Method::POST, "/api/v1/slot/recreate", [401, 403, 403, 403, 403, 409, 409]),
        (Method::POST, "/api/v1/unheard-of", [401, 403, 403, 403, 403, 404, 404]),
        (Method::GET, "/livez", [200; 7]),
        (Method::GET, "/console", [200; 7]),
    ];
    let who = [None, Some(&nobody), Some(&plain), Some(&reader), Some(&operator), Some(&admin)];
    for (method, path, expected) in cases {
        for (at, who) in who.iter().enumerate() {
            let status = ask(&server, method.clone(), path, who.map(String::as_str)).await;
            assert_eq!(status.as_u16(), expected[at], "{method} {path} {at}");
        }
        assert_eq!(
            ask(&server, method, path, Some("s3cret")).await.as_u16(),
            expected[6],
            "{path}"
        );
    }
    for wrong in ["", "S3cret", "wmk_x", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(ask(&server, Method::GET, "/v1/streams", Some(wrong)).await, 401, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_for_those_whom_the_config_names() {
    let (posts, one) = key("posts", "streams = ['po*']");
    let (none, two) = key("none", "");
    let rules = "[[auth.rules]]\nstreams = ['comments']\nallow = ['public']\n";
    let server = Serving::written(&format!(
        "{one}{two}{rules}{}",
        jwt_config("streams_claim = 'app.streams'")
    ))
    .await;
    let listed = token(json!({ "app": { "streams": ["posts"] } }));
    let plain = token(json!({}));
    for (who, expected) in [
        (&posts, [200, 200, 403]),
        (&none, [403, 200, 403]),
        (&listed, [200, 200, 403]),
        (&plain, [403, 200, 403]),
    ] {
        for (stream, expected) in ["posts", "comments", "nope"].into_iter().zip(expected) {
            let path = format!("/v1/streams/{stream}/events");
            assert_eq!(ask(&server, Method::GET, &path, Some(who)).await, expected, "{stream}");
        }
    }
    assert_eq!(ask(&server, Method::GET, "/v1/streams/comments/events", None).await, 200);
    assert_eq!(ask(&server, Method::GET, "/v1/streams/posts/events", None).await, 401);
    let names = async |who| {
        let (_, body) = page(&server, "/v1/streams", who).await;
        let streams = body["streams"].as_array().expect("a list").clone();
        streams.iter().map(|s| s["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&posts).await, ["comments", "posts"]);
    assert_eq!(names(&none).await, ["comments"]);
    let bearer = [("authorization", format!("Bearer {none}"))];
    let bearer: Vec<_> = bearer.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut client = server.try_connect("/v1/ws", &bearer).await.expect("connect");
    assert_eq!(client.subscribe(&["posts"], "latest").await["code"], "forbidden");
    assert_eq!(client.subscribe(&["comments"], "latest").await["type"], "subscribed");
}

#[tokio::test(flavor = "multi_thread")]
async fn supabases_clients_have_to_show_a_key_too() {
    let (key, lines) = key("one", "streams = ['*']");
    let server = Serving::written(&format!("{lines}[supabase]\nstreams = ['*']\n")).await;
    for start in ["/socket/websocket?vsn=1.0.0", "/realtime/v1/websocket?vsn=2.0.0"] {
        for wrong in ["", "&apikey=wrong"] {
            let refused = server.try_connect(&format!("{start}{wrong}"), &[]).await.err();
            let is_refused = matches!(refused, Some(Error::Http(answer)) if answer.status() == 401);
            assert!(is_refused, "{start}{wrong}");
        }
        assert!(server.try_connect(&format!("{start}&apikey={key}"), &[]).await.is_ok());
    }
    let path = "/realtime/v1/api/broadcast";
    assert_eq!(ask(&server, Method::POST, path, None).await, 401);
    assert_eq!(ask(&server, Method::POST, path, Some(&key)).await, 422);
}

fn row(tenant: u32, id: u32) -> Value {
    json!({
        "op": "insert", "key": { "id": id },
        "record": { "id": id, "tenant": tenant, "email": "a@b.example" }, "old_record": null,
    })
}

const TENANTS: &str = "[[auth.rules]]\nstreams = ['posts']\nrows = { tenant = 'app.tenant' }\n\
                       hidden = ['email']\n";

#[tokio::test(flavor = "multi_thread")]
async fn claims_limit_rows_and_rules_hide_columns_over_every_way_to_read() {
    let (key, lines) = key("seven", "streams = ['*']\nclaims = { app = { tenant = 7 } }");
    let server = Serving::written(&format!("{lines}{TENANTS}{}", jwt_config(""))).await;
    let moved = json!({
        "op": "update", "key": { "id": 5 }, "record": { "id": 5, "tenant": 7, "email": "n@ew" },
        "old_record": { "id": 5, "tenant": 8, "email": "o@ld" },
    });
    server.commit_rows("posts", &[row(7, 1), row(8, 2), row(9, 3), moved]);
    let both = token(json!({ "app": { "tenant": [7, "9"] } }));
    let events = async |who: &str, query: &str| {
        let (status, body) = page(&server, &format!("/v1/streams/posts/events{query}"), who).await;
        assert_eq!(status, 200, "{body}");
        let text = body.to_string();
        assert!(!text.contains('@') && !text.contains("\"tenant\":8"), "{text}");
        let ids = body["events"].as_array().expect("events").clone();
        ids.iter().map(|event| event["data"]["record"]["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(events(&key, "").await, [1, 5]);
    assert_eq!(events(&both, "").await, [1, 3, 5]);
    assert_eq!(events(&both, "?filter=tenant=eq.9").await, [3]);
    assert_eq!(events(&both, "?filter=tenant=eq.8").await, [0; 0]);
    assert_eq!(events(&both, "?filter=tenant=eq.8&filter=id=gt.1").await, [3, 5]);
    for (who, filter, expected) in [
        (&both, "?filter=email=like.a%25", 400),
        (&token(json!({})), "", 403),
        (&token(json!({ "app": { "tenant": { "x": 1 } } })), "", 403),
        (&token(json!({ "app.tenant": 7 })), "", 200),
    ] {
        let path = format!("/v1/streams/posts/events{filter}");
        assert_eq!(ask(&server, Method::GET, &path, Some(who)).await, expected, "{filter}");
    }

    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str())];
    let mut socket = server.try_connect("/v1/ws", &headers).await.expect("connect");
    socket.subscribe(&["posts"], "earliest").await;
    for expected in [1, 5] {
        let event = socket.next().await;
        assert_eq!(event["event"]["data"]["record"], json!({ "id": expected, "tenant": 7 }));
    }
    let path = "/v1/streams/posts/sse?last_event_id=earliest";
    let mut sse = Client::new().get(server.url(path)).bearer_auth(&key).send().await.expect("it");
    server.commit_rows("posts", &[row(8, 6), row(7, 7)]);
    assert_eq!(socket.next().await["event"]["data"]["record"], json!({ "id": 7, "tenant": 7 }));
    let mut text = String::new();
    while !text.contains("\"id\":7,") {
        let chunk = sse.chunk().await.expect("a chunk").expect("more");
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
    assert!(!text.contains('@') && !text.contains("\"tenant\":8"), "{text}");
    // Another's cursor is a place, and no right.
    let path = format!("/v1/streams/posts/events?after={}", server.cursor(1, 0));
    assert_eq!(page(&server, &path, &key).await.1["events"].as_array().expect("events").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_lets_a_browser_in_once() {
    let server = Serving::written(&format!("token = 's3cret'\n{}", jwt_config(""))).await;
    let ticket = async |token: &str| {
        let request = Client::new().post(server.url("/v1/tickets")).bearer_auth(token);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        let body: Value = serde_json::from_slice(&answer.bytes().await.expect("it")).expect("JSON");
        assert_eq!(body["expires_in"], 30);
        body["ticket"].as_str().expect("a ticket").to_owned()
    };
    assert_eq!(ask(&server, Method::POST, "/v1/tickets", None).await, 401);
    assert_eq!(ask(&server, Method::POST, "/v1/tickets", Some("wrong")).await, 401);
    let path = format!("/v1/ws?ticket={}", ticket("s3cret").await);
    server.try_connect(&path, &[]).await.expect("connect");
    let again = server.try_connect(&path, &[]).await.err().expect("no second time");
    assert!(matches!(again, Error::Http(response) if response.status() == 401));
    let path = format!("/v1/streams/posts/sse?ticket={}", ticket("s3cret").await);
    assert_eq!(server.get(&format!("{path}x")).await.0, 401);
    let answer = reqwest::get(server.url(&path)).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    // Who saw one in an address cannot live on it.
    let path = format!("/v1/tickets?ticket={}", ticket("s3cret").await);
    let answer = Client::new().post(server.url(&path)).send().await.expect("an answer");
    assert_eq!(answer.status(), 403);
    let said: Value = serde_json::from_slice(&answer.bytes().await.expect("it")).expect("JSON");
    assert_eq!(said["code"], "ticket-for-ticket");
    // What a ticket stands for is no more than what it was given for.
    let path = format!("/v1/streams/posts/events?ticket={}", ticket(&token(json!({}))).await);
    assert_eq!(server.get(&path).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_token_expires_its_connections_end_with_the_cursor_to_go_on_from() {
    let rule = "[[auth.rules]]\nstreams = ['*']\n";
    let server = Serving::written(&format!("{rule}{}", jwt_config("leeway = '1ms'"))).await;
    server.commit("posts", 2);
    let short = token(json!({ "exp": now() + 3 }));
    let authorization = format!("Bearer {short}");
    let headers = [("authorization", authorization.as_str())];
    let mut socket = server.try_connect("/v1/ws", &headers).await.expect("connect");
    socket.subscribe(&["posts"], "earliest").await;
    socket.ids(2).await;
    let path = "/v1/streams/posts/sse?last_event_id=earliest";
    let sse = Client::new().get(server.url(path)).bearer_auth(&short).send().await.expect("it");
    let (messages, close) = socket.rest().await;
    assert_eq!(messages.last().expect("a last word")["code"], "expired");
    assert_eq!(close, Some((4401, server.cursor(1, 1))));
    let text = sse.text().await.expect("it ends");
    assert!(text.contains("event: closing\ndata: {\"code\":\"expired\""), "{text}");
    let answer = page(&server, "/v1/streams", &short).await;
    assert_eq!(answer.0, 401);
    assert_eq!(answer.1["message"], "the token has expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_listed_origin_may_ask_for_what_each_address_knows() {
    let server = Serving::written("token = 's3cret'\norigins = ['https://app.example']").await;
    let preflight = async |path: &str, origin: &str| {
        let request = Client::new().request(Method::OPTIONS, server.url(path));
        let request =
            request.header("origin", origin).header("access-control-request-method", "POST");
        request.send().await.expect("an answer")
    };
    for (path, methods) in [
        ("/v1/streams", "GET,HEAD"),
        ("/v1/tickets", "POST"),
        ("/api/v1/backfills", "GET,HEAD,POST"),
        ("/v1/streams/posts/sse", "GET,HEAD"),
    ] {
        let answer = preflight(path, "https://app.example").await;
        assert_eq!(answer.status(), 204, "{path}");
        let headers = answer.headers();
        assert_eq!(headers["access-control-allow-methods"], methods, "{path}");
        assert_eq!(headers["access-control-allow-origin"], "https://app.example");
        let allowed = headers["access-control-allow-headers"].to_str().expect("text");
        assert!(allowed.contains("authorization") && allowed.contains("content-type"));
    }
    assert_eq!(preflight("/nope", "https://app.example").await.status(), 404);
    assert_eq!(preflight("/v1/tickets", "https://evil.example").await.status(), 403);
    // A page that is not listed changes nothing, whatever it sends along.
    let request = Client::new().post(server.url("/v1/tickets")).bearer_auth("s3cret");
    let answer = request.header("origin", "https://evil.example").send().await.expect("an answer");
    assert_eq!(answer.status(), 403);
}

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.orders"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"
token = "the-master-s3cret"

AUTH

[[server.auth.rules]]
streams = ["orders"]

[[pipeline]]
name = "orders"
tables = ["public.orders"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn no_token_of_any_kind_is_ever_in_the_log() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE orders (id int PRIMARY KEY)").await;
    let (key, lines) = key("one", "streams = ['*']");
    let auth = format!("{lines}{}", jwt_config("")).replace("[auth", "[server.auth");
    let auth = auth.replace("[[auth", "[[server.auth");
    let mut walmill = Walmill::prepare(&CONFIG.replace("AUTH", &auth), &cluster.url());
    walmill.launch_in(&[("WALMILL_LOG", "trace")]);
    walmill.ready().await;
    let jwt = token(json!({}));
    let request = Client::new().post(walmill.url("/v1/tickets")).bearer_auth(&jwt);
    let body = request.send().await.expect("an answer").bytes().await.expect("a body");
    let ticket: Value = serde_json::from_slice(&body).expect("JSON");
    let ticket = ticket["ticket"].as_str().expect("a ticket");
    let wrong = "wmk_this-is-nobodys-key";
    for (name, secret) in [
        ("token", "the-master-s3cret"),
        ("token", key.as_str()),
        ("token", jwt.as_str()),
        ("ticket", ticket),
        ("token", wrong),
    ] {
        let url = walmill.url(&format!("/v1/streams/orders/events?{name}={secret}"));
        let _ = reqwest::get(url).await.expect("an answer");
        let _ = Client::new().get(walmill.url("/v1/streams")).bearer_auth(secret).send().await;
        let url = format!("ws://127.0.0.1:{}/v1/ws?{name}={secret}", walmill.port());
        let _ = tokio_tungstenite::connect_async(url).await;
    }
    walmill.signal(rustix::process::Signal::TERM);
    crate::support::until("walmill ends", || is_gone(&walmill)).await;
    let log = walmill.log();
    assert!(log.len() > 10_000, "it logs everything");
    for secret in ["the-master-s3cret", &key, &jwt, ticket, wrong, SECRET] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

/// Whether nobody listens there any more.
fn is_gone(walmill: &Walmill) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", walmill.port())).is_err()
}
