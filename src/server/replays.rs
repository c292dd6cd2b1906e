//! Replays over HTTP: ask for one, see how it gets on, end it; or only see what it would change.

mod dry_run;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

pub(super) use dry_run::dry_run;

use super::Server;
use super::admin::latest;
use super::problem::Problem;
use crate::model::finding::did_you_mean;
use crate::model::replay::{Part, Replay, ReplayState};
use crate::model::{Cursor, Epoch, EventId, Finding, Lsn, Offset, clock};
use crate::store::{Store, StoreError};

/// Replays, as every answer here has them.
#[derive(Debug, Serialize)]
pub(super) struct List {
    replays: Vec<Replay>,
}

/// What is to be replayed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    pipeline: Option<String>,
    output: Option<String>,
    from: String,
    to: Option<String>,
}

/// `GET /api/v1/replay`
pub(super) async fn list(State(server): State<Arc<Server>>) -> Result<Json<List>, Problem> {
    let replays = in_store(&server, |store| {
        let replays = store.replays()?;
        replays.into_iter().map(|replay| with_place(store, replay)).collect()
    });
    Ok(Json(List { replays: replays.await? }))
}

/// An output's place is its checkpoint: the one that has furthest to go.
fn with_place(store: &Store, mut replay: Replay) -> Result<Replay, StoreError> {
    if let (Part::Output(output), ReplayState::Running) = (&replay.part, &replay.state) {
        let mut at = None::<Offset>;
        for rewound in &replay.streams {
            let place = store.checkpoint(output, &rewound.stream)?.unwrap_or(Offset::START);
            at = Some(at.map_or(place, |at| at.min(place)));
        }
        replay.at = at.unwrap_or(replay.at).min(replay.to);
    }
    Ok(replay)
}

/// `POST /api/v1/replay`
pub(super) async fn ask(
    State(server): State<Arc<Server>>,
    body: Bytes,
) -> Result<(StatusCode, Json<List>), Problem> {
    let request: Request = serde_json::from_slice(&body).map_err(|error| {
        let example = r#"send JSON, as in {"pipeline": "orders", "from": "16/B374D848"}"#;
        bad("", format!("the body: {error}"), example)
    })?;
    let part = match (request.pipeline, request.output) {
        (Some(pipeline), None) => Part::Pipeline(pipeline),
        (None, Some(output)) => Part::Output(output),
        _ => return Err(bad("", "who replays?".into(), "name one `pipeline` or one `output`")),
    };
    known(&server, &part)?;
    let epoch = server.state.store.epoch();
    let from = Place::read("from", &request.from, epoch)?;
    let to = request.to.map_or(Ok(Place::Latest), |to| Place::read("to", &to, epoch))?;
    let asked = in_store(&server, move |store| {
        let times = (from.time(), to.time());
        let Some(range) = range(store, &part, from, to)? else {
            return Ok(Err(Refusal::Nothing));
        };
        Ok(store.ask_for_replay(part.clone(), range, times)?.ok_or(Refusal::Open(part)))
    });
    match asked.await? {
        Ok(replay) => Ok((StatusCode::ACCEPTED, Json(List { replays: vec![replay] }))),
        Err(refusal) => Err(refusal.into()),
    }
}

/// What lies between two places, of what the part has done and the store still has.
fn range(
    store: &Store,
    part: &Part,
    from: Place,
    to: Place,
) -> Result<Option<(Offset, Offset)>, StoreError> {
    let (from, to) = (from.before(store)?, to.behind(store)?.min(furthest(store, part)?));
    let from = match part {
        Part::Pipeline(_) => from.max(Offset::end_of(store.journal_purged()).min(to)),
        Part::Output(_) => from,
    };
    Ok((from < to).then_some((from, to)))
}

/// How far a part is at the most: what lies behind is new to it, and nothing to replay.
fn furthest(store: &Store, part: &Part) -> Result<Offset, StoreError> {
    match part {
        Part::Pipeline(name) => Ok(store.pipeline_cursor(name)?.unwrap_or(Offset::START)),
        Part::Output(_) => Ok(Offset::end_of(Lsn(u64::MAX))),
    }
}

