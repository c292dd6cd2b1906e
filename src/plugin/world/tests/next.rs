//! The made-up version's one file: where its types differ, and what becomes of that.

use wasmtime::Store;
use wasmtime::component::{HasSelf, InstancePre, Linker};

use super::super::{Guest, Linked, Role, World};
use crate::plugin::bindings::lifecycle::{Description, Finding, Setup};
use crate::plugin::bindings::{Batch, Outcome, Plan, Relation};
use crate::plugin::host::Host;

mod v0_2 {
    wasmtime::component::bindgen!({
        path: ["wit", "src/plugin/world/tests/next.wit"],
        world: "walmill:plugin/plugin@0.2.0",
        with: {
            "walmill:plugin/types@0.1.0": crate::plugin::bindings::v0_1::walmill::plugin::types,
            "walmill:plugin/log@0.1.0": crate::plugin::bindings::v0_1::walmill::plugin::log,
        },
        imports: { "walmill:plugin/clock.now": trappable },
    });
}

use v0_2::exports::walmill::plugin0_2_0::{lifecycle, transform};
use v0_2::walmill::plugin0_2_0::clock;

pub(super) const WORLD: World = World {
    version: "0.2.0",
    minor: "0.2",
    wit: &[include_str!("../../../../wit/walmill.wit"), include_str!("next.wit")],
    offers: &["clock"],
    link,
    find,
};

fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    clock::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)
}

fn find(pre: InstancePre<Host>, _: Role) -> wasmtime::Result<Box<dyn Linked>> {
    let lifecycle = lifecycle::GuestIndices::new(&pre)?;
    let transform = transform::GuestIndices::new(&pre)?;
    Ok(Box::new(Found { pre, lifecycle, transform }))
}

struct Found {
    pre: InstancePre<Host>,
    lifecycle: lifecycle::GuestIndices,
    transform: transform::GuestIndices,
}

impl Linked for Found {
    fn start(&self, store: &mut Store<Host>) -> wasmtime::Result<Box<dyn Guest>> {
        let instance = self.pre.instantiate(&mut *store)?;
        let lifecycle = self.lifecycle.load(&mut *store, &instance)?;
        let transform = self.transform.load(store, &instance)?;
        Ok(Box::new(Transform { lifecycle, transform }))
    }
}

struct Transform {
    lifecycle: lifecycle::Guest,
    transform: transform::Guest,
}

impl Guest for Transform {
    fn describe(&self, store: &mut Store<Host>) -> wasmtime::Result<Description> {
        let told = self.lifecycle.call_describe(store)?;
        let lifecycle::Description { name, version, wants, config_schema, license: _ } = told;
        Ok(Description { name, version, wants, config_schema })
    }

    fn init(
        &self,
        store: &mut Store<Host>,
        setup: &Setup,
    ) -> wasmtime::Result<Result<(), Vec<Finding>>> {
        let Setup { config, worker, workers, dry_run } = setup.clone();
        let answer = self
            .lifecycle
            .call_init(store, &lifecycle::Setup { config, worker, workers, dry_run })?;
        let finding = |f: lifecycle::Finding| Finding { path: f.path, message: f.message };
        Ok(answer.map_err(|findings| findings.into_iter().map(finding).collect()))
    }

    fn on_relation(
        &self,
        store: &mut Store<Host>,
        relation: &Relation,
    ) -> wasmtime::Result<Result<Plan, String>> {
        self.transform.call_on_relation(store, relation)
    }

    fn process(
        &self,
        store: &mut Store<Host>,
        batch: &Batch,
    ) -> wasmtime::Result<Result<Outcome, String>> {
        self.transform.call_process(store, batch, 1)
    }
}

impl clock::Host for Host {
    fn now(&mut self) -> wasmtime::Result<i64> {
        Ok(Host::now(self)?.saturating_mul(1_000))
    }
}
