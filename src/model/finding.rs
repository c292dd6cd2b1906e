//! What is wrong, said the same way everywhere: by the commands, over HTTP and in the console.

use serde::Serialize;

/// One thing that a person should know, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A short word that programs can rely on: `unknown_stream`.
    pub code: &'static str,
    /// What happened, to what.
    pub message: String,
    /// Where: a config key, a parameter, an address.
    pub path: Option<String>,
    /// What to do about it.
    pub suggestion: Option<String>,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does not work.
    Error,
    /// It works, and will surprise.
    Warning,
    /// Good to know.
    Info,
}

impl Finding {
    /// Something that does not work.
    #[must_use]
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity: Severity::Error, code, message, path: None, suggestion: None }
    }

    /// The same, at this place.
    #[must_use]
    pub fn at(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// The same, with this way out.
    #[must_use]
    pub fn suggest(self, suggestion: impl Into<String>) -> Self {
        Self { suggestion: Some(suggestion.into()), ..self }
    }
}
