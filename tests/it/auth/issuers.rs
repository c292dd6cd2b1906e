//! Whose signature counts: each algorithm with its own key, and an issuer's keys as they are now.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use serde_json::json;
use tempfile::TempDir;
use walmill::server::Config;
use walmill::server::auth::{Refused, Verifier, mint};

use super::claims;

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
