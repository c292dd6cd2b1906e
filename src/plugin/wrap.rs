//! Core modules as components: a language without component support exports the world's functions
//! by their canonical ABI names, and this adds what is missing.

use anyhow::Context;
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::world::{Role, World};

/// A component around the module. If the module does not say which world it is of (Rust's
/// wit-bindgen embeds that), it is of this one, with UTF-8 strings.
pub(super) fn wrap(world: &World, role: Role, mut module: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if !says_its_world(&module) {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("walmill.wit", world.wit)?;
        let world = resolve.select_world(&[package], Some(role.world()))?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .context("embed the plugin's world")?;
    }
    ComponentEncoder::default().validate(true).module(&module)?.encode()
}

fn says_its_world(module: &[u8]) -> bool {
    Parser::new(0).parse_all(module).any(|payload| match payload {
        Ok(Payload::CustomSection(section)) => section.name().starts_with("component-type"),
        _ => false,
    })
}
