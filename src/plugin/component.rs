//! Compiles a file and checks it against the world and what the config grants.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use wasmtime::component::Component;

use super::engine::Engine;
use super::error::{LoadError, Reason};
use super::inspect::{self, Kind, Sort};
use super::world::{Linked, Role};
use super::{Config, Version, wrap};

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
        Sort::Module => Cow::Owned(component_of(engine, bytes)?),
        Sort::Other(what) => return Err(Reason::NotWasm(what)),
    };
    let contents =
        inspect::contents(&component).map_err(|error| Reason::Damaged(error.to_string()))?;
    let worlds = engine.worlds();
    let Kind { world, role } = inspect::check(worlds, &contents, name, config.allow)?;
    let version = Version::of(bytes);
    let component = cached(engine, &version, &component)?;
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

fn component_of(engine: &Engine, module: &[u8]) -> Result<Vec<u8>, Reason> {
    let Kind { world, role } = inspect::check_module(engine.worlds(), module)?;
    let wrapped = guarded(|| wrap::wrap(world, role, module.to_vec()))?;
    wrapped.map_err(|error| Reason::Wrap(format!("{error:#}")))
}

fn cached(engine: &Engine, version: &Version, bytes: &[u8]) -> Result<Component, Reason> {
    let _one_at_a_time = engine.compiling().lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(component) = engine.cache().and_then(|cache| cache.get(engine.wasmtime(), version))
    {
        return Ok(component);
    }
    let component = guarded(|| Component::from_binary(engine.wasmtime(), bytes))?
        .map_err(|error| Reason::Damaged(format!("{error:#}")))?;
    if let Some(cache) = engine.cache() {
        cache.put(version, &component);
    }
    Ok(component)
}

/// The tools are sound, but a file made to break them may find a panic in them.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Reason> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Reason::Damaged("the compiler gave up".into()))
}

#[cfg(test)]
mod tests;
