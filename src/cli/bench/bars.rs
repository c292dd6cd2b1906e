//! `walmill bench --bars`: what is promised, each a figure of the same run beside its limit.

use std::fmt::Write as _;

use serde::Serialize;

use super::report::{Row, median};

/// The cases that the bars are about.
pub(super) const CASES: [&str; 6] =
    ["journal", "pipeline", "pass", "filter", "filter-ws", "three-ws"];
/// Bytes of memory that walmill may take.
const MEMORY: f64 = 100e6;

/// One promise, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Bar {
    bar: String,
    figure: f64,
    limit: f64,
    met: bool,
}

impl Bar {
    fn new(bar: impl Into<String>, figure: f64, limit: f64) -> Self {
        Self { bar: bar.into(), figure, limit, met: figure <= limit }
    }
}

/// Of the runs of each case, round by round.
pub(super) fn judge(cases: &[Vec<Row>]) -> Vec<Bar> {
    let mut bars = Vec::new();
    let to_walsender = [
        ("journal", "source to journal, of the walsender's CPU", 0.4),
        ("filter-ws", "Rust filter and one WebSocket client, of the walsender's CPU", 0.8),
        ("three-ws", "three plugins and one WebSocket client, of the walsender's CPU", 1.0),
    ];
    for (case, bar, limit) in to_walsender {
        let figures = rows(cases, case).iter().map(Row::ratio_to_walsender).collect();
        bars.extend(median(figures).map(|figure| Bar::new(bar, figure, limit)));
    }
    let to_none = [
        ("pass", "Rust filter that keeps every row, of the same without plugin"),
        ("filter", "Rust filter that keeps a fourth, of the same without plugin"),
    ];
    for (case, bar) in to_none {
        let pairs = rows(cases, case).iter().zip(rows(cases, "pipeline"));
        let figures =
            pairs.map(|(with, without)| with.cpu_per_million() / without.cpu_per_million());
        bars.extend(median(figures.collect()).map(|figure| Bar::new(bar, figure, 1.1)));
    }
    for case in CASES {
        let peaks = rows(cases, case).iter().map(|row| row.peak_memory_bytes() as f64).collect();
        let bar =
            |peak: f64| Bar::new(format!("peak memory of {case}, MB"), peak / 1e6, MEMORY / 1e6);
        bars.extend(median(peaks).map(bar));
    }
    bars
}

/// None, when the case was skipped.
fn rows<'a>(cases: &'a [Vec<Row>], name: &str) -> &'a [Row] {
    let named = cases.iter().find(|rows| rows.first().is_some_and(|row| row.case() == name));
    named.map_or(&[], Vec::as_slice)
}

/// How many bars are not met, among them those that could not be measured.
pub(super) fn missed(bars: &[Bar]) -> usize {
    let wanted = 5 + CASES.len();
    bars.iter().filter(|bar| !bar.met).count() + wanted.saturating_sub(bars.len())
}

/// For people, in Markdown.
pub(super) fn table(bars: &[Bar]) -> String {
    let mut text = String::from("| bar | figure | at most | |\n| --- | ---: | ---: | --- |\n");
    for Bar { bar, figure, limit, met } in bars {
        let verdict = if *met { "met" } else { "missed" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {bar} | {figure:.2} | {limit:.2} | {verdict} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_at_its_limit_meets_the_bar() {
        let bars = [Bar::new("a", 0.4, 0.4), Bar::new("b", 0.41, 0.4)];
        assert!(bars[0].met && !bars[1].met);
        assert!(
            table(&bars).ends_with("| a | 0.40 | 0.40 | met |\n| b | 0.41 | 0.40 | missed |\n")
        );
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        assert_eq!(missed(&judge(&[])), 11);
    }
}
