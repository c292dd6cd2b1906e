//! Why a file does not become a plugin, in words for the person who put it there.

use std::io;
use std::path::PathBuf;

use super::instance::CallError;
use super::world::Role;
use crate::model::quantity::{ByteSize, Period};

/// Why a file does not become a plugin.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin} ({}): {reason}", path.display())]
pub struct LoadError {
    /// The plugin's name in the config.
    pub plugin: String,
    /// Its file.
    pub path: PathBuf,
    /// What is wrong.
    #[source]
    pub reason: Reason,
}

/// What is wrong with a plugin's file.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// Its shadow run was ended, by a change of the config or a shutdown.
    #[error("its shadow run was cut short, so nothing is decided: offer it again")]
    CutShort,
    /// It cannot be read.
    #[error("{error}; `plugins.{plugin}.path` must name a file that walmill can read")]
    Unreadable {
        /// The plugin's name.
        plugin: String,
        /// What the system says.
        error: io::Error,
    },
    /// Larger than allowed.
    #[error(
        "{size} bytes, more than the limit of {limit}; \
         make it smaller or raise `plugins.{plugin}.limits.file`"
    )]
    TooLarge {
        /// Its size.
        size: u64,
        /// `limits.file`
        limit: ByteSize,
        /// The plugin's name.
        plugin: String,
    },
    /// Something else than WebAssembly.
    #[error("not a WebAssembly binary: {0}")]
    NotWasm(&'static str),
    /// WebAssembly that cannot be compiled.
    #[error("damaged, cut short, or using a feature that walmill does not have: {0}")]
    Damaged(String),
    /// It takes the compiler too long.
    #[error("takes more than {limit} to compile: raise `plugins.{plugin}.limits.compile_time`")]
    CompileTime {
        /// `limits.compile_time`
        limit: Period,
        /// The plugin's name.
        plugin: String,
    },
    /// It takes the compiler too much memory.
    #[error(
        "takes more than {limit} of memory to compile: raise \
         `plugins.{plugin}.limits.compile_memory`"
    )]
    CompileMemory {
        /// `limits.compile_memory`
        limit: ByteSize,
        /// The plugin's name.
        plugin: String,
    },
    /// The process that compiles does not start.
    #[error("cannot be compiled, since the compiler does not start: {0}")]
    Compiler(String),
    /// A core module that cannot be made a component.
    #[error("core module cannot be made a component: {0}")]
    Wrap(String),
    /// It imports something else than what the world offers.
    #[error(
        "imports `{0}`, which walmill does not offer; \
         it offers log, clock, metrics and kv of `walmill:plugin@0.1`, and WASI 0.2"
    )]
    Import(String),
    /// It makes requests, which the config does not grant.
    #[error(
        "uses `wasi:http`, which is not granted; if it may, name where its requests may go: \
         `plugins.{0}.allow.http = [\"https://…\"]`"
    )]
    HttpNotGranted(String),
    /// What the config grants is not there.
    #[error(
        "`plugins.{plugin}.allow.env` grants `{variable}`, which walmill's environment does not \
         have as text; set it, or take it out of the list"
    )]
    NoVariable {
        /// The variable's name.
        variable: String,
        /// The plugin's name.
        plugin: String,
    },
    /// No client for requests can be made.
    #[error("no requests can be made: {0}")]
    Http(String),
    /// It uses something that the config does not grant.
    #[error(
        "uses `{what}`, which is not granted; if it may, set `plugins.{plugin}.allow.{what} = true`"
    )]
    NotGranted {
        /// The interface's name.
        what: String,
        /// The plugin's name.
        plugin: String,
    },
    /// It says that it wants something which there is none of.
    #[error("wants `{0}`, which walmill does not offer")]
    Unknown(String),
    /// It lacks exports.
    #[error("does not export `{}`; a plugin is of the world `plugin` in wit/walmill.wit", .0.join("`, `"))]
    Exports(Vec<String>),
    /// Its imports or exports are not of the world's types.
    #[error(
        "does not fit the world `{world}` in wit/walmill.wit; build it against this version: \
         {error}"
    )]
    Mismatch {
        /// The world that it is made for.
        world: &'static str,
        /// What does not fit.
        error: String,
    },
    /// It exports what makes a plugin of pipelines, and what makes an authorizer.
    #[error("exports both `transform` and `authorize`; make two plugins of it")]
    TwoRoles,
    /// An authorizer that wants to keep something.
    #[error("imports `kv`, but an authorizer has no keyed state: it decides by what it is asked")]
    NoState,
    /// A new version that is for something else.
    #[error(
        "is of the world `{}`, but the version in force is of `{}`, and is used as such",
        offered.world(), in_force.world()
    )]
    OtherRole {
        /// What the new version is.
        offered: Role,
        /// What is in force.
        in_force: Role,
    },
    /// A first call went wrong.
    #[error("`{call}` failed: {error}")]
    Call {
        /// The function.
        call: &'static str,
        /// How.
        #[source]
        error: CallError,
    },
    /// It does not take a relation that the version in force takes.
    #[error("does not take {relation}, which the version in force takes: {error}")]
    Relation {
        /// The relation's schema and table.
        relation: String,
        /// Why.
        #[source]
        error: CallError,
    },
    /// The shadow run speaks against it.
    #[error("{0}")]
    Shadow(String),
    /// The config has no plugin of that name.
    #[error("the config has no `[plugins.{0}]`")]
    NotConfigured(String),
}
