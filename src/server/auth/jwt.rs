//! JSON Web Tokens: whose they are, and whether that is so.
//!
//! The signature is the library's to check, under an algorithm of the config. The claims are ours:
//! `exp`, `iss` and `aud` must be there and right, `nbf` and `iat` must not lie ahead.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{DecodingKey, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::claims::{find, texts};
use super::config::{Algorithm, Jwt, Keys};
use super::jwks::KeySet;
use super::principal::{Principal, Role};
use crate::model::pattern::Glob;

/// The longest token that is looked at.
const MAX_TOKEN: usize = 16 << 10;

/// Why a token is not taken. The words are for whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Neither a token nor a key that we know.
    #[error("this is no token and no key that this walmill knows")]
    Unknown,
    /// Not three parts of base64 and JSON.
    #[error("this is no JSON Web Token")]
    Malformed,
    /// Signed otherwise than the config says.
    #[error("the token is signed with an algorithm that is not used here")]
    Algorithm,
    /// The signature is not what it should be.
    #[error("the token's signature is wrong")]
    Signature,
    /// No key of that name.
    #[error("the token is signed with a key that is not known here")]
    UnknownKey,
    /// The issuer's keys could not be fetched.
    #[error("the issuer's keys cannot be had at the moment")]
    NoKeys,
    /// It is over.
    #[error("the token has expired")]
    Expired,
    /// It has not begun.
    #[error("the token is not valid yet")]
    Early,
    /// A claim is missing or of a wrong type.
    #[error("the token has no proper `{0}`")]
    Claim(&'static str),
    /// From someone else.
    #[error("the token is from another issuer")]
    Issuer,
    /// For someone else.
    #[error("the token is meant for another audience")]
    Audience,
}

/// Checks the tokens of one issuer.
pub struct Verifier {
    config: Jwt,
    keys: Source,
}

enum Source {
    Fixed(Box<DecodingKey>),
    Set(KeySet),
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HS256 => Self::HS256,
            Algorithm::HS384 => Self::HS384,
            Algorithm::HS512 => Self::HS512,
            Algorithm::RS256 => Self::RS256,
            Algorithm::RS384 => Self::RS384,
            Algorithm::RS512 => Self::RS512,
            Algorithm::PS256 => Self::PS256,
            Algorithm::PS384 => Self::PS384,
            Algorithm::PS512 => Self::PS512,
            Algorithm::ES256 => Self::ES256,
            Algorithm::ES384 => Self::ES384,
            Algorithm::EdDSA => Self::EdDSA,
        }
    }
}

/// Whether the config's key, if it is in the config, is one for its algorithms.
pub(super) fn check_key(config: &Jwt) -> Result<(), String> {
    fixed_key(config).map(|_| ())
}

/// The key that is in the config; `None` where keys are fetched.
fn fixed_key(config: &Jwt) -> Result<Option<DecodingKey>, String> {
    let pem = match &config.keys {
        Keys::Secret(secret) => {
            return Ok(Some(DecodingKey::from_secret(secret.reveal().as_bytes())));
        }
        Keys::Public(pem) => pem.as_bytes(),
        Keys::Url(_) | Keys::File(_) => return Ok(None),
    };
    let mut key = None;
    for algorithm in &config.algorithms {
        let read = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
            _ => DecodingKey::from_rsa_pem(pem),
        };
        let read = read.map_err(|error| {
            format!("`public_key` is no public key in PEM for {algorithm:?}: {error}")
        })?;
        key = Some(read);
    }
    Ok(key)
}

impl Verifier {
    /// For tokens as the config describes them.
    #[must_use]
    pub fn new(config: Jwt) -> Self {
        let keys = match (&config.keys, fixed_key(&config)) {
            (Keys::Url(url), _) => Source::Set(KeySet::at(url.clone())),
            (Keys::File(path), _) => Source::Set(KeySet::in_file(path.clone())),
            (_, Ok(Some(key))) => Source::Fixed(Box::new(key)),
            // The config was read only because its key is one.
            (_, _) => Source::Fixed(Box::new(DecodingKey::from_secret(&[]))),
        };
        Self { config, keys }
    }

