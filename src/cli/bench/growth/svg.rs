//! A plot as SVG: one line, two axes, readable on a light page and on a dark one.

use std::fmt;

use super::report::number;

/// The picture, and the frame in it.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 690.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 330.0;
/// From the largest to the smallest value that are not zero: beyond, an axis is logarithmic.
const LARGE: f64 = 30.0;
/// Lines across a linear axis, about.
const LINES: f64 = 5.0;
/// Of whoever looks at the page.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#333}.title{font-size:16px}\
    .grid{stroke:#ddd}.axis{stroke:#888}.line{fill:none;stroke:#0b62c4;stroke-width:2}\
    .dot{fill:#0b62c4}rect{fill:#fff}\
    @media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#333}.axis{stroke:#777}\
    .line{stroke:#6cb2ff}.dot{fill:#6cb2ff}rect{fill:#111418}}";

/// What is drawn.
#[derive(Debug)]
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    /// What each axis says, with its unit.
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    pub(super) points: Vec<(f64, f64)>,
}

impl fmt::Display for Plot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let x = Axis::new(self.points.iter().map(|point| point.0), LEFT, RIGHT);
        let y = Axis::new(self.points.iter().map(|point| point.1), BOTTOM, TOP);
        let title = Escaped(self.title);
        writeln!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">"#
        )?;
        writeln!(f, "<title>{title}</title><style>{STYLE}</style>")?;
        writeln!(f, r#"<rect width="{WIDTH}" height="{HEIGHT}"/>"#)?;
        writeln!(f, r#"<text class="title" x="{LEFT}" y="30">{title}</text>"#)?;
        for mark in x.marks() {
            let (at, said) = (x.place(mark), number(mark));
            line(f, "grid", (at, TOP), (at, BOTTOM))?;
            let below = BOTTOM + 20.0;
            writeln!(f, r#"<text x="{at:.1}" y="{below}" text-anchor="middle">{said}</text>"#)?;
        }
        for mark in y.marks() {
            let (at, said) = (y.place(mark), number(mark));
            line(f, "grid", (LEFT, at), (RIGHT, at))?;
            let (beside, middle) = (LEFT - 8.0, at + 4.0);
            writeln!(f, r#"<text x="{beside}" y="{middle:.1}" text-anchor="end">{said}</text>"#)?;
        }
        line(f, "axis", (LEFT, BOTTOM), (RIGHT, BOTTOM))?;
        line(f, "axis", (LEFT, TOP), (LEFT, BOTTOM))?;
        self.labels(f, &x, &y)?;
        let places: Vec<_> = self.points.iter().map(|at| (x.place(at.0), y.place(at.1))).collect();
        let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        writeln!(f, r#"<polyline class="line" points="{}"/>"#, path.join(" "))?;
        for (x, y) in places {
            writeln!(f, r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="4"/>"#)?;
        }
        f.write_str("</svg>\n")
    }
}

impl Plot<'_> {
    fn labels(&self, f: &mut fmt::Formatter<'_>, x: &Axis, y: &Axis) -> fmt::Result {
        let (across, up) = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
        let under = BOTTOM + 50.0;
        let (said, scale) = (Escaped(self.x), x.scale());
        writeln!(f, r#"<text x="{across}" y="{under}" text-anchor="middle">{said}{scale}</text>"#)?;
        let (said, scale) = (Escaped(self.y), y.scale());
        let turn = format!("rotate(-90 24 {up})");
        writeln!(
            f,
            r#"<text x="24" y="{up}" transform="{turn}" text-anchor="middle">{said}{scale}</text>"#
        )
    }
}

fn line(
    f: &mut fmt::Formatter<'_>,
    class: &str,
    (x1, y1): (f64, f64),
    (x2, y2): (f64, f64),
) -> fmt::Result {
    writeln!(f, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#)
}

/// From values to places in the picture.
struct Axis {
    logarithmic: bool,
    /// Values at its ends, or their decimal logarithms.
    low: f64,
    high: f64,
    /// Places of its ends.
    from: f64,
    to: f64,
}

impl Axis {
    /// A linear axis begins at zero, a logarithmic one at a power of ten.
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let finite: Vec<_> = values.filter(|value| value.is_finite()).collect();
        let least = finite.iter().copied().fold(f64::INFINITY, f64::min);
        let most = finite.iter().copied().fold(0.0, f64::max);
        if least > 0.0 && most / least >= LARGE {
            let (low, high) = (least.log10().floor(), most.log10().ceil());
            return Self { logarithmic: true, low, high, from, to };
        }
        let most = if most > 0.0 { most } else { 1.0 };
        let step = step(most);
        let (low, high) = (0.0, (most / step).ceil() * step);
        Self { logarithmic: false, low, high, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.log10() } else { value };
        let part = (value - self.low) / (self.high - self.low);
        // What is no number stands at the end rather than outside.
        let part = if part.is_nan() { 1.0 } else { part.clamp(0.0, 1.0) };
        self.from + part * (self.to - self.from)
    }

    fn marks(&self) -> Vec<f64> {
        let (low, high) = (self.low, self.high);
        if self.logarithmic {
            return (0..=(high - low) as i32).map(|n| 10_f64.powf(low + f64::from(n))).collect();
        }
        let step = step(high);
        (0..=(high / step).round() as i32).map(|n| f64::from(n) * step).collect()
    }

    fn scale(&self) -> &'static str {
        if self.logarithmic { " (logarithmic)" } else { "" }
    }
}

/// A round distance between the lines across an axis that begins at zero.
fn step(most: f64) -> f64 {
    let rough = most / LINES;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough);
    factor.unwrap_or(10.0) * power
}

/// As it stands in XML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            c => write!(f, "{c}"),
        })
    }
}

#[cfg(test)]
mod tests;
