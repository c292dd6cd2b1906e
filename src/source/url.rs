//! The database's address: where it is, who we are there, and how the way is secured. Read as libpq
//! reads it, from `source.url` and, where that is silent, from a service file and `PG*` variables.
//!
//! It holds secrets, so it prints without them.

mod host;
mod keys;
mod keyword;
mod service;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::model::Secret;
use crate::model::finding::did_you_mean;
pub(super) use host::{DEFAULT_PORT, Host, Name};
use keys::Keys;
pub(super) use keys::{Binding, Client, Method, Methods, Negotiation, Tls, TlsMode, Wanted};

/// Where the database is and who we are there, as `postgres://…` or as `key=value` pairs.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// At least one.
    pub(super) hosts: Vec<Host>,
    /// `load_balance_hosts=random`
    pub(super) shuffled: bool,
    user: String,
    database: String,
    pub(super) password: Option<Secret>,
    /// Whether the password came from `PGPASSWORD`.
    pub(super) password_of_environment: bool,
    /// Where a password is looked up that nobody has said.
    pub(super) passfile: Option<PathBuf>,
    pub(super) application_name: String,
    /// `options`: further settings of the session.
    pub(super) options: Option<String>,
    pub(super) tls: Tls,
    pub(super) binding: Binding,
    /// `require_auth`: how the server may ask who we are.
    pub(super) methods: Methods,
    /// `requirepeer`: whose process must be at the other end of a Unix socket.
    pub(super) peer: Option<String>,
    /// `target_session_attrs`: which kind of server is taken.
    pub(super) wanted: Wanted,
    /// `connect_timeout`, for each address.
    pub(super) timeout: Option<Duration>,
    pub(super) keepalive: Keepalive,
}

/// How a link that has gone silent is noticed; zero leaves a time to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keepalive {
    pub(super) on: bool,
    /// Before the first probe.
    pub(super) idle: Duration,
    pub(super) interval: Duration,
    /// Probes that may stay without an answer.
    pub(super) count: u32,
    /// For what we sent and nobody acknowledged.
    pub(super) user_timeout: Duration,
}

/// Text that is no database address, or one that asks for what walmill does not do. Says no value,
/// since it may be a part of a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It cannot be read.
    #[error(
        "not a database address: {0}; write postgres://user:password@host:5432/database, \
         with %XX for special characters"
    )]
    Invalid(String),
    /// Another protocol.
    #[error("`{0}://` is no database address: write postgres://user:password@host:5432/database")]
    Scheme(String),
    /// A parameter that libpq does not have.
    #[error("the database address has {0}")]
    Unknown(String),
    /// A value that its parameter does not take.
    #[error("the database address: `{parameter}` takes {expected}")]
    Value {
        /// The parameter.
        parameter: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// Lists that do not fit together.
    #[error("the database address: {0}")]
    Lists(&'static str),
    /// Something that libpq has and walmill does not.
    #[error(
        "the database address: walmill does not have `{parameter}`{}; take it out",
        but_for(possible)
    )]
    Refused {
        /// The parameter.
        parameter: &'static str,
        /// Values that change nothing, and are taken.
        possible: &'static [&'static str],
    },
    /// A service that cannot be read.
    #[error("the database address: service `{service}`: {why}")]
    Service {
        /// Its name.
        service: String,
        /// What is wrong.
        why: String,
    },
    /// Who connects is not said.
    #[error("the database address names no user: write postgres://user@host/database")]
    NoUser,
    /// One of a pair.
    #[error("the database address has sslcert without sslkey, or the other way round")]
    HalfCertificate,
    /// Nothing says which database.
    #[error(
        "no database is named: set `url` in `[source]`, or PGHOST, PGDATABASE and PGUSER in the \
         environment"
    )]
    Nothing,
}

fn but_for(possible: &[&str]) -> String {
    match possible {
        [] => String::new(),
        values => format!(", but as {}", values.join(" or ")),
    }
}

