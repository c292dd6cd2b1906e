//! Signatures by Standard Webhooks 1.0.0 (symmetric, `v1`).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Deserializer};
use sha2::Sha256;

use crate::model::Secret;

/// A secret that receiver and walmill share: `whsec_` and 24 to 64 bytes in base64. Prints as
/// `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Vec<u8>);

/// What is no signing key. Says nothing of the secret but its length.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// Not `whsec_…`, or not base64.
    #[error("a webhook's secret is `whsec_` and 24 to 64 bytes in base64")]
    Form,
    /// Too little to be safe, or more than receivers take.
    #[error(
        "a webhook's secret has 24 to 64 bytes, this one {0}; make one with `openssl rand -base64 32`"
    )]
    Length(usize),
}

impl SigningKey {
    /// # Errors
    /// See `SigningKeyError`.
    pub fn new(secret: &Secret) -> Result<Self, SigningKeyError> {
        let text = secret.reveal().trim().strip_prefix("whsec_").ok_or(SigningKeyError::Form)?;
        let bytes = STANDARD.decode(text).map_err(|_| SigningKeyError::Form)?;
        match bytes.len() {
            24..=64 => Ok(Self(bytes)),
            length => Err(SigningKeyError::Length(length)),
        }
    }

    fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        // HMAC takes keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

/// The value of `webhook-signature`: one signature for each key.
pub fn header(keys: &[SigningKey], id: &str, timestamp: u64, body: &[u8]) -> String {
    let sign = |key: &SigningKey| format!("v1,{}", key.sign(id, timestamp, body));
    keys.iter().map(sign).collect::<Vec<_>>().join(" ")
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> Deserialize<'de> for SigningKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&Secret::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<SigningKey, SigningKeyError> {
        SigningKey::new(&Secret::new(text))
    }

    /// The example that the official libraries test against.
    #[test]
    fn the_example_of_the_specification_comes_out() {
        let keys = [key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()];
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        assert_eq!(
            header(&keys, id, 1_614_265_330, br#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn during_a_rotation_each_key_signs() {
        let keys = [1_u8, 2].map(|byte| SigningKey(vec![byte; 32]));
        let both = header(&keys, "id", 7, b"body");
        let each = keys.map(|key| header(&[key], "id", 7, b"body"));
        assert_eq!(both, each.join(" "));
        assert_ne!(each[0], each[1]);
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_repeated() {
        assert_eq!(key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Err(SigningKeyError::Form));
        assert_eq!(key("whsec_not base64"), Err(SigningKeyError::Form));
        assert_eq!(key("whsec_c2hvcnQ="), Err(SigningKeyError::Length(5)));
        let long = format!("whsec_{}", STANDARD.encode([0; 65]));
        assert_eq!(key(&long), Err(SigningKeyError::Length(65)));
    }
}