/// `POST /api/v1/replay/{pipeline|output}/{name}/cancel`
pub(super) async fn cancel(
    State(server): State<Arc<Server>>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<List>, Problem> {
    let wrong = |message| bad("", message, "write /api/v1/replay/pipeline/NAME/cancel");
    let Path((kind, name)) = path.map_err(|error| wrong(error.body_text()))?;
    let part = match kind.as_str() {
        "pipeline" => Part::Pipeline(name),
        "output" => Part::Output(name),
        _ => return Err(wrong(format!("`{kind}` replays nothing"))),
    };
    known(&server, &part)?;
    match in_store(&server, move |store| store.cancel_replay(&part)).await? {
        Some(replay) => Ok(Json(List { replays: vec![replay] })),
        None => {
            let finding = Finding::error("no-replay", "", "there is no replay to end");
            Err(Problem::new(StatusCode::CONFLICT, finding))
        }
    }
}

pub(super) fn known(server: &Server, part: &Part) -> Result<(), Problem> {
    let state = &server.state;
    let (kind, name, names): (_, _, Vec<String>) = match part {
        Part::Pipeline(name) => {
            let names = latest(&state.pipelines).into_iter().map(|pipeline| pipeline.name);
            ("pipeline", name, names.collect())
        }
        Part::Output(name) => {
            let names = latest(&state.outputs).into_iter().map(|output| output.name);
            ("output", name, names.collect())
        }
    };
    if names.contains(name) {
        return Ok(());
    }
    let suggestion = match did_you_mean(name, names.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there are: {}", names.join(", ")),
    };
    let message = format!("there is no {kind} `{name}`");
    Err(Problem::not_found(Finding::error("unknown-part", kind, message).suggest(suggestion)))
}

/// One end of what is replayed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Earliest,
    Latest,
    /// A transaction, by its commit.
    Commit(Lsn),
    /// An event.
    Event(Offset),
    /// What a client has seen last.
    Cursor(Offset),
    /// Microseconds since 1970-01-01 UTC.
    Time(i64),
}

impl Place {
    pub(super) fn read(key: &'static str, text: &str, epoch: Epoch) -> Result<Self, Problem> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(lsn) = text.parse() {
            return Ok(Self::Commit(lsn));
        }
        if let Ok(EventId(offset)) = text.parse() {
            return Ok(Self::Event(offset));
        }
        if let Some(time) = clock::parse(text) {
            return Ok(Self::Time(time));
        }
        match text.parse::<Cursor>() {
            Ok(cursor) if cursor.epoch == epoch => Ok(Self::Cursor(cursor.offset)),
            Ok(_) => {
                Err(bad(key, "the cursor is of another store".into(), "name an LSN or a time"))
            }
            Err(_) => {
                let message = format!("`{text}` is no place");
                let suggestion = "write an LSN (16/B374D848), a time (2026-11-25T09:30:00Z), an \
                                  event's id, a cursor, earliest or latest";
                Err(bad(key, message, suggestion))
            }
        }
    }

    fn time(self) -> Option<i64> {
        match self {
            Self::Time(time) => Some(time),
            _ => None,
        }
    }

    /// What lies behind it begins here.
    pub(super) fn before(self, store: &Store) -> Result<Offset, StoreError> {
        Ok(match self {
            Self::Earliest => Offset::START,
            Self::Latest => Offset::end_of(store.last_commit()),
            Self::Commit(lsn) => before(lsn),
            Self::Event(Offset { commit, ordinal, .. }) => match ordinal.checked_sub(1) {
                Some(ordinal) => Offset::new(commit, ordinal).end(),
                None => before(commit),
            },
            Self::Cursor(offset) => offset,
            Self::Time(time) => store.journal_before(time)?,
        })
    }

    /// What it is the end of ends here.
    fn behind(self, store: &Store) -> Result<Offset, StoreError> {
        Ok(match self {
            Self::Earliest => Offset::START,
            Self::Latest => Offset::end_of(store.last_commit()),
            Self::Commit(lsn) => Offset::end_of(lsn),
            Self::Event(offset) => Offset::new(offset.commit, offset.ordinal).end(),
            Self::Cursor(offset) => offset,
            // The replay itself looks at the time.
            Self::Time(_) => Offset::end_of(store.last_commit()),
        })
    }
}

/// Everything up to the transaction before this one.
fn before(commit: Lsn) -> Offset {
    match commit.0.checked_sub(1) {
        Some(last) if last > 0 => Offset::end_of(Lsn(last)),
        _ => Offset::START,
    }
}

/// Why nothing is replayed.
enum Refusal {
    Nothing,
    Open(Part),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let finding = match refusal {
            Refusal::Nothing => {
                Finding::error("nothing-to-replay", "from", "nothing was done between these places")
                    .suggest("what is new comes by itself; `earliest` is all that is kept")
            }
            Refusal::Open(part) => {
                let (Part::Pipeline(name) | Part::Output(name)) = part;
                Finding::error("replay-exists", name, "it replays already")
                    .suggest("wait for its end, or end it with `walmill replay cancel`")
            }
        };
        Self::new(StatusCode::CONFLICT, finding)
    }
}

fn bad(path: &str, message: String, suggestion: &str) -> Problem {
    Problem::bad_request(Finding::error("bad-request", path, message).suggest(suggestion))
}

/// Does what may wait for the disk.
pub(super) async fn in_store<T: Send + 'static>(
    server: &Server,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let store = server.state.store.clone();
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(done) => Ok(done?),
        Err(_) => {
            let finding = Finding::error("cut-short", "", "walmill ends and could not do it");
            let finding = finding.suggest("ask again once it runs");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, finding))
        }
    }
}
