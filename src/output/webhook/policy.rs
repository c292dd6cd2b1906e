//! What an answer's status means.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use serde::Deserialize;

/// What becomes of an event that was answered so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The receiver has it: a 409 may say that it had it before.
    Taken,
    /// It is tried again, later and later.
    Retry,
    /// It goes to the dead letters at once.
    DeadLetter,
    /// The output stops where it is.
    Stop,
}

/// `on_status = { 409 = "taken", 4xx = "dead-letter" }`: one status before its class, and what is
/// not named as walmill does it by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, Policy>")]
pub struct Policies {
    statuses: BTreeMap<u16, Policy>,
    classes: BTreeMap<u16, Policy>,
}

impl Policies {
    /// What an answer means.
    #[must_use]
    pub fn of(&self, status: StatusCode) -> Policy {
        let code = status.as_u16();
        let named = self.statuses.get(&code).or_else(|| self.classes.get(&(code / 100)));
        match (named, status) {
            (_, status) if status.is_success() => Policy::Taken,
            (Some(policy), _) => *policy,
            (None, StatusCode::GONE) => Policy::Stop,
            (None, StatusCode::PAYLOAD_TOO_LARGE) => Policy::DeadLetter,
            (None, _) => Policy::Retry,
        }
    }
}

impl TryFrom<BTreeMap<String, Policy>> for Policies {
    type Error = String;

    fn try_from(named: BTreeMap<String, Policy>) -> Result<Self, String> {
        let mut policies = Self::default();
        for (name, policy) in named {
            let class = name.strip_suffix("xx").and_then(|class| class.parse().ok());
            match (class, name.parse::<u16>()) {
                (Some(2), _) | (_, Ok(200..300)) => {
                    return Err(format!("`{name}`: a 2xx always means that the event is taken"));
                }
                (Some(class @ 1..=5), _) => policies.classes.insert(class, policy),
                (None, Ok(status @ 100..600)) => policies.statuses.insert(status, policy),
                _ => return Err(format!("`{name}` is no status: write `404` or `4xx`")),
            };
        }
        Ok(policies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Policies, String> {
        #[derive(Deserialize)]
        struct Table {
            on_status: Policies,
        }
        let table: Result<Table, _> = toml::from_str(&format!("on_status = {{ {text} }}"));
        table.map(|table| table.on_status).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn one_status_goes_before_its_class_and_the_rest_is_as_ever() {
        let policies = read("4xx = 'dead-letter', 404 = 'retry', 409 = 'taken'").unwrap();
        let of = |status| policies.of(StatusCode::from_u16(status).unwrap());
        let meant = [200, 404, 409, 422, 410, 503, 302].map(of);
        use Policy::{DeadLetter, Retry, Taken};
        assert_eq!(meant, [Taken, Retry, Taken, DeadLetter, DeadLetter, Retry, Retry]);
        let default = Policies::default();
        let of = |status| default.of(StatusCode::from_u16(status).unwrap());
        assert_eq!([410, 413, 401].map(of), [Policy::Stop, DeadLetter, Retry]);
    }

    #[test]
    fn what_is_no_status_is_refused() {
        assert!(read("2xx = 'retry'").unwrap_err().contains("always means"));
        assert!(read("204 = 'retry'").unwrap_err().contains("always means"));
        assert!(read("nxx = 'retry'").unwrap_err().contains("no status"));
        assert!(read("4xx = 'ignore'").unwrap_err().contains("unknown variant"));
    }
}
