use serde_json::json;

use super::super::mint;
use super::*;

fn config(more: &str) -> Result<Jwt, String> {
    let text = format!("issuer = 'https://issuer.example'\naudience = 'walmill'\n{more}");
    toml::from_str::<Jwt>(&text).map_err(|error| error.message().to_owned())
}

const SECRET: &str = "algorithms = ['HS256']\nsecret = '0123456789abcdef0123456789abcdef'";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims(change: Value) -> Map<String, Value> {
    let mut claims = json!({
        "iss": "https://issuer.example", "aud": "walmill", "exp": now() + 60, "sub": "ada",
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let mut claims = claims.as_object().unwrap().clone();
    claims.retain(|_, value| !value.is_null());
    claims
}

#[tokio::test]
async fn claims_decide_whether_a_signed_token_is_taken() {
    let jwt = config(SECRET).unwrap();
    let verifier = Verifier::new(jwt.clone());
    let late = now() - 40;
    let early = now() + 40;
    for (change, expected) in [
        (json!({}), Ok(())),
        (json!({ "exp": now() - 20 }), Ok(())),
        (json!({ "exp": late }), Err(Refused::Expired)),
        (json!({ "exp": null }), Err(Refused::Claim("exp"))),
        (json!({ "exp": "9999999999" }), Err(Refused::Claim("exp"))),
        (json!({ "exp": -1 }), Err(Refused::Claim("exp"))),
        (json!({ "exp": 1e300 }), Err(Refused::Claim("exp"))),
        (json!({ "exp": early as f64 + 0.5 }), Ok(())),
        (json!({ "nbf": early }), Err(Refused::Early)),
        (json!({ "nbf": now() + 20 }), Ok(())),
        (json!({ "iat": early }), Err(Refused::Early)),
        (json!({ "iss": "https://issuer.example.evil" }), Err(Refused::Issuer)),
        (json!({ "iss": null }), Err(Refused::Claim("iss"))),
        (json!({ "iss": ["https://issuer.example"] }), Err(Refused::Claim("iss"))),
        (json!({ "aud": ["other", "walmill"] }), Ok(())),
        (json!({ "aud": "other" }), Err(Refused::Audience)),
        (json!({ "aud": [] }), Err(Refused::Audience)),
        (json!({ "aud": null }), Err(Refused::Claim("aud"))),
    ] {
        let token = mint(&jwt, &claims(change.clone()), None, None).unwrap();
        assert_eq!(verifier.verify(&token).await.map(|_| ()), expected, "{change}");
    }
}

#[tokio::test]
async fn a_token_that_was_touched_is_refused() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let jwt = config(SECRET).unwrap();
    let verifier = Verifier::new(jwt.clone());
    let good = mint(&jwt, &claims(json!({})), None, None).unwrap();
    let parts: Vec<&str> = good.split('.').collect();
    let header = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let none = header(r#"{"alg":"none"}"#);
    let other = header(r#"{"alg":"HS512","typ":"JWT"}"#);
    let critical = header(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#);
    let mine = header(&serde_json::to_string(&claims(json!({ "sub": "eve" }))).unwrap());
    for (token, expected) in [
        (format!("{}.{mine}.{}", parts[0], parts[2]), Refused::Signature),
        (format!("{}.{}.", parts[0], parts[1]), Refused::Signature),
        (format!("{none}.{}.", parts[1]), Refused::Malformed),
        (format!("{other}.{}.{}", parts[1], parts[2]), Refused::Algorithm),
        (format!("{critical}.{}.{}", parts[1], parts[2]), Refused::Malformed),
        ("..".to_owned(), Refused::Malformed),
        (String::new(), Refused::Malformed),
        ("a.b".to_owned(), Refused::Malformed),
        ("\u{0}.\u{0}.\u{0}".to_owned(), Refused::Malformed),
        (format!("{}.{}.{}", parts[0], "A".repeat(MAX_TOKEN), parts[2]), Refused::Malformed),
    ] {
        assert_eq!(verifier.verify(&token).await.map(|_| ()), Err(expected), "{token:.80}");
    }
    assert!(verifier.verify(&good).await.is_ok());
}

#[test]
fn the_config_takes_only_keys_that_fit_the_algorithms() {
    let error = |more: &str| config(more).unwrap_err();
    for (more, words) in [
        ("algorithms = ['HS256']", "set one of `secret`, `public_key`"),
        ("algorithms = ['HS256']\nsecret = 'short'", "at least 32 bytes"),
        ("algorithms = []\nsecret = 'x'", "`algorithms` is empty"),
        ("algorithms = ['none']\nsecret = 'x'", "unknown variant `none`"),
        ("algorithms = ['RS256']\nsecret = 'x'", "RS256 is checked with a public key"),
        ("algorithms = ['RS256']\npublic_key = 'x'", "no public key in PEM for RS256"),
        ("algorithms = ['HS256']\njwks_url = 'https://a.example'", "checked with a `secret`"),
        ("algorithms = ['RS256']\njwks_url = 'http://a.example'", "must be https, not http"),
        ("algorithms = ['RS256']\njwks_file = 'a'\njwks_url = 'https://a.example'", "set one of"),
    ] {
        assert!(error(more).contains(words), "{more}: {}", error(more));
    }
    assert!(config("algorithms = ['ES256']\njwks_url = 'http://localhost:1/keys'").is_ok());
}

#[test]
fn role_and_streams_come_from_the_claims_that_the_config_names() {
    let more = format!("{SECRET}\nrole_claim = 'app.role'\nstreams_claim = 'streams'");
    let verifier = Verifier::new(config(&more).unwrap());
    let of = |change: Value| verifier.principal(claims(change));
    let ada = of(json!({ "app": { "role": ["read", "operate"] }, "streams": ["orders.*"] }));
    assert_eq!(ada.role, Some(Role::Operate));
    assert!(ada.streams.as_ref().unwrap()[0].matches("orders.nz"));
    let eve = of(json!({ "role": "admin", "streams": [7, null] }));
    assert_eq!((eve.role, eve.streams.as_ref().map(|streams| streams.len())), (None, Some(0)));
    let plain = Verifier::new(config(SECRET).unwrap());
    assert!(plain.principal(claims(json!({ "streams": ["*"] }))).streams.is_none());
}
