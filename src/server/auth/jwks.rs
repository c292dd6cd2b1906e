//! The issuer's public keys, where it publishes them. They are kept, looked at again after a while,
//! and at once when a token names a key that is not among them: that is how keys are replaced. So
//! that nobody can make us ask without end, questions out of turn are few.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
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
pub(super) struct KeySet(Arc<Shared>);

struct Shared {
    place: Place,
    state: Mutex<State>,
    /// Held by whoever asks, while the answer comes: the others wait for what comes of it.
    asking: tokio::sync::Mutex<()>,
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
    /// How many times something came of that.
    outcomes: u64,
    /// Whether there was ever an answer.
    known: bool,
    turns: Turns,
}

impl KeySet {
    pub(super) fn at(url: Url) -> Self {
        Self::of(Place::Url(url))
    }

    pub(super) fn in_file(path: PathBuf) -> Self {
        Self::of(Place::File(path))
    }

    fn of(place: Place) -> Self {
        Self(Arc::new(Shared { place, state: Mutex::default(), asking: Default::default() }))
    }

    /// The key of that name, or all that could be meant where there is no name.
    pub(super) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<DecodingKey>, Refused> {
        let (mut keys, outcomes, stale) = {
            let state = self.0.state();
            (state.usable(kid, algorithm), state.outcomes, state.is_stale())
        };
        if keys.is_empty() || stale {
            // A task of its own: whoever asks may hang up, and what comes is for all the others.
            let shared = Arc::clone(&self.0);
            let _ = tokio::spawn(async move { shared.ask_since(outcomes).await }).await;
            keys = self.0.state().usable(kid, algorithm);
        }
        match keys.is_empty() {
            false => Ok(keys),
            true if self.0.state().known => Err(Refused::UnknownKey),
            true => Err(Refused::NoKeys),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each of its fields is whole by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, if it may, and unless something has come of another's question since then.
    async fn ask_since(&self, outcomes: u64) {
        let _one = self.asking.lock().await;
        {
            let mut state = self.state();
            if state.outcomes != outcomes || !state.turns.take() {
                return;
            }
            state.asked = Some(Instant::now());
        }
        let answer = match timeout(PATIENCE, self.fetch()).await {
            Ok(answer) => answer,
            Err(_) => Err(anyhow::anyhow!("no answer within {PATIENCE:?}")),
        };
        let answer = answer.and_then(|bytes| read(&bytes));
        let mut state = self.state();
        state.outcomes += 1;
        match answer {
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
    fn is_stale(&self) -> bool {
        self.asked.is_none_or(|asked| asked.elapsed() >= FRESH)
    }

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
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

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

    #[tokio::test]
    async fn whoever_hangs_up_while_the_keys_come_takes_them_from_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let keys = Arc::new(KeySet::at(url.parse().unwrap()));
        let asker = Arc::clone(&keys);
        let asker =
            tokio::spawn(async move { asker.find(Some("other"), Algorithm::EdDSA).await.is_ok() });
        let (mut socket, _) = listener.accept().await.unwrap();
        asker.abort();
        assert!(asker.await.unwrap_err().is_cancelled());
        let set = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a",
            "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{set}", set.len());
        socket.write_all(answer.as_bytes()).await.unwrap();
        // The only question there was; this one waits for its answer.
        assert_eq!(keys.find(Some("a"), Algorithm::EdDSA).await.unwrap().len(), 1);
        assert_eq!(keys.0.state().turns.left, TURNS - 1);
    }

    #[test]
    fn keys_that_are_not_understood_are_left_out() {
        let set =
            br#"{"keys":[{"kty":"xyz"},7,{"kty":"OKP","crv":"Ed25519","x":"AAAA","kid":"a"}]}"#;
        assert_eq!(read(set).unwrap().iter().filter(|key| key.common.key_id.is_some()).count(), 1);
        assert!(read(b"{}").is_err() && read(b"<html>").is_err());
    }
}
