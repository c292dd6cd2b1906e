//! A value that must never be shown: a token, a password, a signing key.

use std::fmt;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// A value that prints as `***`. In the config it is `{ env = "NAME" }`, `{ file = "/path" }` or
/// the text itself, and is looked up while the config is read.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret: { env = \"NAME\" }, { file = \"/path\" } or its text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        filled(text, "the secret")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let Some(kind) = map.next_key::<String>()? else {
            return Err(A::Error::invalid_length(0, &self));
        };
        let secret = match kind.as_str() {
            "env" => from_env(&map.next_value::<String>()?)?,
            "file" => from_file(&map.next_value::<PathBuf>()?)?,
            other => return Err(A::Error::unknown_field(other, &["env", "file"])),
        };
        match map.next_key::<String>()? {
            None => Ok(secret),
            Some(_) => Err(A::Error::custom("a secret has one of `env` and `file`, not both")),
        }
    }
}

fn from_env<E: Error>(name: &str) -> Result<Secret, E> {
    match std::env::var(name) {
        Ok(text) => filled(&text, &format!("environment variable {name}")),
        Err(std::env::VarError::NotPresent) => {
            Err(E::custom(format!("environment variable {name} is not set")))
        }
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(E::custom(format!("environment variable {name} is not UTF-8")))
        }
    }
}

fn from_file<E: Error>(path: &std::path::Path) -> Result<Secret, E> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| E::custom(format!("read secret from {}: {error}", path.display())))?;
    // Editors and `echo` end a file with a line break that nobody means.
    filled(text.trim_end_matches(['\r', '\n']), &format!("file {}", path.display()))
}

fn filled<E: Error>(text: &str, what: &str) -> Result<Secret, E> {
    match text {
        "" => Err(E::custom(format!("{what} is empty"))),
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Section {
        token: Secret,
    }

    fn read(toml: &str) -> Result<Secret, String> {
        toml::from_str::<Section>(toml).map(|s| s.token).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn a_secret_comes_from_text_environment_or_file_and_is_never_shown() {
        let file = std::env::temp_dir().join(format!("walmill-secret-{}", std::process::id()));
        std::fs::write(&file, "from file\n").unwrap();
        assert_eq!(read("token = 'inline'").unwrap().reveal(), "inline");
        assert_eq!(
            read(&format!("token.file = {:?}", file.display())).unwrap().reveal(),
            "from file"
        );
        // Set wherever tests run.
        let path = std::env::var("PATH").unwrap();
        assert_eq!(read("token.env = 'PATH'").unwrap().reveal(), path);
        assert_eq!(format!("{:?}", read("token = 'inline'").unwrap()), "***");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            read("token.env = 'WALMILL_NOT_SET'").unwrap_err(),
            "environment variable WALMILL_NOT_SET is not set"
        );
        assert!(read("token.file = '/no/such'").unwrap_err().starts_with("read secret from /no"));
        assert_eq!(read("token = ''").unwrap_err(), "the secret is empty");
        assert!(read("token.vault = 'x'").unwrap_err().contains("unknown field `vault`"));
        assert!(read("token = { env = 'HOME', file = 'x' }").unwrap_err().contains("not both"));
    }
}
