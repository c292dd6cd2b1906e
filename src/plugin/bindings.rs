//! The plugin's world as Rust types, generated from `wit/walmill.wit`, and which of them the host
//! itself speaks. The host speaks the newest version; older ones are turned into it by their own
//! file in `world/`.

/// Version 0.1 of the world, as generated: what a plugin and an authorizer are, in one.
#[expect(missing_docs, reason = "wit/walmill.wit has the words")]
pub(super) mod v0_1 {
    wasmtime::component::bindgen!({
        path: "wit",
        inline: "
            package walmill:every;
            world role {
                include walmill:plugin/plugin@0.1.0;
                include walmill:plugin/authorizer@0.1.0;
            }
        ",
        world: "walmill:every/role",
        additional_derives: [PartialEq],
    });
}

pub use v0_1::walmill::plugin::types::{
    Batch, Column, Mode, OutColumn, Outcome, Plan, Relation, Shape, Source,
};

pub(super) use v0_1::exports::walmill::plugin::lifecycle;
pub(super) use v0_1::walmill::plugin::log::Level;

/// The package of every interface of every version.
pub(super) const PACKAGE: &str = "walmill:plugin";
