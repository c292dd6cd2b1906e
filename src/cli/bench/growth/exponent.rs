//! How a cost grows: the exponent `b` of `cost = a · size^b`, and whether that is too fast.

use serde::Serialize;

/// Sizes at the end of a table by which growth is judged: what is there whatever the size hides how
/// the rest grows where that is small.
const LAST: usize = 3;
/// What measuring adds.
const TOLERANCE: f64 = 0.15;

/// How a cost may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Limit {
    /// Not at all.
    Flat,
    /// In proportion.
    Linear,
}

/// Whether it grows as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    Within,
    Beyond,
    /// There are fewer than two sizes.
    TooFew,
}

impl Limit {
    pub(super) fn verdict(self, exponent: Option<f64>) -> Verdict {
        let most = match self {
            Self::Flat => 0.0,
            Self::Linear => 1.0,
        };
        match exponent {
            None => Verdict::TooFew,
            Some(exponent) if exponent <= most + TOLERANCE => Verdict::Within,
            Some(_) => Verdict::Beyond,
        }
    }

    /// In words.
    pub(super) fn say(self, verdict: Verdict) -> &'static str {
        match (self, verdict) {
            (_, Verdict::TooFew) => "too few sizes to say",
            (Self::Flat, Verdict::Within) => "flat",
            (Self::Flat, Verdict::Beyond) => "**not flat**",
            (Self::Linear, Verdict::Within) => "no worse than linear",
            (Self::Linear, Verdict::Beyond) => "**worse than linear**",
        }
    }
}

/// The slope of the straight line that fits the logarithms of the last points best. Zero has no
/// logarithm, and is left out.
pub(super) fn exponent(points: impl IntoIterator<Item = (f64, f64)>) -> Option<f64> {
    let positive = points.into_iter().filter(|(size, cost)| *size > 0.0 && *cost > 0.0);
    let all: Vec<_> = positive.map(|(size, cost)| (size.ln(), cost.ln())).collect();
    let last = &all[all.len().saturating_sub(LAST)..];
    let count = last.len() as f64;
    let (x, y) = last.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    let (x, y) = (x / count, y / count);
    let along: f64 = last.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let across: f64 = last.iter().map(|point| (point.0 - x).powi(2)).sum();
    (across > 0.0).then(|| along / across)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cost: impl Fn(f64) -> f64) -> f64 {
        exponent([1.0, 10.0, 100.0, 1_000.0].map(|size| (size, cost(size)))).expect("four sizes")
    }

    #[test]
    fn the_exponent_of_a_power_is_its_exponent_whatever_the_factor() {
        for power in [0.0, 0.5, 1.0, 2.0, -1.0] {
            for factor in [0.001, 1.0, 7e6] {
                assert!((of(|size| factor * size.powf(power)) - power).abs() < 1e-9, "{power}");
            }
        }
    }

    #[test]
    fn what_is_there_whatever_the_size_hides_little() {
        let square = of(|size| 20.0 + size * size / 10.0);
        assert_eq!(Limit::Linear.verdict(Some(square)), Verdict::Beyond, "{square}");
        let line = of(|size| 20.0 + size);
        assert_eq!(Limit::Linear.verdict(Some(line)), Verdict::Within, "{line}");
        assert_eq!(Limit::Flat.verdict(Some(line)), Verdict::Beyond, "{line}");
    }

    #[test]
    fn one_size_says_nothing_and_zero_is_no_size() {
        assert_eq!(exponent([]), None);
        assert_eq!(exponent([(0.0, 1.0), (1.0, 1.0)]), None);
        assert_eq!(exponent([(2.0, 1.0), (2.0, 3.0)]), None);
        assert_eq!(Limit::Flat.verdict(None), Verdict::TooFew);
    }
}
