//! The plugin's `config` table.

use serde::Deserialize;
use walmill_plugin::{Config, Finding, Tables};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(default)]
    pub tables: Tables,
    /// The columns that make two rows one.
    pub by: Vec<String>,
    pub window: Window,
}

impl Settings {
    pub fn read(config: &Config) -> Result<Self, Vec<Finding>> {
        let settings: Self = config.parse()?;
        if settings.by.is_empty() {
            let message = "name at least one column, as in by = [\"request_id\"]".into();
            return Err(vec![Finding { path: "by".into(), message }]);
        }
        Ok(settings)
    }
}

/// A span of time: `90s`, `10m`, `24h`, `7d`.
#[derive(Deserialize, Clone, Copy)]
#[serde(try_from = "String")]
pub struct Window(i64);

impl Window {
    pub fn micros(self) -> i64 {
        self.0
    }
}

impl TryFrom<String> for Window {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no span of time, as in 90s, 10m, 24h or 7d");
        let mut digits = text.chars();
        let seconds = match digits.next_back() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            _ => return Err(wrong()),
        };
        let digits = digits.as_str();
        let count: i64 = digits.parse().map_err(|_| wrong())?;
        let micros = count.checked_mul(seconds * 1_000_000).filter(|micros| *micros > 0);
        micros.map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_time_has_a_unit() {
        let micros = |text: &str| Window::try_from(text.to_owned()).map(Window::micros);
        assert_eq!(micros("90s"), Ok(90_000_000));
        assert_eq!(micros("7d"), Ok(604_800_000_000));
        for wrong in ["", "s", "10", "-1s", "0m", "1ü", "9223372036854775807d"] {
            assert!(micros(wrong).is_err(), "{wrong}");
        }
    }
}
