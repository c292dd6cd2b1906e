//! What two chains of plugins make of the same events of the journal, side by side.

use serde::{Deserialize, Serialize};

/// A new version of a plugin beside the one in force, in every pipeline that runs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowReport {
    /// One for each pipeline.
    pub pipelines: Vec<Comparison>,
    /// Why it says nothing, if it does not.
    pub note: Option<String>,
}

/// The two chains over the events of one pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The pipeline's name.
    pub pipeline: String,
    /// Changes that both have seen.
    pub events: u64,
    /// Changes of which they made something different.
    pub differ: u64,
    /// The first change's event id.
    pub first: Option<String>,
    /// The last change's event id.
    pub last: Option<String>,
    /// What the chain in force made of them.
    pub before: Tally,
    /// What the new one made of them.
    pub after: Tally,
    /// The first changes that differ.
    pub examples: Vec<Difference>,
    /// Why it ended before all events were seen, if it did.
    pub cut: Option<String>,
}

/// What a chain made of the events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Events emitted.
    pub emitted: u64,
    /// Changes dropped.
    pub dropped: u64,
    /// Changes that a plugin rejected.
    pub rejected: u64,
    /// Changes on which a plugin broke: it trapped, took too long, or gave no right answer.
    pub failed: u64,
    /// Processor time of the plugins for each change, in nanoseconds.
    pub nanos_per_event: u64,
    /// Different reasons of failures, the first few.
    pub errors: Vec<String>,
}

/// A change, and what became of it on either side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Its event id.
    pub event: String,
    /// `schema.table`
    pub table: String,
    /// By the chain in force.
    pub before: Verdict,
    /// By the new one.
    pub after: Verdict,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// These events, as a client sees them; long ones cut short.
    Emitted {
        /// The events' JSON text.
        events: Vec<String>,
    },
    /// Nothing.
    Dropped,
    /// A plugin set it aside.
    Rejected {
        /// What the plugin says.
        reason: String,
    },
    /// A plugin broke on it.
    Failed {
        /// How.
        reason: String,
    },
}

impl ShadowReport {
    /// One that could not be made.
    #[must_use]
    pub fn without(note: impl Into<String>) -> Self {
        Self { pipelines: Vec::new(), note: Some(note.into()) }
    }

    /// Changes seen, in all pipelines together.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.pipelines.iter().map(|pipeline| pipeline.events).sum()
    }

    /// Changes that differ, likewise.
    #[must_use]
    pub fn differ(&self) -> u64 {
        self.pipelines.iter().map(|pipeline| pipeline.differ).sum()
    }

    /// Changes on which the new version broke and the old one did not, at least.
    #[must_use]
    pub fn new_failures(&self) -> u64 {
        let more = |c: &Comparison| c.after.failed.saturating_sub(c.before.failed);
        self.pipelines.iter().map(more).sum()
    }

    /// Whether it is known that the two do the same: nothing was cut short, and nothing differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        let same = |c: &Comparison| c.differ == 0 && c.cut.is_none();
        self.note.is_none() && self.pipelines.iter().all(same)
    }

    /// In one line, for a log.
    #[must_use]
    pub fn summary(&self) -> String {
        if let Some(note) = &self.note {
            return note.clone();
        }
        let (events, differ, failures) = (self.events(), self.differ(), self.new_failures());
        let nanos = |side: fn(&Comparison) -> &Tally| {
            let total: u64 =
                self.pipelines.iter().map(|c| side(c).nanos_per_event * c.events).sum();
            total / events.max(1)
        };
        let mut text = format!("{differ} of {events} events differ");
        if failures > 0 {
            text += &format!(", {failures} fail that did not before");
        }
        if events > 0 {
            let (before, after) = (nanos(|c| &c.before), nanos(|c| &c.after));
            text += &format!("; {after} ns per event instead of {before}");
        }
        for (pipeline, cut) in
            self.pipelines.iter().filter_map(|c| Some((&c.pipeline, c.cut.as_ref()?)))
        {
            text += &format!("; pipeline {pipeline}: {cut}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_the_same_only_when_all_was_seen_and_nothing_differs() {
        let mut report = ShadowReport::default();
        assert!(report.is_same(), "a plugin that no pipeline runs does nothing");
        report.pipelines.push(Comparison { events: 10, ..Comparison::default() });
        assert!(report.is_same());
        report.pipelines[0].cut = Some("it takes too long".into());
        assert!(!report.is_same());
        report.pipelines[0] = Comparison { events: 10, differ: 2, ..Comparison::default() };
        report.pipelines[0].after.failed = 1;
        assert!(!report.is_same());
        assert_eq!(
            report.summary(),
            "2 of 10 events differ, 1 fail that did not before; 0 ns per event instead of 0"
        );
        assert!(!ShadowReport::without("the journal is empty").is_same());
    }
}
