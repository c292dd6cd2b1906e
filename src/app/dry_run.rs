//! What a replay would change with another version of a plugin, before anything is changed.

use std::sync::Arc;
use std::time::Duration;

use super::plugins::Stage;
use crate::config::finding::Finding;
use crate::model::plugin::{DryRun, Tried};
use crate::pipeline::shadow::{Range, Trial, compare};
use crate::plugin::{Plugin, Registry};

/// Processor time of one side's plugins at most: whoever asked waits for it.
const LONGEST: Duration = Duration::from_secs(100);

/// Runs the pipeline's chain as it is, and with the candidate in the plugin's place. Blocks.
pub(super) fn run(
    stage: &Stage,
    registry: &Registry,
    plugin: &str,
    wish: DryRun,
) -> Result<Tried, Finding> {
    let config = Arc::clone(&stage.config.borrow());
    let pipeline = config.pipelines.iter().find(|pipeline| pipeline.name == wish.pipeline);
    let Some(pipeline) = pipeline else {
        let message = format!("there is no pipeline `{}`", wish.pipeline);
        return Err(Finding::error("unknown-part", "pipeline", message));
    };
    let in_force = registry.snapshot();
    let current =
        in_force.by_name.get(plugin).filter(|_| pipeline.plugins.iter().any(|p| p == plugin));
    let Some(current) = current else {
        let message = format!("pipeline `{}` does not run a plugin `{plugin}`", pipeline.name);
        return Err(Finding::error("unknown-plugin", "plugin", message)
            .suggest(format!("it runs {}", pipeline.plugins.join(", "))));
    };
    let candidate = registry.candidate(plugin, &wish.candidate)?;
    let chain = |new: &Arc<Plugin>| {
        let pick = |name: &String| match name == plugin {
            true => Some(Arc::clone(new)),
            false => in_force.by_name.get(name).cloned(),
        };
        pipeline.plugins.iter().map(pick).collect::<Option<Vec<_>>>()
    };
    let (Some(before), Some(after)) = (chain(current), chain(&candidate)) else {
        let message = format!("the plugins of pipeline `{}` are being replaced", pipeline.name);
        return Err(Finding::error("busy", "pipeline", message).suggest("ask again in a moment"));
    };
    let trial = Trial {
        config: pipeline.clone(),
        before,
        after,
        range: Range::Between(wish.range.0, wish.range.1),
        times: wish.times,
        examples: wish.examples,
        longest: LONGEST,
        cancel: wish.cancel,
    };
    let comparison = compare(&stage.store, &trial)
        .map_err(|error| Finding::error("not-done", plugin, format!("it did not run: {error}")))?;
    let (version, in_force) = (candidate.version().to_string(), current.version().to_string());
    Ok(Tried { plugin: plugin.to_owned(), version, in_force, comparison })
}
