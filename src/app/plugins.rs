//! The plugins' registry among the other parts: where it remembers, what it tries new versions on,
//! and who asks it for changes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{RwLock, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{AppError, dry_run};
use crate::config::Config;
use crate::config::finding::Finding;
use crate::metrics::Metrics;
use crate::model::Offset;
use crate::model::access::Authorize;
use crate::model::input::{Page, ReadInput};
use crate::model::plugin::{
    PluginAnswer, PluginCommand, PluginRecord, PluginRequest, PluginRequests, Why,
};
use crate::model::replay::Times;
use crate::model::shadow::{Comparison, ShadowReport};
use crate::pipeline::input;
use crate::pipeline::shadow::{Range, Trial, compare};
use crate::plugin::authorizer::Authorizer;
use crate::plugin::registry::{Memory, NoMemory, Offered, Rehearsal};
use crate::plugin::{Engine, Plugin, Plugins, Registry, Role};
use crate::store::Store;

/// Differences that are kept for each pipeline.
const EXAMPLES: usize = 5;
/// Processor time that a version may use in a shadow run: the swap waits for it.
const LONGEST: Duration = Duration::from_secs(10);
/// Requests that wait.
const QUEUE: usize = 16;
/// Uploads and dry runs under way; each may take as long as a compilation and a shadow run.
const UPLOADS: usize = 2;

/// Loads the plugins of a config; those of walmill that runs remember in its store.
pub(super) fn open(
    config: &Config,
    cache: Option<&Path>,
    store: Option<&Store>,
    metrics: Arc<Metrics>,
) -> Result<Registry, AppError> {
    let engine = Engine::new(cache).context("start the plugin engine")?;
    let memory: Arc<dyn Memory> = match store {
        Some(store) => Arc::new(InStore(store.clone())),
        None => Arc::new(NoMemory),
    };
    let opened = Registry::open_with(&engine, config.plugins.clone(), metrics, memory);
    let registry =
        opened.map_err(|failed| AppError::Config(failed.into_iter().map(not_loaded).collect()))?;
    let plugins = registry.snapshot();
    let misplaced = misplaced(config, |name| Some(plugins.by_name.get(name)?.role()));
    if misplaced.is_empty() { Ok(registry) } else { Err(AppError::Config(misplaced)) }
}

/// Authorizers that stand in a pipeline: only their files say that they are such.
pub(super) fn misplaced(config: &Config, role: impl Fn(&str) -> Option<Role>) -> Vec<Finding> {
    let is_misplaced = |name: &&String| role(name) == Some(Role::Authorizer);
    let in_pipelines = config.pipelines.iter().enumerate().flat_map(|(at, pipeline)| {
        let names = pipeline.plugins.iter().filter(is_misplaced);
        names.map(move |name| (format!("pipeline[{at}].plugins"), name))
    });
    let finding = |(path, name): (String, &String)| {
        let message = format!("plugin `{name}` is an authorizer: it has nothing to do to events");
        Finding::error("plugin", path, message).suggest(format!("take `{name}` out of this list"))
    };
    in_pipelines.map(finding).collect()
}

/// The plugins that decide about readers, by name.
pub(super) fn authorizers(
    config: &Config,
    registry: &Registry,
) -> Result<BTreeMap<String, Arc<dyn Authorize>>, AppError> {
    let rules = config.server.auth.rules.iter().enumerate();
    let named = rules.filter_map(|(at, rule)| Some((at, rule.authorizer.as_ref()?)));
    let open = |(at, name): (usize, &String)| match Authorizer::new(registry, name) {
        Ok(authorizer) => Ok((name.clone(), Arc::new(authorizer) as Arc<dyn Authorize>)),
        Err(error) => {
            let path = format!("server.auth.rules[{at}].authorizer");
            Err(AppError::Config(vec![Finding::error("plugin", path, error.to_string())]))
        }
    };
    named.map(open).collect()
}

/// A plugin that does not load.
pub(super) fn not_loaded((name, error): (String, crate::plugin::LoadError)) -> Finding {
    let path = format!("plugins.{name}");
    Finding::error("plugin", path, format!("plugin `{name}`: {error}"))
}

/// Records of plugins, in the store.
struct InStore(Store);

impl Memory for InStore {
    fn recall(&self, plugin: &str) -> Option<PluginRecord> {
        let record = self.0.plugin_record(plugin);
        record.unwrap_or_else(|error| {
            error!(plugin, "its history is lost: {:#}", anyhow::Error::from(error));
            None
        })
    }

    fn keep(&self, plugin: &str, record: &PluginRecord) {
        if let Err(error) = self.0.save_plugin_record(plugin, record) {
            error!(plugin, "keep its history: {:#}", anyhow::Error::from(error));
        }
    }
}

/// Tries a version on the pipelines that run it.
pub(super) struct Stage {
    pub(super) store: Store,
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) shutdown: CancellationToken,
}

