//! A new version on trial: it is put in force only if it starts, takes its config, and takes the
//! relations that the version in force takes. Nothing of the trial is seen outside.

use std::sync::{Arc, Mutex, OnceLock};

use super::bindings::lifecycle;
use super::component;
use super::error::{LoadError, Reason};
use super::log::Log;
use super::meters::Meters;
use super::program::{Program, Relations};
use super::text::clean;
use super::world::Role;
use super::{
    Allow, CallError, Config, Description, Engine, Instance, NoState, Plugin, Scratch, State,
};

const LONGEST_NAME: usize = 100;

/// What the versions of one plugin share.
pub(super) struct Family {
    pub(super) name: String,
    pub(super) config: Config,
    pub(super) log: Arc<Log>,
    pub(super) meters: Arc<Meters>,
    pub(super) relations: Arc<Relations>,
    /// Of the first version that worked: whoever uses the plugin counts on it.
    pub(super) role: OnceLock<Role>,
}

impl Family {
    /// A version that works, made from the bytes of a file.
    pub(super) fn load(&self, engine: &Engine, bytes: &[u8]) -> Result<Plugin, LoadError> {
        let compiled = component::load(engine, &self.name, &self.config, bytes)?;
        let program = Arc::new(Program {
            name: self.name.clone(),
            compiled,
            limits: self.config.limits,
            log: self.log.clone(),
            meters: self.meters.clone(),
            relations: self.relations.clone(),
        });
        let offered = program.compiled.role;
        let plugin = self.prove(program).map_err(|reason| self.refused(reason))?;
        let in_force = *self.role.get_or_init(|| offered);
        if offered != in_force {
            return Err(self.refused(Reason::OtherRole { offered, in_force }));
        }
        Ok(plugin)
    }

    pub(super) fn refused(&self, reason: Reason) -> LoadError {
        LoadError { plugin: self.name.clone(), path: self.config.path.clone(), reason }
    }

    fn prove(&self, program: Arc<Program>) -> Result<Plugin, Reason> {
        let description = self.describe(&program)?;
        let config = serde_json::Value::Object(self.config.config.clone()).to_string();
        let (seen, failed) = Default::default();
        let plugin = Plugin { program, config, description, seen, failed };
        let mut instance = plugin
            .instantiate(0, 1, true, scratch(self.config.allow))
            .map_err(|error| Reason::Call { call: "init", error })?;
        for relation in self.relations.all() {
            instance.on_relation(&relation).map_err(|error| Reason::Relation {
                relation: format!("{}.{}", relation.schema, relation.table),
                error,
            })?;
        }
        Ok(plugin)
    }

    /// On an instance of its own: `describe` comes before anything is granted.
    fn describe(&self, program: &Arc<Program>) -> Result<Description, Reason> {
        let failed = |call| move |error: CallError| Reason::Call { call, error };
        let mut instance = Instance::start(program, true, Arc::new(Mutex::new(NoState)))
            .map_err(failed("start"))?;
        let told = instance.describe().map_err(failed("describe"))?;
        check_wants(&told, &self.name, self.config.allow)?;
        Ok(Description {
            name: clean(&told.name, LONGEST_NAME),
            version: clean(&told.version, LONGEST_NAME),
            config_schema: told.config_schema,
        })
    }
}

fn scratch(allow: Allow) -> Arc<Mutex<dyn State + Send>> {
    if allow.kv { Arc::new(Mutex::new(Scratch::default())) } else { Arc::new(Mutex::new(NoState)) }
}

fn check_wants(told: &lifecycle::Description, plugin: &str, allow: Allow) -> Result<(), Reason> {
    for want in &told.wants {
        match want.as_str() {
            "log" | "clock" | "metrics" => {}
            "kv" if allow.kv => {}
            "kv" => return Err(Reason::NotGranted { what: "kv".into(), plugin: plugin.into() }),
            other => return Err(Reason::Unknown(clean(other, LONGEST_NAME))),
        }
    }
    Ok(())
}
