//! Two chains of plugins over the same events of the journal, side by side, with no effect outside:
//! a new version before it goes live, and whatever else is to be tried without harm.
//!
//! Each side reads the journal by itself, through the stages that a pipeline runs, on instances of
//! its own. Keyed state is a view of the real one that both sides share: a key is read once, so
//! that both see the same while pipelines go on, and what a side writes stays with it. Nothing is
//! committed, no stream is made, nothing is counted in the plugins' own metrics.

mod side;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::changes::{Changes, ChangesError};
use super::rows::Tables;
use super::schema::{Gate, OnSchemaChange};
use super::stage::StageError;
use super::state::Frozen;
use super::{Config, Limits};
use crate::model::replay::Times;
use crate::model::shadow::{Comparison, Difference, Verdict};
use crate::model::{EventId, Offset};
use crate::plugin::Plugin;
use crate::store::{Store, StoreError};
use side::{Judged, Side};

/// Processor time of one side's plugins that is enough for one that has broken on many events
/// already: more of them would say nothing new.
const LONGEST_BROKEN: Duration = Duration::from_secs(2);
/// How many these are.
const MANY: u64 = 20;
/// Bytes of the journal that are looked through for the last events, at most.
const FARTHEST: u64 = 64 << 20;
/// Bytes that are looked through at first.
const FIRST_LOOK: u64 = 1 << 20;
/// Characters of an event's text in an example.
const LONGEST_EVENT: usize = 1_000;
/// Events of one change in an example.
const MOST_EVENTS: usize = 3;

/// What is tried.
pub struct Trial {
    /// The pipeline: its tables, its streams, its name.
    pub config: Config,
    /// The chain in force.
    pub before: Vec<Arc<Plugin>>,
    /// The chain to compare.
    pub after: Vec<Arc<Plugin>>,
    /// Which events.
    pub range: Range,
    /// Of those, only what committed at these times.
    pub times: Times,
    /// Differences that are kept as examples.
    pub examples: usize,
    /// Processor time of one side's plugins, after which it is cut short: for a version that hangs.
    /// Three times as long may pass on the clock, for one that waits.
    pub longest: Duration,
    /// Ends it early.
    pub cancel: CancellationToken,
}

/// Events of the journal.
#[derive(Debug, Clone, Copy)]
pub enum Range {
    /// The last so many that the pipeline takes, of those that are kept.
    Last(u32),
    /// Those behind the first place, up to and including the second.
    Between(Offset, Offset),
}

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// The journal could not be read.
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// A plugin does not start.
    #[error(transparent)]
    Stage(#[from] StageError),
}

impl From<StoreError> for ShadowError {
    fn from(error: StoreError) -> Self {
        Self::Changes(error.into())
    }
}

/// Runs both chains over the range, on the thread that calls it.
///
/// # Errors
/// See [`ShadowError`]; what plugins do wrong with single events is in the comparison.
pub fn compare(store: &Store, trial: &Trial) -> Result<Comparison, ShadowError> {
    let (after, until) = match trial.range {
        Range::Between(after, until) => (after, until),
        Range::Last(events) => last(store, &trial.config, events)?,
    };
    let most = match trial.range {
        Range::Last(events) => u64::from(events),
        Range::Between(..) => u64::MAX,
    };
    let frozen = Arc::new(Frozen::new(store.clone()));
    let side = |chain: &[Arc<Plugin>]| Side::new(store, trial, chain, &frozen, (after, until));
    let (mut before, mut after) = (side(&trial.before)?, side(&trial.after)?);
    let (pipeline, started) = (trial.config.name.clone(), Instant::now());
    let mut comparison = Comparison { pipeline, ..Comparison::default() };
    while comparison.events < most {
        comparison.cut = why_cut(trial, started, &before, &after);
        if comparison.cut.is_some() {
            break;
        }
        match next_of_both(&mut before, &mut after)? {
            Some((old, new)) => note(&mut comparison, trial.examples, old, new),
            None => break,
        }
    }
    comparison.before = before.tally(comparison.events);
    comparison.after = after.tally(comparison.events);
    Ok(comparison)
}

/// What both made of the next change that both have read: retention may be faster than one of them.
fn next_of_both(
    before: &mut Side,
    after: &mut Side,
) -> Result<Option<(Judged, Judged)>, ShadowError> {
    let (mut old, mut new) = (before.next()?, after.next()?);
    loop {
        match (old, new) {
            (Some(one), Some(other)) if one.change < other.change => {
                (old, new) = (before.next()?, Some(other));
            }
            (Some(one), Some(other)) if other.change < one.change => {
                (old, new) = (Some(one), after.next()?);
            }
            (one, other) => return Ok(one.zip(other)),
        }
    }
}

