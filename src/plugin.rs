//! Plugins: components, from file to answer.
//!
//! A [`registry::Registry`] holds the plugins in force and replaces them as a whole; a [`Plugin`]
//! is one version of one of them, compiled and checked; an [`Instance`] of it belongs to one
//! pipeline's thread and answers its calls. A plugin is a guest: what it may use is granted in its
//! [`Config`], what it may consume is limited there, and nothing that it returns is believed before
//! [`check`] has seen it. Nothing here knows PostgreSQL, the store or a socket.

pub mod bindings;
pub mod check;
pub mod engine;
pub mod instance;
pub mod registry;
pub mod state;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde::Deserialize;

pub use engine::Engine;
pub use instance::{CallError, Finding, Instance};
pub use state::{State, StateError};

/// One `[plugins.NAME]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The `.wasm` file: a component, or a core module that exports the same functions.
    pub path: PathBuf,
    /// Handed to the plugin as JSON; what is in it is the plugin's business.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// What it may use of the host.
    #[serde(default)]
    pub allow: Allow,
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

impl std::fmt::Display for Version {
    /// The first 12 hexadecimal digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One version of a plugin, compiled, checked and ready to run.
pub struct Plugin {
    name: String,
    version: Version,
    imports_clock: bool,
}

impl Plugin {
    /// Its name in the config.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which version this is.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Whether it can ask for the time: then every call must be given the commit time of exactly
    /// the events in its batch.
    #[must_use]
    pub fn imports_clock(&self) -> bool {
        self.imports_clock
    }

    /// A new instance, configured by `init`, for worker `worker` of `workers`. It must stay on the
    /// thread that calls it: its deadline is processor time of that thread.
    ///
    /// # Errors
    /// [`CallError::Findings`] when the plugin does not take its config, else what went wrong in
    /// starting it.
    pub fn instantiate(
        self: &Arc<Self>,
        worker: u32,
        workers: u32,
        dry_run: bool,
        state: Arc<Mutex<dyn State + Send>>,
    ) -> Result<Instance, CallError> {
        todo!()
    }
}
