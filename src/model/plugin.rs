//! What happens to plugins while walmill runs: versions that come and go, and what is asked for.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::replay::Times;
use super::shadow::{Comparison, ShadowReport};
use super::{Finding, Offset};

/// What is kept of a plugin beside its files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginRecord {
    /// The version in force, by all 64 digits of its hash.
    pub in_force: Option<String>,
    /// What the plugin's file held when it was last decided about: only other content is news.
    pub seen: Option<String>,
    /// The version that waits for a person's word.
    pub waiting: Option<String>,
    /// What happened, newest first.
    pub history: VecDeque<ReloadStatus>,
}

/// What happened to a version of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// When, microseconds since 1970-01-01 UTC.
    pub time: i64,
    /// The version: the first 12 digits of its file's SHA-256.
    pub version: String,
    /// All 64 of them.
    pub digest: String,
    /// Why it came.
    pub why: Why,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it was refused, if it was.
    pub error: Option<String>,
    /// More about it, for a person.
    pub reason: Option<String>,
    /// The version that was in force before it, where this one took over.
    pub replaced: Option<String>,
    /// What it made of the journal's last events, beside the one in force.
    pub shadow: Option<ShadowReport>,
}

/// Why a version came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// walmill started.
    Start,
    /// The plugin's file changed.
    File,
    /// It was sent through the admin API.
    Upload,
    /// A person took an earlier version back.
    RollBack,
    /// A person put the waiting version in force.
    Promote,
    /// The plugin's section of the config changed.
    Reload,
    /// The version before it failed too often.
    Automatic,
}

impl Why {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::File => "file changed",
            Self::Upload => "uploaded",
            Self::RollBack => "rolled back",
            Self::Promote => "promoted",
            Self::Reload => "config reload",
            Self::Automatic => "rolled back automatically",
        }
    }

    /// Whether it took another version out of force because that one was bad.
    #[must_use]
    pub fn takes_back(self) -> bool {
        matches!(self, Self::RollBack | Self::Automatic)
    }
}

/// What came of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was put in force.
    InForce,
    /// It was not.
    Refused,
    /// It waits for a person's word.
    Waiting,
}

impl Outcome {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::InForce => "in force",
            Self::Refused => "refused",
            Self::Waiting => "waiting",
        }
    }
}

/// What can be asked for, about one plugin.
#[derive(Debug)]
pub enum PluginCommand {
    /// Offer this file's content as a new version.
    Upload(Vec<u8>),
    /// Put an earlier version in force: this one, or the last good one before the one in force.
    RollBack(Option<String>),
    /// Put the version that waits in force; if one is named, only that one.
    Promote(Option<String>),
    /// Hand over a version's file: this one, or the one in force.
    Pull(Option<String>),
    /// Compare another version with the one in force, with no effect.
    DryRun(Box<DryRun>),
}

/// A replay of a pipeline that changes nothing: through its plugins as they are, and through the
/// same with another version of one of them.
#[derive(Debug)]
pub struct DryRun {
    /// The pipeline.
    pub pipeline: String,
    /// The version in the plugin's place.
    pub candidate: Candidate,
    /// What lies behind the first place, up to and including the second.
    pub range: (Offset, Offset),
    /// Only of transactions of these times.
    pub times: Times,
    /// Differences that are shown.
    pub examples: usize,
    /// Ends it early.
    pub cancel: CancellationToken,
}

/// A version of a plugin that is to be tried.
#[derive(Debug)]
pub enum Candidate {
    /// This file's content.
    File(Vec<u8>),
    /// One of the plugin's history: the first digits of its hash.
    Version(String),
}

/// What came of a [`DryRun`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// The plugin.
    pub plugin: String,
    /// The version that was tried.
    pub version: String,
    /// The version in force.
    pub in_force: String,
    /// What the two chains made of the events.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// What came of it.
#[derive(Debug)]
pub enum PluginAnswer {
    /// The latest entry of the plugin's history.
    Done(Box<ReloadStatus>),
    /// A version, and its file.
    File(String, Vec<u8>),
    /// What a dry run showed.
    Tried(Box<Tried>),
}

/// A wish about a plugin, and where its answer goes.
#[derive(Debug)]
pub struct PluginRequest {
    /// The plugin's name.
    pub plugin: String,
    /// What is asked for.
    pub command: PluginCommand,
    /// The answer.
    pub answer: oneshot::Sender<Result<PluginAnswer, Finding>>,
}

/// Where wishes about plugins go.
pub type PluginRequests = mpsc::Sender<PluginRequest>;
