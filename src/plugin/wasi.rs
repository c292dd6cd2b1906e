//! WASI 0.2 for guests whose languages cannot do without: a world with nothing in it.
//!
//! There are no files, no arguments, no sockets and no input; the environment has what the config
//! grants; what is written to standard output goes to the plugin's log. Clocks say the time of the
//! events ([`clocks`]), sleeping takes none, random numbers follow from the event's id. HTTP is
//! there where the config grants it ([`http`]), and makes a plugin's answers its own affair: they
//! need not be the same in a replay.

mod clocks;
pub(super) mod http;
mod output;
mod waits;

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::p2::add_to_linker_sync;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::bindings::sync::io::{poll, streams};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::add_only_http_to_linker_sync;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::host::Host;
use super::log::Log;
use http::Http;
use output::Output;
use waits::{Io, Waits};

/// Handles that a guest may hold at once: each takes memory of ours.
const MOST_HANDLES: usize = 10_000;

/// The packages whose interfaces are there.
const PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];

/// What an import of WASI is to us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Import {
    /// There, with nothing in it.
    Empty,
    /// There where it is granted.
    Http,
    /// Not there.
    Unknown,
}

/// `wasi:clocks/wall-clock@0.2.3` and the like; `None` for what is not WASI's.
pub(super) fn import(id: &str) -> Option<Import> {
    let (package, interface) = id.strip_prefix("wasi:")?.split_once('/')?;
    let (name, version) = interface.split_once('@').unwrap_or((interface, ""));
    Some(match package {
        _ if !version.starts_with("0.2.") => Import::Unknown,
        "http" if matches!(name, "types" | "outgoing-handler") => Import::Http,
        _ if PACKAGES.contains(&package) => Import::Empty,
        _ => Import::Unknown,
    })
}

/// What the config grants of the outside.
pub(super) struct Grants {
    /// Variables and their values.
    pub(super) env: Vec<(String, String)>,
    /// Where requests may go.
    pub(super) http: Option<Http>,
}

/// One instance's side of it.
pub(super) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    hooks: http::Hooks,
}

impl Wasi {
    pub(super) fn new(log: &Arc<Log>, grants: &Grants, longest_wait: Duration) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MOST_HANDLES);
        let ctx = WasiCtx::builder()
            .stdout(Output::info(log))
            .stderr(Output::warn(log))
            .envs(&grants.env)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        let hooks = http::Hooks::new(grants.http.clone(), longest_wait);
        Self { ctx, table, http: WasiHttpCtx::new(), hooks }
    }

    fn waits(&mut self) -> Waits<'_> {
        Waits { table: &mut self.table, hooks: &mut self.hooks }
    }

    /// A new call has its own time for requests.
    pub(super) fn begin_call(&mut self) {
        self.hooks.begin_call();
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let wasi = self.wasi();
        WasiHttpCtxView { hooks: &mut wasi.hooks, table: &mut wasi.table, ctx: &mut wasi.http }
    }
}

/// Makes it available to guests; whether one may have what it imports has been checked before.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    add_to_linker_sync(linker)?;
    add_only_http_to_linker_sync(linker)?;
    // In the place of the machine's.
    linker.allow_shadowing(true);
    wall_clock::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)?;
    monotonic_clock::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)?;
    random::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)?;
    insecure::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)?;
    insecure_seed::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)?;
    // Of these, some wait.
    poll::add_to_linker::<_, Io>(linker, |host| host.wasi().waits())?;
    streams::add_to_linker::<_, Io>(linker, |host| host.wasi().waits())?;
    linker.allow_shadowing(false);
    Ok(())
}

#[cfg(test)]
mod tests;
