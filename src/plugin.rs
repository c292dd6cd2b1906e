//! Plugins: components, from file to answer.
//!
//! A [`registry::Registry`] holds the plugins in force and replaces them as a whole; a [`Plugin`]
//! is one version of one of them, compiled and checked; an [`Instance`] of it belongs to one
//! pipeline and answers its calls. A plugin is a guest: what it may use is granted in its
//! [`Config`], what it may consume is limited there, and nothing that it returns is believed before
//! [`check`] has seen it. Nothing here knows PostgreSQL, the store or a socket.

pub mod authorizer;
pub mod bindings;
mod cache;
pub mod check;
pub mod component;
pub mod engine;
pub mod error;
mod file;
mod host;
mod inspect;
pub mod instance;
pub mod limits;
mod log;
mod meters;
mod program;
pub mod promotion;
pub mod registry;
pub mod state;
mod text;
mod trial;
pub mod watch;
mod world;
mod wrap;

#[cfg(test)]
pub(crate) mod guests;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use sha2::{Digest, Sha256};

pub use authorizer::Authorizer;
use bindings::lifecycle::Setup;
pub use engine::Engine;
pub use error::{LoadError, Reason};
pub use instance::{CallError, Finding, Instance};
pub use limits::Limits;
use program::Program;
use promotion::{Promote, Rollback, Shadow};
pub use registry::{Plugins, Registry};
pub use state::{NoState, Scratch, State, StateError};
pub use world::Role;

/// One `[plugins.NAME]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The `.wasm` file: a component, or a core module that exports the same functions.
    pub path: PathBuf,
    /// Handed to the plugin as JSON; what is in it is the plugin's business.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// What it may consume.
    #[serde(default)]
    pub limits: Limits,
    /// What it may use of the host.
    #[serde(default)]
    pub allow: Allow,
    /// The run of a new version beside the one in force.
    #[serde(default)]
    pub shadow: Shadow,
    /// What a new version needs to go live.
    #[serde(default)]
    pub promote: Promote,
    /// When a version that has just gone live is taken back.
    #[serde(default)]
    pub rollback: Rollback,
}

/// What a plugin may use of the host beside log, clock and metrics. Nothing, unless granted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// Keyed state.
    pub kv: bool,
}

/// What identifies a version of a plugin: the SHA-256 of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; 32]);

impl Version {
    /// The version that a file is.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The version with these 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        let bytes = digits.as_bytes();
        let mut version = [0; 32];
        if bytes.len() != 2 * version.len() {
            return None;
        }
        for (byte, pair) in version.iter_mut().zip(bytes.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            // Two hexadecimal digits are below 256.
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Some(Self(version))
    }

    /// All 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Version {
    /// The first 12 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a plugin says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its own name for itself.
    pub name: String,
    /// Its own version number.
    pub version: String,
    /// JSON Schema of its config, or empty.
    pub config_schema: String,
}

/// One version of a plugin, compiled, checked and ready to run.
pub struct Plugin {
    program: Arc<Program>,
    config: String,
    description: Description,
    /// Events it was given, and those it broke on, where that counted.
    seen: AtomicU64,
    failed: AtomicU64,
}

impl Plugin {
    /// Its name in the config.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// What it is for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.program.compiled.role
    }

    /// Which version this is.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.program.compiled.version
    }

    /// What it says about itself.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The source language, where the file says.
    #[must_use]
    pub fn language(&self) -> Option<&str> {
        self.program.compiled.language.as_deref()
    }

    /// Size of its file in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.program.compiled.size
    }

    /// What it may consume.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.program.limits
    }

    /// Whether it can ask for the time: then every call must be given the commit time of exactly
    /// the events in its batch.
    #[must_use]
    pub fn imports_clock(&self) -> bool {
        self.program.compiled.imports_clock
    }

    /// Counts events that it was given in a pipeline, and those of them that it broke on.
    pub fn count(&self, seen: u64, failed: u64) {
        self.seen.fetch_add(seen, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
    }

    /// What was counted since it was loaded.
    #[must_use]
    pub fn seen_and_failed(&self) -> (u64, u64) {
        (self.seen.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// A new instance, configured by `init`, for worker `worker` of `workers`. In a dry run what
    /// comes out is compared and not delivered, and its metrics are not counted.
    ///
    /// # Errors
    /// [`CallError::Findings`] when the plugin does not take its config, else what went wrong in
    /// starting it.
    pub fn instantiate(
        &self,
        worker: u32,
        workers: u32,
        dry_run: bool,
        state: Arc<Mutex<dyn State + Send>>,
    ) -> Result<Instance, CallError> {
        let mut instance = Instance::start(&self.program, dry_run, state)?;
        instance.init(&Setup { config: self.config.clone(), worker, workers, dry_run })?;
        Ok(instance)
    }
}