    /// The claims of a token that is what it should be.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn verify(&self, token: &str) -> Result<Map<String, Value>, Refused> {
        if token.len() > MAX_TOKEN {
            return Err(Refused::Malformed);
        }
        let header = decode_header(token).map_err(|_| Refused::Malformed)?;
        let algorithms: Vec<_> = self.config.algorithms.iter().map(|&own| own.into()).collect();
        if !algorithms.contains(&header.alg) {
            return Err(Refused::Algorithm);
        }
        // What must be understood to be trusted, and is not.
        if header.crit.is_some() {
            return Err(Refused::Malformed);
        }
        let claims = self.signed(token, &header).await?;
        self.check(&claims, SystemTime::now())?;
        Ok(claims)
    }

    async fn signed(&self, token: &str, header: &Header) -> Result<Map<String, Value>, Refused> {
        let validation = validation(header.alg);
        let with = |key: &DecodingKey| {
            let token = decode::<Map<String, Value>>(token, key, &validation);
            token.map(|token| token.claims).map_err(|_| Refused::Signature)
        };
        match &self.keys {
            Source::Fixed(key) => with(key),
            Source::Set(set) => {
                let keys = set.find(header.kid.as_deref(), header.alg).await?;
                keys.iter().map(with).find(Result::is_ok).unwrap_or(Err(Refused::Signature))
            }
        }
    }

    fn check(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<(), Refused> {
        let leeway = self.config.leeway.duration();
        let expires = moment(claims, "exp")?.ok_or(Refused::Claim("exp"))?;
        if expires + leeway <= now {
            return Err(Refused::Expired);
        }
        for claim in ["nbf", "iat"] {
            if moment(claims, claim)?.is_some_and(|moment| moment > now + leeway) {
                return Err(Refused::Early);
            }
        }
        match claims.get("iss").and_then(Value::as_str) {
            None => return Err(Refused::Claim("iss")),
            Some(issuer) if issuer != self.config.issuer => return Err(Refused::Issuer),
            Some(_) => {}
        }
        let audiences = claims.get("aud").and_then(texts).ok_or(Refused::Claim("aud"))?;
        match audiences.contains(&self.config.audience) {
            true => Ok(()),
            false => Err(Refused::Audience),
        }
    }

    /// Whoever bears a token with these claims.
    pub(super) fn principal(&self, claims: Map<String, Value>) -> Principal {
        let leeway = self.config.leeway.duration();
        let expires = moment(&claims, "exp").ok().flatten().unwrap_or(UNIX_EPOCH) + leeway;
        let of = |path: &Option<String>| path.as_deref().and_then(|path| find(&claims, path));
        let role = of(&self.config.role_claim).and_then(role_of);
        let streams = self.config.streams_claim.is_some().then(|| {
            let listed = of(&self.config.streams_claim).and_then(texts).unwrap_or_default();
            listed.iter().filter_map(|text| text.parse::<Glob>().ok()).collect()
        });
        Principal { role, streams, ..Principal::of_claims(claims, expires) }
    }
}

/// The highest role that a claim names.
fn role_of(claim: &Value) -> Option<Role> {
    let named = texts(claim).unwrap_or_default();
    let role = |name: &String| match name.as_str() {
        "read" => Some(Role::Read),
        "operate" => Some(Role::Operate),
        "admin" => Some(Role::Admin),
        _ => None,
    };
    named.iter().filter_map(role).max()
}

/// Checks nothing but the signature.
fn validation(algorithm: jsonwebtoken::Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

/// Seconds since 1970; an error where there is a claim and it is no such number.
fn moment(claims: &Map<String, Value>, name: &'static str) -> Result<Option<SystemTime>, Refused> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..1e11).contains(seconds));
    let seconds = seconds.ok_or(Refused::Claim(name))?;
    Ok(Some(UNIX_EPOCH + Duration::from_secs_f64(seconds)))
}

#[cfg(test)]
mod tests;
