//! wasmtime and the clock that interrupts long calls.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use wasmtime::component::Linker;
use wasmtime::{Config, EngineWeak, WasmBacktraceDetails};

use super::cache::Cache;
use super::host::Host;
use super::world::{WORLDS, World};

/// Between two looks at the time of a running call.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// The one wasmtime engine of a process, with what all plugins share. Cloning shares it.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    wasmtime: wasmtime::Engine,
    worlds: &'static [World],
    linker: Linker<Host>,
    cache: Option<Cache>,
    /// Held while compiling: one plugin at a time, so that a folder full of changed files does not
    /// take all of the machine from the streams.
    compiling: Mutex<()>,
}

impl Engine {
    /// Compiled code is kept in `cache_dir`, made if it isn't there; without one, every start
    /// compiles every plugin.
    ///
    /// # Errors
    /// The folder cannot be used, or others may write to it.
    pub fn new(cache_dir: Option<&Path>) -> anyhow::Result<Self> {
        Self::serving(WORLDS, cache_dir)
    }

    /// An engine that serves these versions of the world.
    pub(super) fn serving(
        worlds: &'static [World],
        cache_dir: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let wasmtime =
            wasmtime::Engine::new(&config()).map_err(opaque).context("start wasmtime")?;
        let mut linker = Linker::new(&wasmtime);
        for world in worlds {
            (world.link)(&mut linker).map_err(opaque).context("link the plugin's world")?;
        }
        let cache = cache_dir.map(|folder| Cache::open(folder, &wasmtime)).transpose()?;
        start_ticker(wasmtime.weak()).context("start the thread that interrupts plugins")?;
        let compiling = Mutex::default();
        Ok(Self(Arc::new(Shared { wasmtime, worlds, linker, cache, compiling })))
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.0.wasmtime
    }

    pub(super) fn worlds(&self) -> &'static [World] {
        self.0.worlds
    }

    pub(super) fn linker(&self) -> &Linker<Host> {
        &self.0.linker
    }

    pub(super) fn cache(&self) -> Option<&Cache> {
        self.0.cache.as_ref()
    }

    pub(super) fn compiling(&self) -> &Mutex<()> {
        &self.0.compiling
    }
}

/// wasmtime's error, whose type does not take part in `?`.
pub(super) fn opaque(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:#}")
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Calls are plain and synchronous, on the pipeline's own thread; support for concurrent
        // ones costs 250 ns each.
        .concurrency_support(false)
        .epoch_interruption(true)
        // Kotlin
        .wasm_function_references(true)
        .wasm_gc(true)
        .wasm_exceptions(true)
        // A replay gives the same bytes, on every machine.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        // Names of functions are enough for a dead letter's reason.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    // Memory is allocated on demand: an instance lives for its generation, so the 10 µs that the
    // pooling allocator would save at its start don't count, and nothing has to be reserved.
    config
}

/// Counts the engine's epochs up as long as it lives, on a thread that nothing can hold up.
fn start_ticker(engine: EngineWeak) -> io::Result<()> {
    thread::Builder::new().name("plugin-ticker".into()).spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    })?;
    Ok(())
}
