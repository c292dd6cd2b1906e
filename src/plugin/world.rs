//! The versions of the plugin's world that this host serves, side by side.
//!
//! Each version is one file below: its generated types turned into those that the host speaks
//! ([`super::bindings`]), its host functions written down in terms of [`Host`]'s own. Nothing else
//! in walmill knows a version's number. `wit/README.md` has the rule by which the world grows.

mod v0_1;

use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};
use wasmtime::error::format_err;

use super::bindings::lifecycle::{Description, Finding, Setup};
use super::bindings::{Batch, Outcome, PACKAGE, Plan, Relation};
use super::host::Host;
use crate::model::access::{Grant, Subscriber};

/// The versions, newest first.
pub(super) const WORLDS: &[World] = &[v0_1::WORLD];

/// One version of the world.
pub(super) struct World {
    /// As its package says it.
    pub(super) version: &'static str,
    /// What of the version matters to whether a guest fits: a guest that was made for another
    /// patch of the same minor version does.
    pub(super) minor: &'static str,
    /// Its source, for wrapping core modules.
    pub(super) wit: &'static str,
    /// The host's interfaces in it.
    pub(super) offers: &'static [&'static str],
    /// Makes those available to guests.
    pub(super) link: fn(&mut Linker<Host>) -> wasmtime::Result<()>,
    /// Finds the exports of a guest of this version.
    pub(super) find: fn(InstancePre<Host>, Role) -> wasmtime::Result<Box<dyn Linked>>,
}

/// What a plugin is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Filters, reshapes, routes: it stands in pipelines. The world `plugin`.
    Transform,
    /// Decides what each subscriber may see. The world `authorizer`.
    Authorizer,
}

impl Role {
    /// The name of its world in `wit/walmill.wit`.
    #[must_use]
    pub fn world(self) -> &'static str {
        match self {
            Self::Transform => "plugin",
            Self::Authorizer => "authorizer",
        }
    }

    /// The interface that makes it what it is.
    pub(super) fn interface(self) -> &'static str {
        match self {
            Self::Transform => "transform",
            Self::Authorizer => "authorize",
        }
    }

    /// The functions of that interface.
    pub(super) fn functions(self) -> &'static [&'static str] {
        match self {
            Self::Transform => &["on-relation", "process"],
            Self::Authorizer => &["open"],
        }
    }
}

/// A compiled guest whose imports are given and whose exports are found.
pub(super) trait Linked: Send + Sync {
    fn start(&self, store: &mut Store<Host>) -> wasmtime::Result<Box<dyn Guest>>;
}

/// The exports of a running guest, of whichever version, in the host's own types. The functions
/// of a role that it doesn't have answer with an error; [`Role`] says which it has.
pub(super) trait Guest: Send {
    fn describe(&self, store: &mut Store<Host>) -> wasmtime::Result<Description>;

    fn init(
        &self,
        store: &mut Store<Host>,
        setup: &Setup,
    ) -> wasmtime::Result<Result<(), Vec<Finding>>>;

    fn on_relation(
        &self,
        _: &mut Store<Host>,
        _: &Relation,
    ) -> wasmtime::Result<Result<Plan, String>> {
        Err(lacks(Role::Transform))
    }

    fn process(&self, _: &mut Store<Host>, _: &Batch) -> wasmtime::Result<Result<Outcome, String>> {
        Err(lacks(Role::Transform))
    }

    fn open(&self, _: &mut Store<Host>, _: &Subscriber) -> wasmtime::Result<Result<Grant, String>> {
        Err(lacks(Role::Authorizer))
    }
}

fn lacks(role: Role) -> wasmtime::Error {
    format_err!("the plugin does not export `{}`", role.interface())
}

/// One of our interfaces, of a version that is served.
pub(super) struct Interface<'a> {
    pub(super) world: &'static World,
    pub(super) name: &'a str,
}

impl Interface<'_> {
    /// Whether the host offers it to guests.
    pub(super) fn is_offered(&self) -> bool {
        self.name == "types" || self.world.offers.contains(&self.name)
    }
}

/// What `walmill:plugin/log@0.1.0`, or its short form `walmill:plugin/log@0.1`, means.
pub(super) fn interface<'a>(worlds: &'static [World], id: &'a str) -> Option<Interface<'a>> {
    let (name, version) = id.strip_prefix(PACKAGE)?.strip_prefix('/')?.split_once('@')?;
    let world = worlds.iter().find(|world| world.serves(version))?;
    Some(Interface { world, name })
}

impl World {
    fn serves(&self, version: &str) -> bool {
        let patch = version.strip_prefix(self.minor);
        patch.is_some_and(|patch| patch.is_empty() || patch.starts_with('.'))
    }
}
