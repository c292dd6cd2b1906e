//! The issuer's public keys, where it publishes them. They are kept, looked at again after a while,
//! and at once when a token names a key that is not among them: that is how keys are replaced. So
//! that nobody can make us ask without end, questions out of turn are few.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use url::Url;

use super::jwt::Refused;

/// Keys are looked at again after this.
const FRESH: Duration = Duration::from_secs(600);
/// For the whole answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// One question out of turn for each of these, and so many at once.
const TURN: Duration = Duration::from_secs(30);
const TURNS: u32 = 3;
/// The largest key set.
const MAX_SIZE: usize = 256 << 10;
/// Keys that are tried for a token that names none.
const MAX_TRIED: usize = 8;

/// A set of keys somewhere else.
pub(super) struct KeySet {
    place: Place,
    state: Mutex<State>,
}

enum Place {
    Url(Url),
    File(PathBuf),
}

#[derive(Default)]
struct State {
    keys: Vec<Jwk>,
    /// When they were last asked for, whatever came of it.
    asked: Option<Instant>,
    /// Whether there was ever an answer.
    known: bool,
    turns: Turns,
}

impl KeySet {
    pub(super) fn at(url: Url) -> Self {
        Self { place: Place::Url(url), state: Mutex::default() }
    }

    pub(super) fn in_file(path: PathBuf) -> Self {
        Self { place: Place::File(path), state: Mutex::default() }
    }

    /// The key of that name, or all that could be meant where there is no name.
    pub(super) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<DecodingKey>, Refused> {
        // One asks, the others wait for what comes of it.
        let mut state = self.state.lock().await;
        let stale = state.asked.is_none_or(|asked| asked.elapsed() >= FRESH);
        if stale && state.turns.take() {
            self.ask(&mut state).await;
        }
        let mut keys = state.usable(kid, algorithm);
        if keys.is_empty() && !stale && state.turns.take() {
            self.ask(&mut state).await;
            keys = state.usable(kid, algorithm);
        }
        match keys.is_empty() {
            false => Ok(keys),
            true if state.known => Err(Refused::UnknownKey),
            true => Err(Refused::NoKeys),
        }
    }

    async fn ask(&self, state: &mut State) {
        state.asked = Some(Instant::now());
        let answer = match timeout(PATIENCE, self.fetch()).await {
            Ok(answer) => answer,
            Err(_) => Err(anyhow::anyhow!("no answer within {PATIENCE:?}")),
        };
        match answer.and_then(|bytes| read(&bytes)) {
            Ok(keys) => {
                info!(keys = keys.len(), from = %self.place, "read the issuer's keys");
                (state.keys, state.known) = (keys, true);
            }
            Err(error) => {
                warn!(from = %self.place, "the issuer's keys cannot be read, the old ones stay: {error:#}");
            }
        }
    }

    async fn fetch(&self) -> anyhow::Result<Vec<u8>> {
        let url = match &self.place {
            Place::Url(url) => url.clone(),
            Place::File(path) => return Ok(tokio::fs::read(path).await?),
        };
        let client =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        let mut answer = client.get(url).send().await?.error_for_status()?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            bytes.extend_from_slice(&chunk);
            anyhow::ensure!(bytes.len() <= MAX_SIZE, "it is larger than {MAX_SIZE} bytes");
        }
        Ok(bytes)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Without what may be a secret in it.
            Self::Url(url) => write!(f, "{}{}", url.origin().ascii_serialization(), url.path()),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// The keys of a set; those that we do not understand are left out (RFC 7517, 5).
fn read(bytes: &[u8]) -> anyhow::Result<Vec<Jwk>> {
    let set: Value = serde_json::from_slice(bytes)?;
    let keys = set.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or_else(|| anyhow::anyhow!("there is no list of `keys` in it"))?;
    let set = keys.iter().filter_map(|key| serde_json::from_value(key.clone()).ok());
    Ok(JwkSet { keys: set.collect() }.keys)
}

impl State {
    fn usable(&self, kid: Option<&str>, algorithm: Algorithm) -> Vec<DecodingKey> {
        let meant = |key: &&Jwk| kid.is_none() || key.common.key_id.as_deref() == kid;
        let usable = self.keys.iter().filter(meant).filter(|key| fits(key, algorithm));
        usable.filter_map(|key| DecodingKey::from_jwk(key).ok()).take(MAX_TRIED).collect()
    }
}

/// Whether a key is one for signatures of this algorithm. A shared secret never is: who publishes
/// one has none.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512};
    let of_kind = match (&key.algorithm, algorithm) {
        (_, HS256 | HS384 | HS512) => false,
        (AlgorithmParameters::EllipticCurve(key), ES256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(key), ES384) => key.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(key), EdDSA) => key.curve == EllipticCurve::Ed25519,
        (AlgorithmParameters::RSA(_), algorithm) => !matches!(algorithm, ES256 | ES384 | EdDSA),
        _ => false,
    };
    let named = key.common.key_algorithm.map(|named| named.to_string());
    let for_signatures =
        !matches!(&key.common.public_key_use, Some(usage) if *usage != PublicKeyUse::Signature);
    of_kind && for_signatures && named.is_none_or(|named| named == format!("{algorithm:?}"))
}

/// Few at once, and then one for each [`TURN`].
struct Turns {
    left: u32,
    since: Option<Instant>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { left: TURNS, since: None }
    }
}

impl Turns {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let earned = (now - since).as_secs() / TURN.as_secs();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(TURNS);
            self.left = TURNS.min(self.left.saturating_add(earned));
            self.since = Some(now);
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn questions_out_of_turn_are_few() {
        let mut turns = Turns::default();
        assert_eq!((0..10).filter(|_| turns.take()).count(), 3);
        tokio::time::advance(TURN).await;
        assert_eq!((0..10).filter(|_| turns.take()).count(), 1);
        tokio::time::advance(TURN * 100).await;
        assert_eq!((0..10).filter(|_| turns.take()).count(), 3);
    }

    #[test]
    fn keys_that_are_not_understood_are_left_out() {
        let set =
            br#"{"keys":[{"kty":"xyz"},7,{"kty":"OKP","crv":"Ed25519","x":"AAAA","kid":"a"}]}"#;
        assert_eq!(read(set).unwrap().iter().filter(|key| key.common.key_id.is_some()).count(), 1);
        assert!(read(b"{}").is_err() && read(b"<html>").is_err());
    }
}
