//! The figures: of one run of a case, the median of several, and the table.

use std::fmt::Write as _;

use serde::Serialize;

use super::cases::{Case, Language, Output};

/// What one run of a case took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) seconds: f64,
    /// Processor time.
    pub(super) cpu: f64,
    pub(super) walsender: f64,
    pub(super) peak: u64,
    pub(super) written: u64,
    /// Events that came out, as far as the case goes: those received, else those in the streams.
    pub(super) events: u64,
}

/// A line of the table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    case: &'static str,
    /// How many.
    plugins: usize,
    language: Option<Language>,
    output: Output,
    changes: u64,
    events: u64,
    rows_per_second: f64,
    cpu_per_million: f64,
    walsender_cpu_per_million: f64,
    ratio_to_walsender: f64,
    ratio_to_raw: f64,
    peak_memory_bytes: u64,
    bytes_written: u64,
}

impl Row {
    /// One run, beside the raw reader's CPU-seconds per million in the same round.
    pub(super) fn new(case: &Case, changes: u64, run: &Run, raw: Option<f64>) -> Self {
        let per_million = |seconds: f64| seconds / changes as f64 * 1e6;
        let cpu_per_million = per_million(run.cpu);
        Self {
            case: case.name,
            plugins: case.plugins(),
            language: case.language(),
            output: case.output,
            changes,
            events: run.events,
            rows_per_second: changes as f64 / run.seconds,
            cpu_per_million,
            walsender_cpu_per_million: per_million(run.walsender),
            ratio_to_walsender: ratio(run.cpu, run.walsender),
            ratio_to_raw: ratio(cpu_per_million, raw.unwrap_or(cpu_per_million)),
            peak_memory_bytes: run.peak,
            bytes_written: run.written,
        }
    }

    pub(super) fn case(&self) -> &'static str {
        self.case
    }

    pub(super) fn cpu_per_million(&self) -> f64 {
        self.cpu_per_million
    }

    pub(super) fn ratio_to_walsender(&self) -> f64 {
        self.ratio_to_walsender
    }

    pub(super) fn peak_memory_bytes(&self) -> u64 {
        self.peak_memory_bytes
    }

    /// The median of each figure of the same case.
    pub(super) fn median(runs: &[Self]) -> Option<Self> {
        let float = |figure: fn(&Self) -> f64| {
            median(runs.iter().map(figure).collect()).unwrap_or_default()
        };
        let whole = |figure: fn(&Self) -> u64| {
            let mut figures: Vec<_> = runs.iter().map(figure).collect();
            figures.sort_unstable();
            figures[figures.len() / 2]
        };
        let first = runs.first()?;
        Some(Self {
            rows_per_second: float(|row| row.rows_per_second),
            cpu_per_million: float(|row| row.cpu_per_million),
            walsender_cpu_per_million: float(|row| row.walsender_cpu_per_million),
            ratio_to_walsender: float(|row| row.ratio_to_walsender),
            ratio_to_raw: float(|row| row.ratio_to_raw),
            peak_memory_bytes: whole(|row| row.peak_memory_bytes),
            bytes_written: whole(|row| row.bytes_written),
            ..first.clone()
        })
    }
}

/// The one in the middle.
pub(super) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

/// Of a load too small to be measured there is none.
fn ratio(of: f64, to: f64) -> f64 {
    if to > 0.0 { of / to } else { 0.0 }
}

/// For people.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<16}{:>8} {:<11}{:<10}{:>9}{:>9}{:>12}{:>14}{:>8}{:>9}{:>11}\n",
        "case",
        "plugins",
        "language",
        "output",
        "rows/s",
        "CPU-s/M",
        "walsender",
        "of walsender",
        "of raw",
        "peak MB",
        "written MB"
    );
    for row in rows {
        let language = row.language.map_or(String::from("-"), |language| language.to_string());
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:<16}{:>8} {:<11}{:<10}{:>9.0}{:>9.2}{:>12.2}{:>14.2}{:>8.1}{:>9.0}{:>11.0}",
            row.case,
            row.plugins,
            language,
            row.output.to_string(),
            row.rows_per_second,
            row.cpu_per_million,
            row.walsender_cpu_per_million,
            row.ratio_to_walsender,
            row.ratio_to_raw,
            row.peak_memory_bytes as f64 / 1e6,
            row.bytes_written as f64 / 1e6,
        );
    }
    text
}
