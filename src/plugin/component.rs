//! Compiles a file and checks it against the world and what the config grants.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use wasmtime::component::Component;

use super::engine::Engine;
use super::error::{LoadError, Reason};
use super::inspect::{self, Kind, Sort};
use super::world::{Linked, Role, World};
use super::wrap::Preview1;
use super::{Config, Limits, Version, cache, compiler, wrap};

/// A file that can be instantiated.
pub struct Compiled {
    /// SHA-256 of the file.
    pub version: Version,
    /// The file's size in bytes.
    pub size: u64,
    /// The source language, where the file says.
    pub language: Option<String>,
    /// Whether it can ask for the time.
    pub imports_clock: bool,
    /// What it is for.
    pub role: Role,
    pub(super) linked: Box<dyn Linked>,
    pub(super) engine: wasmtime::Engine,
}

/// Compiles a plugin's file, or takes the code that was compiled from the same bytes before. This
/// can take seconds, and runs no code of the plugin.
///
/// # Errors
/// See [`LoadError`].
pub fn load(
    engine: &Engine,
    name: &str,
    config: &Config,
    bytes: &[u8],
) -> Result<Compiled, LoadError> {
    compile(engine, name, config, bytes).map_err(|reason| LoadError {
        plugin: name.into(),
        path: config.path.clone(),
        reason,
    })
}

fn compile(engine: &Engine, name: &str, config: &Config, bytes: &[u8]) -> Result<Compiled, Reason> {
    let (size, limit) = (bytes.len() as u64, config.limits.file);
    if size > limit.bytes() {
        return Err(Reason::TooLarge { size, limit, plugin: name.into() });
    }
    let component = match inspect::sort(bytes) {
        Sort::Component => Cow::Borrowed(bytes),
        Sort::Module => {
            let full = !config.allow.env.is_empty();
            let preview1 = if full { Preview1::Full } else { Preview1::Empty };
            Cow::Owned(component_of(engine.worlds(), preview1, bytes)?)
        }
        Sort::Other(what) => return Err(Reason::NotWasm(what)),
    };
    let contents =
        inspect::contents(&component).map_err(|error| Reason::Damaged(error.to_string()))?;
    let worlds = engine.worlds();
    let Kind { world, role } = inspect::check(worlds, &contents, name, &config.allow)?;
    let version = Version::of(bytes);
    // By what is compiled, which depends on the config where a module is wrapped.
    let component = cached(engine, name, &config.limits, &component)?;
    let linked =
        engine.linker().instantiate_pre(&component).and_then(|pre| (world.find)(pre, role));
    let linked = linked
        .map_err(|error| Reason::Mismatch { world: role.world(), error: format!("{error:#}") })?;
    if let Some(cache) = engine.cache() {
        cache.keep(&version, bytes);
    }
    let imports_clock = contents.uses(worlds, "clock");
    let (language, engine) = (contents.language, engine.wasmtime().clone());
    Ok(Compiled { version, size, language, imports_clock, role, linked, engine })
}

/// A component around a core module.
pub(super) fn component_of(
    worlds: &'static [World],
    preview1: Preview1,
    module: &[u8],
) -> Result<Vec<u8>, Reason> {
    let Kind { world, role } = inspect::check_module(worlds, module)?;
    let wrapped = guarded(|| wrap::wrap(world, role, preview1, module.to_vec()))?;
    wrapped.map_err(|error| Reason::Wrap(format!("{error:#}")))
}

fn cached(engine: &Engine, name: &str, limits: &Limits, bytes: &[u8]) -> Result<Component, Reason> {
    let version = Version::of(bytes);
    let _one_at_a_time = engine.compiling().lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(component) = engine.cache().and_then(|cache| cache.get(engine.wasmtime(), &version))
    {
        return Ok(component);
    }
    let damaged = |error: wasmtime::Error| Reason::Damaged(format!("{error:#}"));
    let Some(compiler) = engine.compiler() else {
        let component =
            guarded(|| Component::from_binary(engine.wasmtime(), bytes))?.map_err(damaged)?;
        if let Some(cache) = engine.cache() {
            cache.put(&version, &component);
        }
        return Ok(component);
    };
    let artifact = compiler::compile(compiler, name, limits, bytes)?;
    if let Some(cache) = engine.cache() {
        cache.put_artifact(&version, &artifact);
    }
    cache::revive(engine.wasmtime(), &artifact).map_err(damaged)
}

/// The tools are sound, but a file made to break them may find a panic in them.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Reason> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Reason::Damaged("the compiler gave up".into()))
}

#[cfg(test)]
mod tests;
