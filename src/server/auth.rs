//! Who may do what: `[server.auth]`.
//!
//! Whoever asks is one of four: nobody in particular, the holder of `server.token` (who may do
//! everything), the holder of an API key, or the bearer of a JWT. What each of them may see of a
//! stream is decided by the first rule that names the stream. Nothing is granted that the config
//! does not grant.

mod access;
mod claims;
mod config;
mod jwks;
mod jwt;
mod mint;
mod principal;
mod ticket;

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

pub(super) use access::{Access, Guardian, Lapse, Reader, Wishes};
pub use config::{Algorithm, Allow, Auth, Jwt, Key, KeyHash, Keys, Rule};
pub use jwt::{Refused, Verifier};
pub use mint::{decode_unchecked, mint};
pub(super) use principal::Principal;
pub use principal::Role;
pub(super) use ticket::{GOOD_FOR, Tickets};

use super::Config;
use crate::model::Secret;

/// What API keys begin with, so that they are known for what they are.
pub const KEY_PREFIX: &str = "wmk_";

/// Knows everyone that the config knows.
pub(super) struct Gate {
    token: Option<Secret>,
    keys: HashMap<[u8; 32], Principal>,
    jwt: Option<Verifier>,
    pub(super) tickets: Tickets,
    /// Whether anyone has to say who they are.
    guarded: bool,
}

impl Gate {
    pub(super) fn new(config: &Config) -> Self {
        let keys = config.auth.keys.iter();
        Self {
            token: config.token.clone(),
            keys: keys.map(|key| (key.hash.0, Principal::of_key(key))).collect(),
            jwt: config.auth.jwt.clone().map(Verifier::new),
            tickets: Tickets::default(),
            guarded: config.is_guarded() || !config.auth.rules.is_empty(),
        }
    }

    /// Whoever shows nothing.
    pub(super) fn nobody(&self) -> Principal {
        if self.guarded { Principal::anonymous() } else { Principal::open() }
    }

    /// Whose token, key or JWT this is.
    pub(super) async fn identify(&self, text: &str) -> Result<Principal, Refused> {
        if self.token.as_ref().is_some_and(|token| same(token, text)) {
            return Ok(Principal::owner());
        }
        if !self.guarded {
            return Ok(Principal::open());
        }
        let digest: [u8; 32] = Sha256::digest(text).into();
        // Looked up by its digest, so the time it takes says nothing about any key.
        if let Some(principal) = self.keys.get(&digest) {
            return Ok(principal.clone());
        }
        match &self.jwt {
            Some(jwt) if text.bytes().filter(|&byte| byte == b'.').count() == 2 => {
                Ok(jwt.principal(jwt.verify(text).await?))
            }
            _ => Err(Refused::Unknown),
        }
    }
}

/// In a time that says nothing about where, or by how much, they differ.
fn same(token: &Secret, given: &str) -> bool {
    let [ours, theirs] = [token.reveal(), given].map(Sha256::digest);
    ours.as_slice().ct_eq(theirs.as_slice()).into()
}
