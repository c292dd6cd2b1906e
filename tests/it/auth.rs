//! Who may: tokens, keys, JWTs and tickets, as clients use them over real sockets.

mod region;
mod tls;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::routing::get;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Error;
use walmill::server::Config;
use walmill::server::auth::{Refused, Verifier, mint};

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

const KEYS: &str = r"set -e
for kind in 'RSA rsa -pkeyopt rsa_keygen_bits:2048' 'EC p256 -pkeyopt ec_paramgen_curve:P-256' \
    'EC p384 -pkeyopt ec_paramgen_curve:P-384' 'ED25519 ed' 'RSA rsa2 -pkeyopt rsa_keygen_bits:2048'; do
    set -- $kind
    algorithm=$1; name=$2; shift 2
    openssl genpkey -algorithm $algorithm $* -out $name.key
    openssl pkey -in $name.key -pubout -out $name.pub
done";

/// Keys of each kind, made by openssl.
fn keys() -> Option<TempDir> {
    let folder = crate::support::folder();
    let made = Command::new("sh").args(["-c", KEYS]).current_dir(&folder).output().ok()?;
    if !made.status.success() {
        eprintln!("skipped: there is no openssl here: {}", made.stderr.escape_ascii());
        return None;
    }
    Some(folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_algorithm_is_taken_with_its_own_key_and_with_no_other() {
    let Some(folder) = keys() else { return };
    let file = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
    let config = |algorithm: &str, key: &str| {
        let public = file(&format!("{key}.pub"));
        let text = format!(
            "[auth.jwt]\nalgorithms = ['{algorithm}']\npublic_key = '''{public}'''\n\
             issuer = 'us'\naudience = 'walmill'"
        );
        toml::from_str::<Config>(&text).expect(algorithm).auth.jwt.expect("one")
    };
    let kinds = [
        ("RS256", "rsa"),
        ("RS384", "rsa"),
        ("RS512", "rsa"),
        ("PS256", "rsa"),
        ("PS384", "rsa"),
        ("PS512", "rsa"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("EdDSA", "ed"),
    ];
    let verifiers: Vec<_> =
        kinds.iter().map(|(algorithm, key)| Verifier::new(config(algorithm, key))).collect();
    for (algorithm, key) in kinds {
        let private = file(&format!("{key}.key"));
        let claims = claims(json!({}));
        let token = mint(&config(algorithm, key), &claims, Some(private.as_bytes()), None);
        let token = token.expect(algorithm);
        for ((other, _), verifier) in kinds.iter().zip(&verifiers) {
            let taken = verifier.verify(&token).await.map(|_| ());
            let expected = if *other == algorithm { Ok(()) } else { Err(Refused::Algorithm) };
            assert_eq!(taken, expected, "{algorithm} by {other}");
        }
    }
    // The old trick: a token signed with the public key as if it were a shared secret.
    let secret = file("rsa.pub");
    let text = format!(
        "[auth.jwt]\nalgorithms = ['HS256']\nsecret = '''{secret}'''\nissuer = 'us'\n\
         audience = 'walmill'"
    );
    let confused = toml::from_str::<Config>(&text).expect("a config").auth.jwt.expect("one");
    let token = mint(&confused, &claims(json!({})), None, None).expect("a token");
    assert_eq!(verifiers[0].verify(&token).await, Err(Refused::Algorithm));
    let stranger =
        mint(&config("RS256", "rsa"), &claims(json!({})), Some(file("rsa2.key").as_bytes()), None);
    assert_eq!(verifiers[0].verify(&stranger.expect("a token")).await, Err(Refused::Signature));
}

/// A set of these public keys, each under its own name.
fn key_set(folder: &TempDir, names: &[&str]) -> String {
    use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
    let jwk = |name: &&str| {
        let pem = std::fs::read(folder.path().join(format!("{name}.key"))).expect("a key");
        let key = EncodingKey::from_rsa_pem(&pem).expect("an RSA key");
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).expect("its public half");
        jwk.common.key_id = Some((*name).to_owned());
        jwk
    };
    json!({ "keys": names.iter().map(jwk).collect::<Vec<_>>() }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuers_keys_are_fetched_kept_and_fetched_anew_when_they_are_replaced() {
    let Some(folder) = keys() else { return };
    let published = Arc::new(std::sync::Mutex::new(key_set(&folder, &["rsa"])));
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = {
        let (published, asked) = (Arc::clone(&published), Arc::clone(&asked));
        move || {
            asked.fetch_add(1, Ordering::Relaxed);
            let keys = published.lock().expect("not poisoned").clone();
            async move { keys }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let router = Router::new().route("/keys", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config: Config = toml::from_str(&format!(
        "[auth.jwt]\nalgorithms = ['RS256']\njwks_url = 'http://{address}/keys'\nissuer = 'us'\n\
         audience = 'walmill'"
    ))
    .expect("a config");
    let jwt = config.auth.jwt.expect("one");
    let signed = |key: &str, kid: &str| {
        let pem = std::fs::read(folder.path().join(format!("{key}.key"))).expect("a key");
        mint(&jwt, &claims(json!({})), Some(&pem), Some(kid.to_owned())).expect("a token")
    };
    let verifier = Verifier::new(jwt.clone());
    let verify = async |token: &str| verifier.verify(token).await.map(|_| ());
    for _ in 0..5 {
        assert_eq!(verify(&signed("rsa", "rsa")).await, Ok(()));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "keys are kept");
    assert_eq!(verify(&signed("rsa2", "rsa")).await, Err(Refused::Signature));
    *published.lock().expect("not poisoned") = key_set(&folder, &["rsa2"]);
    assert_eq!(verify(&signed("rsa2", "rsa2")).await, Ok(()));
    assert_eq!(verify(&signed("rsa", "rsa")).await, Err(Refused::UnknownKey));
    for kid in 0..50 {
        let token = signed("rsa2", &kid.to_string());
        assert_eq!(verify(&token).await, Err(Refused::UnknownKey));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3, "questions out of turn are few");
    *published.lock().expect("not poisoned") = "<html>".to_owned();
    assert_eq!(verify(&signed("rsa2", "rsa2")).await, Ok(()), "the old keys stay");
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

#[test]
fn tokens_are_made_and_looked_at_by_command() {
    let folder = crate::support::folder();
    let auth = jwt_config("").replace("[auth", "[server.auth");
    let config = CONFIG.replace("AUTH", &auth).replace("DATABASE", "postgres://u@h/d");
    std::fs::write(folder.path().join("walmill.toml"), config.replace("PORT", "4000")).expect("it");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walmill"));
        command.args(arguments).current_dir(folder.path()).output().expect("run walmill")
    };
    let minted = run(&["token", "mint", "--claim", "tenant=7", "--claim", "name=ada"]);
    assert!(minted.status.success(), "{minted:?}");
    let token = String::from_utf8(minted.stdout).expect("text");
    let seen = run(&["token", "inspect", token.trim()]);
    let answer: Value = serde_json::from_slice(&seen.stdout).expect("JSON");
    assert_eq!(answer["taken"], true, "{answer}");
    assert_eq!(
        (&answer["claims"]["tenant"], &answer["claims"]["name"]),
        (&json!(7), &json!("ada"))
    );
    let other = format!("{}x", token.trim());
    let seen = run(&["token", "inspect", &other]);
    assert_eq!(seen.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&seen.stderr).contains("signature is wrong"), "{seen:?}");
    assert_eq!(run(&["token", "inspect", "nonsense"]).status.code(), Some(2));
    let late = run(&["token", "mint", "--claim", "exp=1"]);
    let late = String::from_utf8(late.stdout).expect("text");
    let seen = run(&["token", "inspect", late.trim()]);
    assert!(String::from_utf8_lossy(&seen.stderr).contains("expired"), "{seen:?}");
}
