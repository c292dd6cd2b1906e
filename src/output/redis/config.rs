//! `[[output.redis]]`, in types that cannot hold nonsense.

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use serde::{Deserialize, Deserializer};

use crate::model::pattern::Glob;
use crate::model::{Period, Secret};
use crate::output::broker::{Delivery, Tls, Wait};
use crate::output::deliver::{Ordering, StartFrom};
use crate::output::format::Format;
use crate::output::template::{Names, Template};

/// One `[[output.redis]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Section")]
pub struct Config {
    /// Its name, its streams and how they are delivered.
    pub delivery: Delivery,
    /// The server.
    pub url: Address,
    /// Who walmill is to it; the default user if not set.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// How the connection is secured, where it is (`rediss://`).
    pub tls: Tls,
    /// The key of the Redis stream that an event is added to.
    pub key: Template,
    /// About how many entries each Redis stream keeps; all, if not set.
    pub maxlen: Option<NonZeroU64>,
    /// A server that takes longer is away.
    pub timeout: Period,
    /// The most events in one transaction.
    pub batch: NonZeroUsize,
    /// What an event looks like.
    pub format: Format,
}

/// A server's address, without user and password.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Address {
    written: String,
    pub(super) info: ConnectionInfo,
}

impl Address {
    fn is_secured(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    /// The text is not shown in errors: it may hold a password.
    fn try_from(text: String) -> Result<Self, String> {
        let info = text.as_str().into_connection_info().map_err(
            |_| "not a server's URL: write redis://host:6379/0, rediss:// for TLS, or unix:///path",
        )?;
        if let ConnectionAddr::TcpTls { insecure: true, .. } = info.addr() {
            return Err(
                "a certificate that is not checked secures nothing; take out `#insecure`, \
                        and name who vouches for the server with `tls.ca`"
                    .into(),
            );
        }
        let own = info.redis_settings();
        if own.username().is_some() || own.password().is_some() {
            return Err(
                "a server's URL has no user or password in it; use `user` and `password`".into()
            );
        }
        Ok(Self { written: text, info })
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Address {}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.written, f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    name: String,
    streams: Vec<Glob>,
    url: Address,
    user: Option<String>,
    password: Option<Secret>,
    tls: Option<Tls>,
    #[serde(default = "walmill", deserialize_with = "key")]
    key: Template,
    maxlen: Option<NonZeroU64>,
    #[serde(default = "ten_seconds")]
    timeout: Period,
    #[serde(default = "batch")]
    batch: NonZeroUsize,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    ordering: Ordering,
    #[serde(default)]
    retry: Wait,
    #[serde(default)]
    from: StartFrom,
}

fn walmill() -> Template {
    Template::parse("walmill:{stream}", Names::Key).expect("a key")
}

fn ten_seconds() -> Period {
    Period::from_millis(10_000)
}

fn batch() -> NonZeroUsize {
    const { NonZeroUsize::new(512).unwrap() }
}

fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
    let text = String::deserialize(deserializer)?;
    Template::parse(&text, Names::Key).map_err(serde::de::Error::custom)
}

impl TryFrom<Section> for Config {
    type Error = String;

    fn try_from(section: Section) -> Result<Self, String> {
        let Section { name, streams, ordering, retry, from, url, .. } = section;
        let delivery = Delivery { name, streams, ordering, wait: retry, from }.check()?;
        let name = &delivery.name;
        if section.user.is_some() && section.password.is_none() {
            return Err(format!("output {name} has a `user` without a `password`"));
        }
        if section.tls.is_some() && !url.is_secured() {
            return Err(format!(
                "output {name} has `tls`, and its URL does not ask for it: write rediss://"
            ));
        }
        Ok(Self {
            delivery,
            url,
            user: section.user,
            password: section.password,
            tls: section.tls.unwrap_or_default(),
            key: section.key,
            maxlen: section.maxlen,
            timeout: section.timeout,
            batch: section.batch,
            format: section.format,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &str) -> Result<Config, String> {
        let section = format!("name = 'a'\nstreams = ['orders']\n{more}");
        toml::from_str(&section).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn what_is_left_out_is_sensible() {
        let config = read("url = 'redis://127.0.0.1'").unwrap();
        assert_eq!((config.key.to_string(), config.maxlen), ("walmill:{stream}".into(), None));
        assert_eq!((config.batch.get(), config.format), (512, Format::CloudEvents));
        assert!(read("url = 'rediss://db.example/2'").unwrap().url.is_secured());
        assert!(read("url = 'unix:///run/redis.sock'").is_ok());
    }

    #[test]
    fn nothing_secret_is_shown() {
        let config = read("url = 'redis://a'\nuser = 'u'\npassword = 'p4ssw0rd'").unwrap();
        assert!(!format!("{config:?}").contains("p4ssw0rd"));
        let error = read("url = 'redis://u:p4ssw0rd@a'").unwrap_err();
        assert!(error.contains("no user or password") && !error.contains("p4ssw0rd"), "{error}");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (section, why) in [
            ("url = 'nats://a'", "not a server's URL"),
            ("url = 'rediss://a#insecure'", "secures nothing"),
            ("url = 'redis://a'\nuser = 'u'", "without a `password`"),
            ("url = 'redis://a'\ntls.ca = { file = '/no/such' }", "read secret from"),
            ("url = 'redis://a'\ntls = {}", "write rediss://"),
            ("url = 'redis://a'\nkey = '{key}'", "a beginning of its own"),
            ("url = 'redis://a'\nmaxlen = 0", "nonzero"),
        ] {
            let error = read(section).unwrap_err();
            assert!(error.contains(why), "{section}: {error}");
        }
    }
}