/// Where environment variables are looked up.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Url {
    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Who we are.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The address that the environment alone gives.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn of_environment() -> Result<Self, UrlError> {
        Self::without_text(&variable)
    }

    fn without_text(lookup: Lookup<'_>) -> Result<Self, UrlError> {
        let names = ["PGSERVICE", "PGHOST", "PGHOSTADDR", "PGDATABASE", "PGUSER"];
        match names.iter().any(|name| lookup(name).is_some()) {
            true => Self::read("", lookup),
            false => Err(UrlError::Nothing),
        }
    }

    /// Reads an address; what it does not say is looked up.
    fn read(text: &str, lookup: Lookup<'_>) -> Result<Self, UrlError> {
        let (parameters, password_of_environment) = gather(text, lookup)?;
        let keys = Keys { parameters: &parameters, lookup };
        let hosts = host::hosts(keys.get("host"), keys.get("hostaddr"), keys.get("port"))?;
        let user = match keys.get("user") {
            Some(user) => user.to_owned(),
            None => super::user::current(lookup).ok_or(UrlError::NoUser)?,
        };
        Ok(Self {
            database: keys.get("dbname").unwrap_or(&user).to_owned(),
            user,
            password: keys.get("password").map(Secret::new),
            password_of_environment,
            passfile: keys.file("passfile", ".pgpass"),
            application_name: keys
                .get("application_name")
                .or(keys.get("fallback_application_name"))
                .unwrap_or("walmill")
                .into(),
            options: keys.get("options").map(Into::into),
            tls: keys.tls(hosts.iter().all(Host::is_local))?,
            binding: keys.binding()?,
            methods: keys.methods()?,
            peer: keys.get("requirepeer").map(Into::into),
            wanted: keys.wanted(hosts.len())?,
            timeout: keys.timeout()?,
            keepalive: keys.keepalive()?,
            shuffled: keys.shuffled()?,
            hosts,
        })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Every parameter that is said, by the address before the service before the environment; and
/// whether the password came last.
fn gather(
    text: &str,
    lookup: Lookup<'_>,
) -> Result<(HashMap<&'static str, String>, bool), UrlError> {
    let is_uri = text.contains("://");
    let mut found = HashMap::new();
    for (name, value) in text::parameters(text.trim())? {
        let keyword = keyword::find(&name).ok_or_else(|| unknown(&name, is_uri))?;
        keyword.check(&value)?;
        // As in libpq, the last one wins.
        found.insert(keyword.name, value);
    }
    let said = |found: &HashMap<_, String>, name: &'static str, variable: &str| {
        found.get(name).cloned().or_else(|| lookup(variable))
    };
    if let Some(service) = said(&found, "service", "PGSERVICE") {
        let file = said(&found, "servicefile", "PGSERVICEFILE");
        for (name, value) in service::parameters(&service, file.as_deref(), lookup)? {
            if let Some(keyword) = keyword::find(&name).filter(|k| !found.contains_key(k.name)) {
                keyword.check(&value)?;
                found.insert(keyword.name, value);
            }
        }
    }
    let mut password_of_environment = false;
    for keyword in keyword::KEYWORDS {
        let value = keyword.variable.filter(|_| !found.contains_key(keyword.name)).and_then(lookup);
        if let Some(value) = value {
            keyword.check(&value)?;
            password_of_environment |= keyword.name == "password";
            found.insert(keyword.name, value);
        }
    }
    if !found.contains_key("sslmode") && lookup("PGREQUIRESSL").as_deref() == Some("1") {
        found.insert("sslmode", "require".into());
    }
    Ok((found, password_of_environment))
}

/// A parameter that nobody knows is named only where it cannot be a part of a password.
fn unknown(name: &str, is_uri: bool) -> UrlError {
    let known = keyword::KEYWORDS.iter().map(|keyword| keyword.name);
    let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    UrlError::Unknown(match did_you_mean(name, known) {
        Some(meant) => format!("a parameter that is not known; did you mean `{meant}`?"),
        None if is_uri && word => format!("a parameter `{name}`, which PostgreSQL does not know"),
        None => "a parameter that PostgreSQL does not know; quote values that have blanks in \
                 them: password='…'"
            .into(),
    })
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        Self::read(text, &variable)
    }
}

impl<'de> Deserialize<'de> for Url {
    /// Where the key is not there at all, serde asks for a value that is none: then the environment
    /// speaks alone.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<String>::deserialize(deserializer)? {
            Some(text) => text.parse(),
            None => Self::of_environment(),
        }
        .map_err(D::Error::custom)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |host: &Host| match (&host.name, host.port) {
            (Name::Default, DEFAULT_PORT) => String::new(),
            (Name::Default, port) => format!(":{port}"),
            (Name::Tcp(name), DEFAULT_PORT) if !name.contains(':') => name.clone(),
            (Name::Tcp(_), _) => host.to_string(),
            (Name::Unix(folder), DEFAULT_PORT) => folder.display().to_string(),
            (Name::Unix(folder), port) => format!("{}:{port}", folder.display()),
        };
        let hosts: Vec<String> = self.hosts.iter().map(host).collect();
        write!(f, "postgres://{}@{}/{}", self.user, hosts.join(","), self.database)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
