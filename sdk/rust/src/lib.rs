//! Write walmill plugins in Rust.
//!
//! A plugin says in [`Transform::on_relation`] what it needs of a table, then answers batches of
//! changes with a verdict for each: pass it on, drop it, reject it, send it to another stream, or
//! emit other rows in its place.
//!
//! ```
//! use walmill_plugin::{Batch, Config, Finding, Plan, Relation, Transform, Verdicts};
//!
//! /// Keeps what happens in one country.
//! struct Local {
//!     country: String,
//! }
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Settings {
//!     country: String,
//! }
//!
//! impl Transform for Local {
//!     fn new(config: Config) -> Result<Self, Vec<Finding>> {
//!         let settings: Settings = config.parse()?;
//!         Ok(Self { country: settings.country })
//!     }
//!
//!     fn on_relation(&mut self, relation: &Relation) -> Result<Plan, String> {
//!         Ok(Plan::call([relation.require("country")?]))
//!     }
//!
//!     fn process(&mut self, batch: &Batch, verdicts: &mut Verdicts) -> Result<(), String> {
//!         for event in batch.events() {
//!             if event.row().text("country") != Some(&self.country) {
//!                 verdicts.drop(&event);
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! walmill_plugin::export!(Local);
//! ```
//!
//! A plugin that only keeps or drops rows is shorter still: see [`filter!`].
//!
//! Build it as a `cdylib` for `wasm32-unknown-unknown`; walmill loads the file as it is. Only the
//! columns that a plan names cross into the plugin, so name few. Nothing here allocates per event
//! unless rows are emitted or events rejected.

#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "plugin",
        pub_export_macro: true,
        export_macro_name: "export_world",
        default_bindings_module: "walmill_plugin::bindings",
    });
}

mod batch;
mod config;
mod filter;
#[doc(hidden)]
pub mod glue;
pub mod kv;
pub mod log;
pub mod metrics;
mod plan;
mod relation;
pub mod template;
pub mod text;
mod verdicts;

pub use batch::{Batch, Cell, Event, Op, Row};
pub use bindings::exports::walmill::plugin::lifecycle::Finding;
pub use bindings::walmill::plugin::types::{Column, OutColumn, Plan, Relation, Shape};
pub use config::{Config, did_you_mean};
pub use plan::column;
pub use relation::{Needs, PerRelation, Tables, tag};
#[doc(hidden)]
pub use serde;
pub use verdicts::{Route, RowWriter, Text, Verdicts};

/// A plugin. [`export!`] makes it the one in the file.
pub trait Transform: Sized {
    /// JSON Schema of the configuration, or nothing.
    const CONFIG_SCHEMA: &str = "";

    /// What of the host it means to use beside log, clock and metrics, as `kv`: a configuration
    /// that doesn't grant it is refused when the plugin is loaded.
    const WANTS: &[&str] = &[];

    /// Takes the configuration.
    ///
    /// # Errors
    /// What is wrong with it; the generation in force keeps running.
    fn new(config: Config) -> Result<Self, Vec<Finding>>;

    /// Says what the plugin needs of a table. Called before its first change, and again, with a
    /// new [`Relation::id`], when its definition changes.
    ///
    /// # Errors
    /// Why this table is none for this plugin, for the person who configured it.
    fn on_relation(&mut self, relation: &Relation) -> Result<Plan, String>;

    /// Judges a batch. An event without a verdict passes.
    ///
    /// # Errors
    /// Fails the whole batch. It is tried again in ever smaller parts, down to the event that
    /// causes it.
    fn process(&mut self, batch: &Batch, verdicts: &mut Verdicts) -> Result<(), String>;
}

/// Exports a [`Transform`] as this file's plugin, under the crate's name and version.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        const _: () = {
            use $crate::bindings::exports::walmill::plugin::{lifecycle, transform};
            use $crate::bindings::walmill::plugin::types;
            use $crate::glue::Running;

            ::std::thread_local! {
                static RUNNING: ::std::cell::RefCell<Running<$plugin>> =
                    const { ::std::cell::RefCell::new(Running::new()) };
            }

            struct Exports;

            impl lifecycle::Guest for Exports {
                fn describe() -> lifecycle::Description {
                    lifecycle::Description {
                        name: ::std::env!("CARGO_PKG_NAME").into(),
                        version: ::std::env!("CARGO_PKG_VERSION").into(),
                        wants: <$plugin as $crate::Transform>::WANTS
                            .iter()
                            .map(|&want| want.into())
                            .collect(),
                        config_schema: <$plugin as $crate::Transform>::CONFIG_SCHEMA.into(),
                    }
                }

                fn init(
                    setup: lifecycle::Setup,
                ) -> ::std::result::Result<(), ::std::vec::Vec<$crate::Finding>> {
                    RUNNING.with_borrow_mut(|running| running.init(setup))
                }
            }

            impl transform::Guest for Exports {
                fn on_relation(
                    relation: types::Relation,
                ) -> ::std::result::Result<types::Plan, ::std::string::String> {
                    RUNNING.with_borrow_mut(|running| running.on_relation(&relation))
                }

                fn process(
                    batch: types::Batch,
                ) -> ::std::result::Result<types::Outcome, ::std::string::String> {
                    RUNNING.with_borrow_mut(|running| running.process(&batch))
                }
            }

    $crate::bindings::export_world!(Exports with_types_in $crate::bindings);
        };
    };
}
