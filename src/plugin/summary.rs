//! What can be said of a plugin's file without running anything of it.

use std::borrow::Cow;

use serde::Serialize;

use super::inspect::{self, Sort};
use super::world::{WORLDS, interface};
use super::wrap::Preview1;
use super::{Reason, Version, component};

/// What a file is, imports and exports.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// `component` or `core module`.
    pub form: &'static str,
    /// The world that it is made for.
    pub world: String,
    /// Interfaces of the host that it uses.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// The source language, where the file says.
    pub language: Option<String>,
    /// Bytes.
    pub size: u64,
    /// SHA-256, which is its version.
    pub digest: String,
    /// What its config must grant, as it is written there.
    pub needs: Vec<String>,
}

impl Summary {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// What is no plugin, and why.
    pub fn of(bytes: &[u8]) -> Result<Self, Reason> {
        let (form, whole) = match inspect::sort(bytes) {
            Sort::Component => ("component", Cow::Borrowed(bytes)),
            Sort::Module => (
                "core module",
                Cow::Owned(component::component_of(WORLDS, Preview1::Empty, bytes)?),
            ),
            Sort::Other(what) => return Err(Reason::NotWasm(what)),
        };
        let contents =
            inspect::contents(&whole).map_err(|error| Reason::Damaged(error.to_string()))?;
        let kind = inspect::kind(WORLDS, &contents)?;
        let needs = contents.imports.iter().filter_map(|import| grant(import));
        let mut needs: Vec<String> = needs.map(str::to_owned).collect();
        needs.dedup();
        Ok(Self {
            form,
            world: format!("{} {}", kind.role.world(), kind.world.version),
            needs,
            imports: contents.imports,
            exports: contents.exports,
            language: contents.language,
            size: bytes.len() as u64,
            digest: Version::of(bytes).hex(),
        })
    }
}

/// What grants an import, if it is not offered to everyone.
fn grant(import: &str) -> Option<&'static str> {
    match interface(WORLDS, import) {
        Some(found) if found.name == "kv" => Some("allow.kv = true"),
        Some(_) => None,
        None if import.starts_with("wasi:http/outgoing-handler") => {
            Some("allow.http = [\"https://…\"]")
        }
        None => None,
    }
}
