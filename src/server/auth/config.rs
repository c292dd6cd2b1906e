//! `[server.auth]` as it is written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::principal::Role;
use crate::model::pattern::Glob;
use crate::model::{Period, Secret};

/// `[server.auth]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// API keys.
    pub keys: Vec<Key>,
    /// JWTs of one issuer.
    pub jwt: Option<Jwt>,
    /// What may be seen of which streams. The first rule that names a stream decides.
    pub rules: Vec<Rule>,
}

/// `[[server.auth.keys]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Whose it is, for people.
    pub name: String,
    /// `sha256:…`, as `walmill secret new --for api-key` prints it beside the key.
    pub hash: KeyHash,
    /// What its holder may do to walmill itself: nothing unless set.
    pub role: Option<Role>,
    /// Streams that its holder may read: none unless set.
    #[serde(default)]
    pub streams: Vec<Glob>,
    /// What rules take for its claims.
    #[serde(default)]
    pub claims: BTreeMap<String, Value>,
}

/// SHA-256 of an API key. Keys are random and long, so nothing slower is needed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyHash(pub [u8; 32]);

impl TryFrom<String> for KeyHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let base64 = text.strip_prefix("sha256:");
        let bytes = base64.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(
            "this is no hash of an API key: `walmill secret new --for api-key` makes a key and \
             prints `hash = \"sha256:…\"`",
        )
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `[server.auth.jwt]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawJwt")]
pub struct Jwt {
    /// The algorithms that tokens may be signed with, whatever they say of themselves.
    pub algorithms: Vec<Algorithm>,
    /// What they are checked with.
    pub keys: Keys,
    /// The `iss` that they must have.
    pub issuer: String,
    /// The `aud` that they must have, or have among others.
    pub audience: String,
    /// By how much clocks may differ.
    pub leeway: Period,
    /// The claim that says what its bearer may do to walmill itself, `a.b` for one inside another.
    pub role_claim: Option<String>,
    /// The claim that lists the streams that its bearer may read, as patterns.
    pub streams_claim: Option<String>,
}

/// What signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// A secret that the issuer has, too.
    Secret(Secret),
    /// The issuer's public key, in PEM.
    Public(String),
    /// The issuer's public keys, where it publishes them.
    Url(Url),
    /// The same in a file.
    File(PathBuf),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawJwt {
    algorithms: Vec<Algorithm>,
    secret: Option<Secret>,
    public_key: Option<Secret>,
    jwks_url: Option<Url>,
    jwks_file: Option<PathBuf>,
    issuer: String,
    audience: String,
    #[serde(default = "default_leeway")]
    leeway: Period,
    role_claim: Option<String>,
    streams_claim: Option<String>,
}

fn default_leeway() -> Period {
    Period::from_millis(30_000)
}

impl TryFrom<RawJwt> for Jwt {
    type Error = String;

    fn try_from(raw: RawJwt) -> Result<Self, String> {
        let keys = match (raw.secret, raw.public_key, raw.jwks_url, raw.jwks_file) {
            (Some(secret), None, None, None) => Keys::Secret(secret),
            (None, Some(pem), None, None) => Keys::Public(pem.reveal().to_owned()),
            (None, None, Some(url), None) => Keys::Url(checked(url)?),
            (None, None, None, Some(file)) => Keys::File(file),
            _ => {
                return Err("set one of `secret`, `public_key`, `jwks_url`, `jwks_file`".to_owned());
            }
        };
        let symmetric = matches!(keys, Keys::Secret(_));
        if raw.algorithms.is_empty() {
            return Err("`algorithms` is empty; name one, as in [\"RS256\"]".to_owned());
        }
        if let Some(odd) = raw.algorithms.iter().find(|one| one.is_symmetric() != symmetric) {
            return Err(match symmetric {
                true => format!("{odd:?} is checked with a public key, not with a `secret`"),
                false => format!("{odd:?} is checked with a `secret`, not with a public key"),
            });
        }
        if let Keys::Secret(secret) = &keys
            && let Some(short) =
                raw.algorithms.iter().find(|one| secret.reveal().len() < one.least_secret())
        {
            let least = short.least_secret();
            return Err(format!("{short:?} takes a secret of at least {least} bytes"));
        }
        let jwt = Self {
            algorithms: raw.algorithms,
            keys,
            issuer: raw.issuer,
            audience: raw.audience,
            leeway: raw.leeway,
            role_claim: raw.role_claim,
            streams_claim: raw.streams_claim,
        };
        super::jwt::check_key(&jwt)?;
        Ok(jwt)
    }
}

/// Keys that come over a network that others can write to would let anyone in.
fn checked(url: Url) -> Result<Url, String> {
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => Ok(url),
        "http" if local => Ok(url),
        _ => Err(format!("`jwks_url` must be https, not {}", url.scheme())),
    }
}

/// How a JWT is signed (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// Whether who can check a signature can make one.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }

    /// Bytes that a secret needs to be as strong as the algorithm (RFC 7518, 3.2).
    #[must_use]
    pub fn least_secret(self) -> usize {
        match self {
            Self::HS384 => 48,
            Self::HS512 => 64,
            _ => 32,
        }
    }
}

/// `[[server.auth.rules]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The streams that it is about.
    pub streams: Vec<Glob>,
    /// Who may read them.
    #[serde(default = "default_allow")]
    pub allow: Vec<Allow>,
    /// Only rows whose column has the value, or one of the values, of the claim.
    #[serde(default)]
    pub rows: BTreeMap<String, String>,
    /// Columns that nobody gets.
    #[serde(default)]
    pub hidden: Vec<String>,
    /// The plugin that decides about each reader.
    pub authorizer: Option<String>,
}

fn default_allow() -> Vec<Allow> {
    vec![Allow::Key, Allow::Jwt]
}

/// Who may read a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allow {
    /// Everyone.
    Public,
    /// Holders of an API key whose `streams` name it.
    Key,
    /// Bearers of a JWT.
    Jwt,
}
