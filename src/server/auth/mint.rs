//! Tokens made here: for development and for tests. Nothing that serves makes any.

use jsonwebtoken::dangerous::insecure_decode;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Map, Value};

use super::config::{Algorithm, Jwt, Keys};

/// Signs claims with the config's secret, or with the private key in `pem`.
///
/// # Errors
/// Which key is missing, or why it does not work.
pub fn mint(
    jwt: &Jwt,
    claims: &Map<String, Value>,
    pem: Option<&[u8]>,
    kid: Option<String>,
) -> Result<String, String> {
    // A config that was read names at least one.
    let algorithm = jwt.algorithms.first().copied().unwrap_or(Algorithm::HS256);
    let key = match (&jwt.keys, pem) {
        (Keys::Secret(secret), _) => EncodingKey::from_secret(secret.reveal().as_bytes()),
        (_, None) => {
            return Err("the config has public keys only: give the private one with \
                        `--private-key FILE`"
                .to_owned());
        }
        (_, Some(pem)) => private_key(algorithm, pem)
            .map_err(|error| format!("this is no private key in PEM for {algorithm:?}: {error}"))?,
    };
    let header = Header { kid, ..Header::new(algorithm.into()) };
    encode(&header, claims, &key).map_err(|error| format!("sign the token: {error}"))
}

fn private_key(algorithm: Algorithm, pem: &[u8]) -> jsonwebtoken::errors::Result<EncodingKey> {
    match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem),
        _ => EncodingKey::from_rsa_pem(pem),
    }
}

/// Header and claims of a token as it says them, true or not.
#[must_use]
pub fn decode_unchecked(token: &str) -> Option<(Value, Map<String, Value>)> {
    let token = insecure_decode::<Map<String, Value>>(token).ok()?;
    Some((serde_json::to_value(token.header).ok()?, token.claims))
}
