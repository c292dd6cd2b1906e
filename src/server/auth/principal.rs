//! Whoever asks.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::Key;
use crate::model::pattern::Glob;

/// What someone may do to walmill itself; each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look: status, metrics, dead letters.
    Read,
    /// Keep it running: backfills, replays, dead letters.
    Operate,
    /// Change what it does: plugins, config, slots.
    Admin,
}

/// Whoever asks, and what is known of them.
#[derive(Debug, Clone)]
pub(in crate::server) struct Principal {
    pub(super) kind: Kind,
    pub(in crate::server) role: Option<Role>,
    /// Streams that they may read as far as they say themselves; `None`: the rules alone decide.
    pub(super) streams: Option<Arc<[Glob]>>,
    pub(super) claims: Arc<Map<String, Value>>,
    /// Until when that holds.
    pub(super) expires: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// May do everything: there is nothing to show, or they showed `server.token`.
    Owner,
    Anonymous,
    Key,
    Jwt,
}

impl Principal {
    fn new(kind: Kind, role: Option<Role>) -> Self {
        Self { kind, role, streams: None, claims: Arc::default(), expires: None }
    }

    /// Anyone, where the config asks nobody who they are.
    pub(super) fn open() -> Self {
        Self::owner()
    }

    pub(super) fn owner() -> Self {
        Self::new(Kind::Owner, Some(Role::Admin))
    }

    pub(super) fn anonymous() -> Self {
        Self::new(Kind::Anonymous, None)
    }

    pub(super) fn of_key(key: &Key) -> Self {
        Self {
            streams: Some(key.streams.clone().into()),
            claims: Arc::new(key.claims.clone().into_iter().collect()),
            ..Self::new(Kind::Key, key.role)
        }
    }

    pub(super) fn of_claims(claims: Map<String, Value>, expires: SystemTime) -> Self {
        Self { claims: Arc::new(claims), expires: Some(expires), ..Self::new(Kind::Jwt, None) }
    }

    /// Whether they have not said who they are, and would have to.
    pub(in crate::server) fn is_anonymous(&self) -> bool {
        self.kind == Kind::Anonymous
    }

    /// How long this holds from now on.
    pub(super) fn lasts(&self) -> Option<Duration> {
        let expires = self.expires?;
        Some(expires.duration_since(SystemTime::now()).unwrap_or_default())
    }
}
