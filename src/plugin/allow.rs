//! What a plugin may use of the host and, through it, of the outside.

use std::fmt;

use serde::Deserialize;
use url::Url;

use super::Limits;
use super::error::Reason;
use super::wasi::Grants;
use super::wasi::http::Http;

/// `[plugins.NAME.allow]`: what a plugin may use beside log, clock and metrics. Nothing, unless
/// granted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// Keyed state.
    pub kv: bool,
    /// Variables of walmill's environment, by name.
    pub env: Vec<String>,
    /// Where requests may go: `https://api.example.com`. A plugin that makes requests may answer
    /// otherwise in a replay.
    pub http: Vec<Origin>,
    /// Names in `http` may resolve to private addresses, too.
    pub http_private: bool,
}

impl Allow {
    /// Whether the plugin's answers follow from the events alone, so that a replay gives the same.
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        self.http.is_empty()
    }

    /// What the grants are worth at this moment.
    pub(super) fn resolve(&self, plugin: &str, limits: &Limits) -> Result<Grants, Reason> {
        let variable = |name: &String| {
            let missing =
                |_| Reason::NoVariable { variable: name.clone(), plugin: plugin.to_owned() };
            std::env::var(name).map(|value| (name.clone(), value)).map_err(missing)
        };
        let env = self.env.iter().map(variable).collect::<Result<_, _>>()?;
        let origins: Vec<Url> = self.http.iter().map(|origin| origin.0.clone()).collect();
        let http = match origins.as_slice() {
            [] => None,
            origins => Some(
                Http::new(origins, self.http_private, limits)
                    .map_err(|error| Reason::Http(error.to_string()))?,
            ),
        };
        Ok(Grants { env, http })
    }
}

/// Scheme, host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Origin(Url);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

/// Text that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no origin: write scheme and host, as in `https://api.example.com`")]
pub struct NoOrigin(String);

impl TryFrom<String> for Origin {
    type Error = NoOrigin;

    fn try_from(text: String) -> Result<Self, NoOrigin> {
        let no_origin = || NoOrigin(text.clone());
        let url: Url = text.parse().map_err(|_| no_origin())?;
        let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
        let is_bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if is_web && is_bare { Ok(Self(url)) } else { Err(no_origin()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        let read = |text: &str| toml::from_str::<Allow>(&format!("http = [\"{text}\"]"));
        for good in ["https://api.example.com", "http://127.0.0.1:8080/", "https://[::1]"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in [
            "api.example.com",
            "https://",
            "ftp://example.com",
            "https://example.com/path",
            "https://example.com?x",
            "https://u@example.com",
            "https://u:p@example.com",
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("no origin"), "{bad}: {error}");
        }
    }
}
