//! What two versions of a plugin made of the same events, as a person reads it.

use crate::model::shadow::{Comparison, Difference, Tally, Verdict};

/// What each made of them, and the examples; every line behind `indent`.
pub(super) fn details(comparison: &Comparison, indent: &str) -> String {
    let Comparison { before, after, examples, .. } = comparison;
    let mut text = format!("{indent}before: {}\n{indent}after:  {}\n", tally(before), tally(after));
    for Difference { event, table, before, after } in examples {
        text += &format!("{indent}{event} {table}\n");
        text += &format!("{indent}  - {}\n{indent}  + {}\n", verdict(before), verdict(after));
    }
    text
}

fn tally(tally: &Tally) -> String {
    let Tally { emitted, dropped, rejected, failed, nanos_per_event, errors } = tally;
    let error = errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    format!(
        "{emitted} emitted, {dropped} dropped, {rejected} rejected, {failed} failed{error}, \
         {nanos_per_event} ns per event"
    )
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Emitted { events } => events.join(" "),
        Verdict::Dropped => "dropped".into(),
        Verdict::Rejected { reason } => format!("rejected: {reason}"),
        Verdict::Failed { reason } => format!("failed: {reason}"),
    }
}
