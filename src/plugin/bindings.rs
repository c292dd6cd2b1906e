//! The plugin's world as Rust types, generated from `wit/walmill.wit`.

#[expect(missing_docs, reason = "wit/walmill.wit has the words")]
mod generated {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "plugin",
        additional_derives: [PartialEq],
    });
}

pub use generated::walmill::plugin::types::{
    Batch, Column, Mode, OutColumn, Outcome, Plan, Relation, Shape, Source,
};

pub(super) use generated::exports::walmill::plugin::lifecycle;
pub(super) use generated::walmill::plugin as host;
pub(super) use generated::{Plugin as Guest, PluginPre as GuestPre};

/// The world's source, for wrapping core modules.
pub(super) const WIT: &str = include_str!("../../wit/walmill.wit");

/// The package of every interface in it.
pub(super) const PACKAGE: &str = "walmill:plugin";
/// Its version.
pub(super) const VERSION: &str = "0.1.0";
/// What of the version matters to whether a guest fits.
pub(super) const MINOR: &str = "0.1";
