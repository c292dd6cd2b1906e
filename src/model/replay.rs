//! Replays: ground that a pipeline or an output goes over again, because a person wants it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{EventId, Offset};

/// A replay as it is kept, and as it is shown. There is one at most for each pipeline and output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Tells it from those before it of the same part.
    pub id: u64,
    /// Who replays.
    #[serde(flatten)]
    pub part: Part,
    /// How it stands.
    #[serde(flatten)]
    pub state: ReplayState,
    /// What lies behind this place is replayed.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub from: Offset,
    /// Up to this place, and with it.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub to: Offset,
    /// Only of transactions that committed at this time or later, in microseconds since
    /// 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
    /// Only of transactions that committed at this time or earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
    /// Everything up to here is done.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub at: Offset,
    /// Events that came of it so far, where a pipeline counts them.
    pub events: u64,
    /// When it was asked for, microseconds since 1970-01-01 UTC.
    pub started: i64,
    /// Where an output goes back in each of its streams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<Rewound>,
}

/// A stream in which an output went back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewound {
    /// Its name.
    pub stream: String,
    /// Where the output stood: what lies behind is new to it.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub until: Offset,
}

/// Who replays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// A pipeline runs what is in the journal through its plugins again.
    Pipeline(String),
    /// An output delivers what is in its streams again.
    Output(String),
}

/// How a replay stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "why")]
pub enum ReplayState {
    /// It is asked for, and has not begun.
    Asked,
    /// It goes on by itself, also after a restart.
    Running,
    /// It came to its end.
    Done,
    /// A person ended it.
    Cancelled,
    /// It could not go on.
    Failed(String),
}

/// When transactions committed, both ends included, in microseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// At this time or later.
    pub not_before: Option<i64>,
    /// At this time or earlier.
    pub not_after: Option<i64>,
}

impl Times {
    /// Whether this time is one of them.
    #[must_use]
    pub fn include(&self, time: i64) -> bool {
        self.not_before.is_none_or(|from| from <= time)
            && self.not_after.is_none_or(|to| time <= to)
    }
}

impl Replay {
    /// Whether what committed at this time is among what is wanted.
    #[must_use]
    pub fn wants(&self, time: i64) -> bool {
        Times { not_before: self.not_before, not_after: self.not_after }.include(time)
    }

    /// Whether there is something left to do.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, ReplayState::Asked | ReplayState::Running)
    }
}

fn to_text<S: Serializer>(offset: &Offset, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&EventId(*offset))
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Offset, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<EventId>().map(|EventId(offset)| offset).map_err(serde::de::Error::custom)
}
