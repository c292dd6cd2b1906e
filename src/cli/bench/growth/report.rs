//! A table of growth: its points, its exponent, its verdict, and how people read it.

use std::fmt::Write as _;

use serde::Serialize;

use super::exponent::{Limit, Verdict, exponent};
use super::svg;
use super::topic::Topic;

/// What one size cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Point {
    pub(super) size: f64,
    pub(super) cost: f64,
    #[serde(rename = "peak_memory_bytes")]
    pub(super) peak: u64,
    /// Rows that were written for it.
    pub(super) rows: u64,
    /// How long that took.
    pub(super) seconds: f64,
}

/// Cost against size.
#[derive(Debug, Serialize)]
pub(in super::super) struct Table {
    table: Topic,
    size: &'static str,
    cost: &'static str,
    limit: Limit,
    exponent: Option<f64>,
    verdict: Verdict,
    points: Vec<Point>,
}

impl Table {
    pub(super) fn new(topic: Topic, points: Vec<Point>) -> Self {
        let exponent = exponent(points.iter().map(|point| (point.size, point.cost)));
        let limit = topic.limit();
        Self {
            table: topic,
            size: topic.size(),
            cost: topic.cost(),
            limit,
            exponent,
            verdict: limit.verdict(exponent),
            points,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.table.name()
    }

    /// As SVG.
    pub(super) fn plot(&self) -> String {
        let points = self.points.iter().map(|point| (point.size, point.cost)).collect();
        svg::Plot { title: self.table.title(), x: self.size, y: self.cost, points }.to_string()
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self { size, cost, .. } = self;
        writeln!(text, "### {}\n", self.table.title())?;
        writeln!(text, "| {size} | {cost} | peak memory, MB |\n| ---: | ---: | ---: |")?;
        for Point { size, cost, peak, .. } in &self.points {
            let [size, cost] = [number(*size), number(*cost)];
            writeln!(text, "| {size} | {cost} | {:.0} |", *peak as f64 / 1e6)?;
        }
        let verdict = self.limit.say(self.verdict);
        match self.exponent {
            None => writeln!(text, "\nVerdict: {verdict}.\n"),
            Some(exponent) => {
                writeln!(
                    text,
                    "\nVerdict: {verdict}; exponent at the largest sizes {exponent:.2}.\n"
                )
            }
        }
    }
}

/// All of them, as they stand in a page.
pub(in super::super) fn markdown(tables: &[Table]) -> String {
    let mut text = String::new();
    for table in tables {
        // Writing to a string does not fail.
        let _ = table.write(&mut text);
    }
    text
}

/// With three digits where it has fractions, and thousands apart.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => thousands(value.round() as i64),
        size if size >= 10.0 && value.fract() != 0.0 => format!("{value:.1}"),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = if value < 0 { String::from("-") } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(size: f64, cost: f64) -> Point {
        Point { size, cost, peak: 41_000_000, rows: 100, seconds: 1.0 }
    }

    #[test]
    fn a_table_stands_in_a_page_as_it_is() {
        let points = vec![point(1.0, 2.5), point(10.0, 25.0), point(100.0, 2_500.0)];
        let text = markdown(&[Table::new(Topic::Pipelines, points)]);
        let wanted = "### Pipelines on one slot\n\n\
            | pipelines that each take every row | CPU time for a row, µs | peak memory, MB |\n\
            | ---: | ---: | ---: |\n\
            | 1 | 2.50 | 41 |\n| 10 | 25 | 41 |\n| 100 | 2,500 | 41 |\n\n\
            Verdict: **worse than linear**; exponent at the largest sizes 1.50.\n\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn numbers_are_short() {
        let told = [0.0, 0.25, 7.0, 12.34, 999.6, 1_234_567.0].map(number);
        assert_eq!(told, ["0", "0.25", "7", "12.3", "1,000", "1,234,567"]);
    }
}
