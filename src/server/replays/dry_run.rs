//! What a replay would change with another version of a plugin. The version comes with the
//! request, as a plugin's upload does, or is one of the plugin's history.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri};

use super::super::Server;
use super::super::admin::latest;
use super::super::auth::{Reader, Role};
use super::super::guard::lacking;
use super::super::plugins::{JSON, ask, expect_type, file, not_asked_for};
use super::super::problem::{Parameters, Problem};
use super::{Place, Refusal, bad, in_store, known, range};
use crate::model::plugin::{Candidate, DryRun, PluginAnswer, PluginCommand, Tried};
use crate::model::replay::{Part, Times};

/// Differences that are shown, if nothing is said.
const EXAMPLES: usize = 5;
/// The same at most.
const MOST_EXAMPLES: usize = 100;

const PARAMETERS: [&str; 6] = ["pipeline", "plugin", "version", "from", "to", "examples"];

/// `POST /api/v1/replay/dry-run?pipeline=…&plugin=…&from=…`: the body is the file of the version,
/// or `{}` where `version=…` names one.
pub(in crate::server) async fn dry_run(
    State(server): State<Arc<Server>>,
    Extension(reader): Extension<Reader>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Tried>, Problem> {
    let asked = Parameters::read(&uri, &PARAMETERS)?;
    let required = |name: &'static str| {
        let missing = || bad(name, format!("`{name}` is missing"), "see docs/replay.md");
        asked.get(name).map(str::to_owned).ok_or_else(missing)
    };
    let (pipeline, from) = (required("pipeline")?, required("from")?);
    let part = Part::Pipeline(pipeline.clone());
    known(&server, &part)?;
    let plugin = match asked.get("plugin") {
        Some(plugin) => plugin.to_owned(),
        None => only_plugin(&server, &pipeline)?,
    };
    let epoch = server.state.store.epoch();
    let from = Place::read("from", &from, epoch)?;
    let to = asked.get("to").map_or(Ok(Place::Latest), |to| Place::read("to", to, epoch))?;
    let times = Times { not_before: from.time(), not_after: to.time() };
    let examples = examples(asked.get("examples"))?;
    let candidate = match asked.get("version") {
        Some(version) => {
            expect_type(&headers, JSON)?;
            Candidate::Version(version.to_owned())
        }
        None if reader.principal.role < Some(Role::Admin) => {
            return Err(lacking(&reader.principal, Some(Role::Admin)));
        }
        None => Candidate::File(file(&server, &plugin, &headers, body).await?),
    };
    let range = in_store(&server, move |store| range(store, &part, from, to)).await?;
    let range = range.ok_or(Refusal::Nothing)?;
    let cancel = server.shutdown.child_token();
    // Whoever asked may hang up.
    let _ended = cancel.clone().drop_guard();
    let wish = DryRun { pipeline, candidate, range, times, examples, cancel };
    match ask(&server, plugin, PluginCommand::DryRun(Box::new(wish))).await? {
        PluginAnswer::Tried(tried) => Ok(Json(*tried)),
        _ => Err(not_asked_for()),
    }
}

/// The plugin that is meant where none is named.
fn only_plugin(server: &Server, pipeline: &str) -> Result<String, Problem> {
    let all = latest(&server.state.pipelines);
    let found = all.into_iter().find(|status| status.name == pipeline);
    match found.map(|status| status.plugins).unwrap_or_default().as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(bad("plugin", format!("pipeline `{pipeline}` runs no plugin"), "name another")),
        many => {
            let message = format!("pipeline `{pipeline}` runs several plugins");
            Err(bad("plugin", message, &format!("name one of {}", many.join(", "))))
        }
    }
}

fn examples(text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(EXAMPLES) };
    let number = text.parse().ok().filter(|number| *number <= MOST_EXAMPLES);
    number.ok_or_else(|| {
        let message = format!("`{text}` is no number of examples");
        bad("examples", message, &format!("write a number up to {MOST_EXAMPLES}"))
    })
}
