//! Core modules as components: a language without component support exports the world's functions
//! by their canonical ABI names, and this adds what is missing.
//!
//! A module that imports WASI preview 1 is put on an adapter. The usual one is ours: it holds the
//! empty world, and works with every runtime that was tried. The official one does not start with
//! Go's, but it hands over the environment; so it is taken where the config grants some of that.

use anyhow::Context;
use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve};

use super::world::{Role, World};

/// The module's name for WASI preview 1.
pub(super) const PREVIEW1: &str = "wasi_snapshot_preview1";
/// A custom section of the module that says how its strings are encoded, if not in UTF-8.
const ENCODING: &str = "walmill:string-encoding";

/// What preview 1 is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preview1 {
    /// Nothing but clock, random numbers and log.
    Empty,
    /// All of WASI 0.2 that is granted.
    Full,
}

/// `preview1.wat`, and what it imports beside the world.
const ADAPTER: &[u8] = include_bytes!("wrap/preview1.wasm");
const ADAPTER_WIT: &str = "
    package walmill:preview1;
    world preview1 {
        import wasi:random/random@0.2.0;
        import wasi:clocks/monotonic-clock@0.2.0;
        import walmill:plugin/log@0.1.0;
    }
    package wasi:random@0.2.0 { interface random { get-random-u64: func() -> u64; } }
    package wasi:clocks@0.2.0 { interface monotonic-clock { now: func() -> u64; } }
";

/// A component around the module. If the module does not say which world it is of (Rust's
/// wit-bindgen embeds that), it is of this one, with UTF-8 strings unless it says otherwise.
pub(super) fn wrap(
    world: &World,
    role: Role,
    preview1: Preview1,
    mut module: Vec<u8>,
) -> anyhow::Result<Vec<u8>> {
    let says = says(&module)?;
    if !says.world {
        let (resolve, package) = sources(world, &[])?;
        let world = resolve.select_world(&[package], Some(role.world()))?;
        embed_component_metadata(&mut module, &resolve, world, says.encoding)
            .context("embed the plugin's world")?;
    }
    let mut encoder = ComponentEncoder::default().validate(true).module(&module)?;
    if says.preview1 {
        encoder = encoder.adapter(PREVIEW1, &adapter(world, preview1)?)?;
    }
    encoder.encode()
}

/// What a module says about itself.
struct Says {
    world: bool,
    preview1: bool,
    encoding: StringEncoding,
}

fn says(module: &[u8]) -> anyhow::Result<Says> {
    let mut says = Says { world: false, preview1: false, encoding: StringEncoding::UTF8 };
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    says.preview1 |= import?.module == PREVIEW1;
                }
            }
            Payload::CustomSection(section) if section.name() == ENCODING => {
                says.encoding = match section.data() {
                    b"utf-16" => StringEncoding::UTF16,
                    b"utf-8" => StringEncoding::UTF8,
                    other => anyhow::bail!(
                        "its section `{ENCODING}` says {:?}, which is neither `utf-8` nor `utf-16`",
                        String::from_utf8_lossy(other)
                    ),
                };
            }
            Payload::CustomSection(section) => {
                says.world |= section.name().starts_with("component-type");
            }
            _ => {}
        }
    }
    Ok(says)
}

fn adapter(world: &World, preview1: Preview1) -> anyhow::Result<Vec<u8>> {
    if preview1 == Preview1::Full {
        return Ok(WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER.to_vec());
    }
    let (resolve, package) = sources(world, &[ADAPTER_WIT])?;
    let world = resolve.select_world(&[package], Some("preview1"))?;
    let mut adapter = ADAPTER.to_vec();
    embed_component_metadata(&mut adapter, &resolve, world, StringEncoding::UTF8)
        .context("embed the adapter's world")?;
    Ok(adapter)
}

/// The world's source and what builds on it, and the last of these packages.
fn sources(world: &World, more: &[&str]) -> anyhow::Result<(Resolve, PackageId)> {
    let mut resolve = Resolve::default();
    let mut last = None;
    for source in world.wit.iter().chain(more) {
        last = Some(resolve.push_str("walmill.wit", source)?);
    }
    Ok((resolve, last.context("no source")?))
}

#[cfg(test)]
mod tests;
