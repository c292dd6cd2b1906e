//! What a pipeline takes in, page by page: for a plugin's author who wants real changes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::Server;
use super::problem::{Parameters, Problem, name_in_path};
use super::pull::{read_limit, read_wait};
use super::replays::{Place, in_store, known};
use crate::model::input::Page;
use crate::model::replay::Part;
use crate::model::{Finding, Offset};

/// Changes of one page, if nothing is said.
const DEFAULT_LIMIT: usize = 100;

/// `GET /api/v1/pipelines/{name}/changes?from=…&limit=…&wait=…`
pub(super) async fn changes(
    State(server): State<Arc<Server>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    let pipeline = name_in_path(path)?;
    known(&server, &Part::Pipeline(pipeline.clone()))?;
    let asked = Parameters::read(&uri, &["from", "limit", "wait"])?;
    let from = asked.get("from").unwrap_or("latest");
    let from = Place::read("from", from, server.state.store.epoch())?;
    let limit = asked.get("limit").map_or(Ok(DEFAULT_LIMIT), read_limit)?;
    let wait = asked.get("wait").map_or(Ok(Duration::ZERO), read_wait)?;
    let mut after = in_store(&server, move |store| from.before(store)).await?;
    let mut visible = server.state.store.journal_reader(after).visible().clone();
    let deadline = Instant::now() + wait;
    let page = loop {
        // Seen before the read: what comes between the two is waited for no more.
        visible.mark_unchanged();
        let page = read(&server, &pipeline, after, limit).await?;
        if !page.changes.is_empty() || page.gap.is_some() || Instant::now() >= deadline {
            break page;
        }
        after = page.end;
        if after < end_of_journal(&server) {
            continue;
        }
        let waited = tokio::select! {
            waited = timeout_at(deadline, visible.changed()) => matches!(waited, Ok(Ok(()))),
            () = server.shutdown.cancelled() => false,
        };
        if !waited {
            break page;
        }
    };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body(page, &server)).into_response())
}

fn end_of_journal(server: &Server) -> Offset {
    Offset::end_of(server.state.store.last_commit())
}

async fn read(
    server: &Arc<Server>,
    pipeline: &str,
    after: Offset,
    limit: usize,
) -> Result<Page, Problem> {
    let (inputs, pipeline) = (Arc::clone(&server.state.inputs), pipeline.to_owned());
    let work = move || inputs.read(&pipeline, after, limit);
    match tokio::task::spawn_blocking(work).await {
        Ok(page) => Ok(page?),
        Err(_) => {
            let finding = Finding::error("cut-short", "", "walmill ends and could not do it");
            Err(finding.into())
        }
    }
}

fn body(page: Page, server: &Server) -> String {
    let (changes, next) = (page.changes.join(","), server.cursor(page.end));
    let more = page.end < end_of_journal(server);
    let gap = page.gap.map(|purged| {
        json!({
            "purged": server.cursor(purged).to_string(),
            "reason": "retention",
            "message": "the journal let go of changes behind the place asked for",
        })
    });
    let gap = json!(gap);
    format!("{{\"changes\":[{changes}],\"next\":\"{next}\",\"more\":{more},\"gap\":{gap}}}")
}
