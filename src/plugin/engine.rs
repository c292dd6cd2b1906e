//! wasmtime and the clock that interrupts long calls.

use std::path::Path;

/// The one wasmtime engine of a process. Cloning shares it.
#[derive(Clone)]
pub struct Engine {
    wasmtime: wasmtime::Engine,
}

impl Engine {
    /// Compiled code is kept in `cache_dir`, made if it isn't there; without one, every start
    /// compiles every plugin.
    ///
    /// # Errors
    /// The folder is unusable, or is not ours alone.
    pub fn new(cache_dir: Option<&Path>) -> anyhow::Result<Self> {
        todo!()
    }
}