impl Rehearsal for Stage {
    fn rehearse(
        &self,
        in_force: &Plugins,
        candidate: &Arc<Plugin>,
        events: u32,
        cancel: &CancellationToken,
    ) -> ShadowReport {
        let config = Arc::clone(&self.config.borrow());
        let mut report = ShadowReport::default();
        let name = candidate.name();
        for pipeline in &config.pipelines {
            if !pipeline.plugins.iter().any(|plugin| plugin == name) {
                continue;
            }
            let chain = |new: Option<&Arc<Plugin>>| {
                let pick = |plugin: &String| match new {
                    Some(new) if plugin == name => Some(Arc::clone(new)),
                    _ => in_force.by_name.get(plugin).cloned(),
                };
                pipeline.plugins.iter().map(pick).collect::<Option<Vec<_>>>()
            };
            // A plugin that is not there has no version in force to compare with.
            let (Some(before), Some(after)) = (chain(None), chain(Some(candidate))) else {
                continue;
            };
            let trial = Trial {
                config: pipeline.clone(),
                before,
                after,
                range: Range::Last(events),
                times: Times::default(),
                examples: EXAMPLES,
                longest: LONGEST,
                cancel: cancel.clone(),
            };
            report.pipelines.push(compare(&self.store, &trial).unwrap_or_else(|error| {
                let cut = Some(format!("it could not be made: {error}"));
                Comparison { pipeline: pipeline.name.clone(), cut, ..Comparison::default() }
            }));
        }
        report
    }
}

impl ReadInput for Stage {
    fn read(&self, pipeline: &str, after: Offset, most: usize) -> Result<Page, Finding> {
        let config = Arc::clone(&self.config.borrow());
        let found = config.pipelines.iter().find(|config| config.name == pipeline);
        let Some(found) = found else {
            let message = format!("there is no pipeline `{pipeline}`");
            return Err(Finding::error("unknown-part", "pipeline", message));
        };
        input::read(&self.store, found, after, most).map_err(|error| {
            error!(pipeline, "read its input for a client: {:#}", anyhow::Error::from(error));
            Finding::error("store-failed", "", "the journal could not be read")
                .suggest("see walmill's log; it ends by itself when its store fails")
        })
    }
}

/// Does what is asked for about plugins, each wish by itself, until the shutdown. While the config
/// changes, wishes wait (`busy`).
pub(super) fn serve(
    registry: &Registry,
    stage: Arc<Stage>,
    busy: Arc<RwLock<()>>,
) -> (PluginRequests, impl Future<Output = anyhow::Result<()>> + use<>) {
    let (requests, mut asked) = mpsc::channel::<PluginRequest>(QUEUE);
    let (registry, shutdown) = (registry.clone(), stage.shutdown.clone());
    let uploads = Arc::new(Semaphore::new(UPLOADS));
    let serve = async move {
        loop {
            let request = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                request = asked.recv() => request,
            };
            let Some(PluginRequest { plugin, command, answer }) = request else { return Ok(()) };
            let permit = match command {
                PluginCommand::Upload(_) | PluginCommand::DryRun(_) => {
                    match Arc::clone(&uploads).try_acquire_owned() {
                        Ok(permit) => Some(permit),
                        Err(_) => {
                            // Whoever asked may have gone.
                            let _ = answer.send(Err(too_many(&plugin)));
                            continue;
                        }
                    }
                }
                _ => None,
            };
            let (registry, stage) = (registry.clone(), Arc::clone(&stage));
            let busy = Arc::clone(&busy);
            tokio::spawn(async move {
                // What changes nothing holds up no change of the config.
                let _quiet = match command {
                    PluginCommand::DryRun(_) => None,
                    _ => Some(busy.read_owned().await),
                };
                let work = move || act(&registry, &stage, &plugin, command);
                let done = tokio::task::spawn_blocking(work).await;
                drop(permit);
                let broken = |_| Err(Finding::error("cut-short", "", "walmill could not do it"));
                let _ = answer.send(done.unwrap_or_else(broken));
            });
        }
    };
    (requests, serve)
}

fn too_many(plugin: &str) -> Finding {
    Finding::error("busy", plugin, "other versions are being compiled and tried")
        .suggest("send it again in a moment")
}

fn act(
    registry: &Registry,
    stage: &Stage,
    name: &str,
    command: PluginCommand,
) -> Result<PluginAnswer, Finding> {
    let done = match command {
        PluginCommand::Upload(bytes) => match registry.offer_as(name, &bytes, Why::Upload) {
            Ok(Offered::InForce(done) | Offered::Waiting(done)) => *done,
            Ok(Offered::Known) => {
                let message = format!("this version of `{name}` is in force already");
                return Err(Finding::error("in-force", name, message));
            }
            Err(error) => return Err(Finding::error("refused", name, error.to_string())),
        },
        PluginCommand::RollBack(version) => registry.roll_back(name, version.as_deref())?,
        PluginCommand::Promote(version) => registry.promote(name, version.as_deref())?,
        PluginCommand::Pull(version) => {
            let (version, bytes) = registry.pull(name, version.as_deref())?;
            return Ok(PluginAnswer::File(version, bytes));
        }
        PluginCommand::DryRun(wish) => {
            let tried = dry_run::run(stage, registry, name, *wish)?;
            return Ok(PluginAnswer::Tried(Box::new(tried)));
        }
    };
    Ok(PluginAnswer::Done(Box::new(done)))
}
