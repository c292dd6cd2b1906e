//! How a new version of a plugin goes live, and when it is taken back: what the config says.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::model::Period;
use crate::model::shadow::ShadowReport;

/// `plugins.NAME.promote`: what a new version needs to go live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promote {
    /// It breaks on no more events of the shadow run than `rollback.failures` allows.
    #[default]
    Auto,
    /// It does the same as the version in force with every event of the shadow run; one that does
    /// not waits for a person's word.
    IfSame,
    /// A person's word.
    Manual,
}

/// `plugins.NAME.shadow`: the run beside the version in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shadow {
    /// The last so many events of each pipeline; 0 for no run.
    pub events: u32,
}

impl Default for Shadow {
    fn default() -> Self {
        Self { events: 1_000 }
    }
}

/// `plugins.NAME.rollback`: when a version that has just gone live is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rollback {
    /// The share of events on which it may break. `100%` never takes one back.
    pub failures: Share,
    /// How long it is watched.
    pub within: Period,
    /// Events that it must have seen before its share says anything.
    pub least: u64,
}

impl Default for Rollback {
    fn default() -> Self {
        Self { failures: Share(500), within: Period::from_millis(300_000), least: 20 }
    }
}

/// A share of a whole: `5%`, `0.5%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Share(
    /// In hundredths of a percent.
    u64,
);

/// Text that is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no share: write a percentage from 0% to 100%, as in `5%` or `0.5%`")]
pub struct ShareError(String);

impl Share {
    /// Whether so many of `all` are more than this share.
    #[must_use]
    pub fn is_exceeded(self, part: u64, all: u64) -> bool {
        u128::from(part) * 10_000 > u128::from(all) * u128::from(self.0)
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let wrong = || ShareError(text.into());
        let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || whole.len() > 3 || part.len() > 2 {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let part: u64 = format!("{part:0<2}").parse().map_err(|_| wrong())?;
        let hundredths = whole * 100 + part;
        (hundredths <= 10_000).then_some(Self(hundredths)).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Share {
    type Error = ShareError;

    fn try_from(text: String) -> Result<Self, ShareError> {
        text.parse()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match (part, part % 10) {
            (0, _) => write!(f, "{whole}%"),
            (_, 0) => write!(f, "{whole}.{}%", part / 10),
            _ => write!(f, "{whole}.{part:02}%"),
        }
    }
}

/// What is to be done with a version that works, after its shadow run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    GoLive,
    /// It waits, for this reason.
    Wait(String),
    /// It does not go live, for this reason.
    Refuse(String),
}

impl Promote {
    /// What the report says about a version.
    pub(super) fn decide(self, report: Option<&ShadowReport>, bound: Share) -> Decision {
        let Some(report) = report else {
            return match self {
                Self::Auto => Decision::GoLive,
                Self::IfSame => Decision::Wait("there was no shadow run".into()),
                Self::Manual => Decision::Wait("`promote` is \"manual\"".into()),
            };
        };
        match self {
            Self::Manual => Decision::Wait("`promote` is \"manual\"".into()),
            Self::IfSame if report.is_same() => Decision::GoLive,
            Self::IfSame => Decision::Wait(format!("not the same: {}", report.summary())),
            Self::Auto => {
                let (failures, events) = (report.new_failures(), report.events());
                if !bound.is_exceeded(failures, events) {
                    return Decision::GoLive;
                }
                let error = report.pipelines.iter().find_map(|c| c.after.errors.first());
                Decision::Refuse(format!(
                    "in its shadow run it broke on {failures} of {events} events, and \
                     `rollback.failures` is {bound}: {}",
                    error.map_or("no reason given", String::as_str)
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::shadow::Comparison;

    #[test]
    fn a_share_is_a_percentage() {
        let share = |text: &str| text.parse::<Share>();
        for (text, shown) in
            [("5%", "5%"), ("0.5%", "0.5%"), ("0.25%", "0.25%"), (" 100% ", "100%"), ("0%", "0%")]
        {
            assert_eq!(share(text).map(|share| share.to_string()), Ok(shown.into()), "{text}");
        }
        for text in ["", "5", "%", "-5%", "101%", "5.125%", ".5%", "5.%", "five%", "1e2%"] {
            assert_eq!(share(text), Err(ShareError(text.into())));
        }
        let five = share("5%").unwrap();
        assert!(five.is_exceeded(6, 100) && !five.is_exceeded(5, 100) && !five.is_exceeded(0, 0));
        assert!(!share("100%").unwrap().is_exceeded(7, 7));
    }

    #[test]
    fn the_report_decides_as_the_config_says() {
        let bound = Rollback::default().failures;
        let same = ShadowReport {
            pipelines: vec![Comparison { events: 100, ..Comparison::default() }],
            note: None,
        };
        let mut other = same.clone();
        other.pipelines[0].differ = 3;
        let mut broken = other.clone();
        broken.pipelines[0].after.failed = 6;
        let decide = |promote: Promote, report| promote.decide(Some(report), bound);
        assert_eq!(decide(Promote::Auto, &other), Decision::GoLive);
        assert!(
            matches!(decide(Promote::Auto, &broken), Decision::Refuse(why) if why.contains("6 of 100"))
        );
        assert_eq!(decide(Promote::IfSame, &same), Decision::GoLive);
        assert!(
            matches!(decide(Promote::IfSame, &other), Decision::Wait(why) if why.contains("3 of 100"))
        );
        assert!(matches!(decide(Promote::Manual, &same), Decision::Wait(_)));
    }
}