fn why_cut(trial: &Trial, started: Instant, before: &Side, after: &Side) -> Option<String> {
    if trial.cancel.is_cancelled() {
        return Some("it was ended early".into());
    }
    let longest = trial.longest.saturating_mul(3);
    if started.elapsed() > longest {
        return Some(format!("it had taken {} s", longest.as_secs()));
    }
    let slow = |side: &Side| {
        let broken = side.failed() >= MANY;
        let limit = if broken { trial.longest.min(LONGEST_BROKEN) } else { trial.longest };
        (side.used() > limit).then_some((limit.as_secs(), side.failed()))
    };
    let (who, (seconds, failed)) = match (slow(before), slow(after)) {
        (_, Some(slow)) => ("the new version", slow),
        (Some(slow), None) => ("the version in force", slow),
        (None, None) => return None,
    };
    let broken =
        if failed > 0 { format!(", and broken on {failed} events") } else { String::new() };
    Some(format!("{who} had used {seconds} s of processor time{broken}"))
}

fn note(comparison: &mut Comparison, examples: usize, before: Judged, after: Judged) {
    let event = EventId(before.change).to_string();
    comparison.events += 1;
    if comparison.first.is_none() {
        comparison.first = Some(event.clone());
    }
    comparison.last = Some(event.clone());
    // The reasons of failures may name functions of the guest, which differ between versions.
    let both_fail = matches!(
        (&before.verdict, &after.verdict),
        (Verdict::Failed { .. }, Verdict::Failed { .. })
    );
    if both_fail || before.verdict == after.verdict {
        return;
    }
    comparison.differ += 1;
    if comparison.examples.len() < examples {
        let (before_shown, after_shown) = (shown(before.verdict), shown(after.verdict));
        comparison.examples.push(Difference {
            event,
            table: before.table,
            before: before_shown,
            after: after_shown,
        });
    }
}

/// A verdict with its texts cut short.
fn shown(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Emitted { mut events } => {
            events.truncate(MOST_EVENTS);
            Verdict::Emitted { events: events.into_iter().map(cut).collect() }
        }
        Verdict::Rejected { reason } => Verdict::Rejected { reason: cut(reason) },
        Verdict::Failed { reason } => Verdict::Failed { reason: cut(reason) },
        Verdict::Dropped => Verdict::Dropped,
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(LONGEST_EVENT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Where the last `events` events of a pipeline begin, and where the journal ends.
fn last(store: &Store, config: &Config, events: u32) -> Result<(Offset, Offset), ShadowError> {
    let until = Offset::end_of(store.last_commit());
    let mut look = FIRST_LOOK;
    loop {
        let from = store.journal_back(look)?;
        let places = places(store, config, from, until)?;
        let total: u64 = places.iter().map(|(_, events)| events).sum();
        let whole = look >= FARTHEST || Offset::end_of(store.journal_purged()) >= from;
        if total < u64::from(events) && !whole {
            look = look.saturating_mul(4).min(FARTHEST);
            continue;
        }
        let mut left = total;
        for (place, count) in places {
            if left.saturating_sub(count) < u64::from(events) {
                return Ok((place, until));
            }
            left -= count;
        }
        return Ok((from, until));
    }
}

/// Places behind `from` with how many events of the pipeline lie between each and the next.
fn places(
    store: &Store,
    config: &Config,
    from: Offset,
    until: Offset,
) -> Result<Vec<(Offset, u64)>, ShadowError> {
    let mut changes = changes(store, config, from)?;
    let (mut places, mut place, mut tables) = (Vec::new(), from, Tables::default());
    while place < until {
        let Some(batch) =
            next_batch(&mut changes, &mut tables, &Limits { rows: 1, bytes: 1 << 16 })?
        else {
            break;
        };
        places.push((place, batch.rows.len() as u64));
        place = batch.end;
    }
    Ok(places)
}

/// Reads what the pipeline takes, whatever its policy for changed definitions holds back.
fn changes(store: &Store, config: &Config, after: Offset) -> Result<Changes, StoreError> {
    let gate = Gate::open(store.clone(), config.name.clone(), OnSchemaChange::Pass)?;
    let (tables, messages) = (config.tables.clone(), config.messages.clone());
    Ok(Changes::new(store.clone(), tables, messages, gate, after))
}

/// The next batch. Retention may have been faster: the reader then stands behind the gap.
fn next_batch(
    changes: &mut Changes,
    tables: &mut Tables,
    limits: &Limits,
) -> Result<Option<super::rows::Batch>, ChangesError> {
    match changes.next_batch(tables, limits) {
        Err(ChangesError::Gap { .. }) => changes.next_batch(tables, limits),
        batch => batch,
    }
}
