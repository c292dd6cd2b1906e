//! Version 0.1 of the world. Its types are the host's own, so nothing is turned into anything on
//! the way of a batch.

use wasmtime::Store;
use wasmtime::component::{HasSelf, Instance, InstancePre, Linker};

use super::{Guest, Linked, Role, World};
use crate::model::access::{Grant, RowKey, Subscriber};
use crate::plugin::bindings::lifecycle::{Description, Finding, Setup};
use crate::plugin::bindings::v0_1::exports::walmill::plugin::{authorize, lifecycle, transform};
use crate::plugin::bindings::v0_1::walmill::plugin::{clock, kv, log, metrics, types};
use crate::plugin::bindings::{Batch, Outcome, Plan, Relation, v0_1};
use crate::plugin::host::Host;
use crate::plugin::state::StateError;

/// See the module.
pub(super) const WORLD: World = World {
    version: "0.1.0",
    minor: "0.1",
    wit: include_str!("../../../wit/walmill.wit"),
    offers: &["log", "clock", "metrics", "kv"],
    link,
    find,
};

fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    v0_1::Role::add_to_linker::<_, HasSelf<Host>>(linker, |host| host)
}

fn find(pre: InstancePre<Host>, role: Role) -> wasmtime::Result<Box<dyn Linked>> {
    let lifecycle = lifecycle::GuestIndices::new(&pre)?;
    Ok(match role {
        Role::Transform => {
            let work = transform::GuestIndices::new(&pre)?;
            Box::new(Found { pre, lifecycle, work })
        }
        Role::Authorizer => {
            let work = authorize::GuestIndices::new(&pre)?;
            Box::new(Found { pre, lifecycle, work })
        }
    })
}

/// Where the exports are.
struct Found<W> {
    pre: InstancePre<Host>,
    lifecycle: lifecycle::GuestIndices,
    work: W,
}

impl<W> Found<W> {
    fn begin(&self, store: &mut Store<Host>) -> wasmtime::Result<(Instance, lifecycle::Guest)> {
        let instance = self.pre.instantiate(&mut *store)?;
        let lifecycle = self.lifecycle.load(store, &instance)?;
        Ok((instance, lifecycle))
    }
}

impl Linked for Found<transform::GuestIndices> {
    fn start(&self, store: &mut Store<Host>) -> wasmtime::Result<Box<dyn Guest>> {
        let (instance, lifecycle) = self.begin(store)?;
        let transform = self.work.load(store, &instance)?;
        Ok(Box::new(Transform { lifecycle, transform }))
    }
}

impl Linked for Found<authorize::GuestIndices> {
    fn start(&self, store: &mut Store<Host>) -> wasmtime::Result<Box<dyn Guest>> {
        let (instance, lifecycle) = self.begin(store)?;
        let authorize = self.work.load(store, &instance)?;
        Ok(Box::new(Authorizer { lifecycle, authorize }))
    }
}

struct Transform {
    lifecycle: lifecycle::Guest,
    transform: transform::Guest,
}

impl Guest for Transform {
    fn describe(&self, store: &mut Store<Host>) -> wasmtime::Result<Description> {
        self.lifecycle.call_describe(store)
    }

    fn init(
        &self,
        store: &mut Store<Host>,
        setup: &Setup,
    ) -> wasmtime::Result<Result<(), Vec<Finding>>> {
        self.lifecycle.call_init(store, setup)
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
        self.transform.call_process(store, batch)
    }
}

struct Authorizer {
    lifecycle: lifecycle::Guest,
    authorize: authorize::Guest,
}

impl Guest for Authorizer {
    fn describe(&self, store: &mut Store<Host>) -> wasmtime::Result<Description> {
        self.lifecycle.call_describe(store)
    }

    fn init(
        &self,
        store: &mut Store<Host>,
        setup: &Setup,
    ) -> wasmtime::Result<Result<(), Vec<Finding>>> {
        self.lifecycle.call_init(store, setup)
    }

    fn open(
        &self,
        store: &mut Store<Host>,
        subscriber: &Subscriber,
    ) -> wasmtime::Result<Result<Grant, String>> {
        let Subscriber { stream, claims, params, remote } = subscriber;
        let subscriber = authorize::Subscriber {
            stream_name: stream.clone(),
            claims: claims.clone(),
            params: params.clone(),
            remote: remote.clone(),
        };
        Ok(self.authorize.call_open(store, &subscriber)?.map(grant))
    }
}

fn grant(grant: authorize::Grant) -> Grant {
    let key = |key: authorize::RowKey| RowKey { column: key.column, values: key.values };
    Grant {
        rows: grant.rows.into_iter().map(key).collect(),
        hidden: grant.hidden,
        ask_again: Grant::after_seconds(grant.ask_again),
    }
}

impl types::Host for Host {}

impl log::Host for Host {
    fn enabled(&mut self, level: log::Level) -> bool {
        Host::enabled(level)
    }

    fn log(&mut self, level: log::Level, message: String) {
        Host::log(self, level, &message);
    }
}

impl clock::Host for Host {
    fn now(&mut self) -> i64 {
        self.now
    }
}

impl metrics::Host for Host {
    fn counter(&mut self, name: String, _help: String) -> u32 {
        Host::counter(self, &name)
    }

    fn gauge(&mut self, name: String, _help: String) -> u32 {
        Host::gauge(self, &name)
    }

    fn add(&mut self, id: u32, delta: u64) {
        self.meters.add(id, delta);
    }

    fn set(&mut self, id: u32, value: f64) {
        self.meters.set(id, value);
    }
}

impl kv::Host for Host {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, kv::Error> {
        Ok(Host::get(self, &key)?)
    }

    fn get_many(&mut self, keys: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, kv::Error> {
        Ok(Host::get_many(self, &keys)?)
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), kv::Error> {
        Ok(Host::set(self, &key, value)?)
    }

    fn delete(&mut self, key: String) -> Result<(), kv::Error> {
        Ok(Host::delete(self, &key)?)
    }
}

impl From<StateError> for kv::Error {
    fn from(error: StateError) -> Self {
        match error {
            StateError::TooLarge => Self::TooLarge,
            StateError::Quota => Self::Quota,
            StateError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}
