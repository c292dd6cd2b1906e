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
