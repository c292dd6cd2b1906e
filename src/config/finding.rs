//! What is wrong with a config is told in the form of every other finding.

pub use crate::model::finding::{Finding, Severity, did_you_mean};
