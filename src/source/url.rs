//! The database's address: a secret, so it prints without its password.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use tokio_postgres::config::{Host, SslMode};

/// Where the database is and who we are there, as `postgres://…` or as `key=value` pairs.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Url {
    /// Everything but TLS.
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: Tls,
}

/// How the connection is secured, as libpq's parameters say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) mode: TlsMode,
    /// `sslrootcert`; the system's authorities where there is none.
    pub(super) roots: Option<PathBuf>,
    /// `sslcert` and `sslkey`.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum TlsMode {
    Disable,
    /// TLS where the server has it; nothing is checked.
    Prefer,
    /// TLS; nothing is checked.
    Require,
    /// The certificate must come from an authority that we trust.
    VerifyCa,
    /// And it must be for the host that we asked for.
    #[default]
    VerifyFull,
}

/// Text that is no database address.
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
    /// A mode that we do not have.
    #[error("sslmode `{0}`: use disable, prefer, require, verify-ca or verify-full")]
    SslMode(String),
    /// Who connects is not said.
    #[error("the database address names no user: write postgres://user@host/database")]
    NoUser,
    /// One of a pair.
    #[error("the database address has sslcert without sslkey, or the other way round")]
    HalfCertificate,
}

impl Url {
    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_default()
    }

    /// Who we are.
    #[must_use]
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (rest, options) = split_tls_options(text)?;
        let mut config: tokio_postgres::Config = rest.parse().map_err(|error| invalid(&error))?;
        if config.get_user().is_none() {
            config.user(std::env::var("USER").map_err(|_| UrlError::NoUser)?);
        }
        if config.get_dbname().is_none() {
            config.dbname(config.get_user().unwrap_or_default().to_owned());
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host("localhost");
        }
        let tls = Tls::new(&config, &options)?;
        // The negotiation is ours; tokio-postgres is handed a stream that is ready.
        config.ssl_mode(SslMode::Disable);
        Ok(Self { config, tls })
    }
}

impl TryFrom<String> for Url {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", self.user())?;
        let named = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        });
        let numbered = self.config.get_hostaddrs().iter().map(IpAddr::to_string);
        let hosts: Vec<String> =
            if self.config.get_hosts().is_empty() { numbered.collect() } else { named.collect() };
        write!(f, "{}", hosts.join(","))?;
        if let [port] = self.config.get_ports() {
            write!(f, ":{port}")?;
        }
        write!(f, "/{}", self.database())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

fn invalid(error: &dyn std::error::Error) -> UrlError {
    UrlError::Invalid(error.source().map_or_else(|| error.to_string(), ToString::to_string))
}

impl Tls {
    fn new(
        config: &tokio_postgres::Config,
        options: &[(String, String)],
    ) -> Result<Self, UrlError> {
        let option = |name| options.iter().rev().find(|(key, _)| key == name).map(|(_, v)| v);
        let path = |name| option(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let roots = path("sslrootcert").filter(|path| path.as_os_str() != "system");
        let mode = match option("sslmode").map(String::as_str) {
            None if is_local(config) => TlsMode::Prefer,
            None | Some("verify-full") => TlsMode::VerifyFull,
            Some("disable") => TlsMode::Disable,
            Some("prefer") => TlsMode::Prefer,
            // As libpq: who names an authority wants it to be asked.
            Some("require") if roots.is_some() => TlsMode::VerifyCa,
            Some("require") => TlsMode::Require,
            Some("verify-ca") => TlsMode::VerifyCa,
            Some(other) => return Err(UrlError::SslMode(other.into())),
        };
        let client = match (path("sslcert"), path("sslkey")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(UrlError::HalfCertificate),
        };
        Ok(Self { mode, roots, client })
    }
}

/// Whether what we send never leaves this machine.
fn is_local(config: &tokio_postgres::Config) -> bool {
    let hosts = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
    });
    hosts && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// The options about TLS, which tokio-postgres does not know all of, and the text without them.
fn split_tls_options(text: &str) -> Result<(String, Vec<(String, String)>), UrlError> {
    if let Some((scheme, _)) = text.split_once("://").filter(|(scheme, _)| is_word(scheme)) {
        return match scheme {
            "postgres" | "postgresql" => Ok(split_query(text)),
            _ => Err(UrlError::Scheme(scheme.into())),
        };
    }
    let (tls, rest): (Vec<_>, Vec<_>) = pairs(text)?.into_iter().partition(|(key, _)| is_tls(key));
    let quote = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let rest: Vec<String> =
        rest.iter().map(|(key, value)| format!("{key}='{}'", quote(value))).collect();
    Ok((rest.join(" "), tls))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn is_tls(key: &str) -> bool {
    ["sslmode", "sslrootcert", "sslcert", "sslkey"].contains(&key)
}

fn split_query(text: &str) -> (String, Vec<(String, String)>) {
    // A question mark before the `@` belongs to the password.
    let start = text.find('@').unwrap_or(0);
    let Some(question) = text[start..].find('?').map(|at| start + at) else {
        return (text.into(), Vec::new());
    };
    let (tls, rest): (Vec<&str>, Vec<&str>) = text[question + 1..]
        .split('&')
        .partition(|pair| is_tls(pair.split_once('=').map_or(pair, |(key, _)| key)));
    let decode = |pair: &str| {
        url::form_urlencoded::parse(pair.replace('+', "%2B").as_bytes())
            .next()
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
    };
    let tls = tls.into_iter().filter_map(decode).collect();
    let rest = match rest.is_empty() {
        true => text[..question].into(),
        false => format!("{}?{}", &text[..question], rest.join("&")),
    };
    (rest, tls)
}

/// `key = value` pairs, as libpq reads them: blanks around `=`, quotes, backslashes.
fn pairs(text: &str) -> Result<Vec<(String, String)>, UrlError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, behind) = rest
            .split_once('=')
            .ok_or_else(|| UrlError::Invalid("a name without `=` and a value".into()))?;
        let (value, behind) = value(behind.trim_start())?;
        pairs.push((key.trim().into(), value));
        rest = behind.trim_start();
    }
    Ok(pairs)
}

fn value(text: &str) -> Result<(String, &str), UrlError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if c.is_whitespace() && !quoted => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    match quoted {
        true => Err(UrlError::Invalid("an open quote".into())),
        false => Ok((value, "")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Url {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn both_ways_of_writing_an_address_mean_the_same() {
        let url = read(
            "postgres://me:s%27cret@db.example:5433/shop?sslmode=verify-ca&sslrootcert=/a%20b",
        );
        let pairs = read(
            r"host=db.example port=5433 user=me password='s\'cret' dbname = shop sslmode=verify-ca sslrootcert='/a b'",
        );
        assert_eq!(url, pairs);
        assert_eq!(url.tls.mode, TlsMode::VerifyCa);
        assert_eq!(url.tls.roots, Some("/a b".into()));
    }

    #[test]
    fn a_password_is_never_printed() {
        let url = read("postgres://me:s3cret@db.example:5433/shop");
        for text in [url.to_string(), format!("{url:?}"), format!("{:?}", url.config)] {
            assert!(!text.contains("s3cret"), "{text}");
        }
        assert_eq!(url.to_string(), "postgres://me@db.example:5433/shop");
    }

    #[test]
    fn what_leaves_the_machine_is_verified_unless_the_address_says_otherwise() {
        let mode = |text| read(text).tls.mode;
        assert_eq!(mode("postgres://u@db.example/d"), TlsMode::VerifyFull);
        assert_eq!(mode("postgres://u@localhost,db.example/d"), TlsMode::VerifyFull);
        assert_eq!(mode("postgres://u@[::1]/d"), TlsMode::Prefer);
        assert_eq!(mode("postgres://u@127.0.0.1/d"), TlsMode::Prefer);
        assert_eq!(mode("host=/var/run/postgresql user=u"), TlsMode::Prefer);
        assert_eq!(mode("postgres://u@db.example/d?sslmode=require"), TlsMode::Require);
        assert_eq!(mode("postgres://u@h/d?sslmode=require&sslrootcert=ca"), TlsMode::VerifyCa);
    }

    #[test]
    fn what_is_no_address_says_what_one_looks_like() {
        let error = |text: &str| text.parse::<Url>().expect_err(text);
        assert_eq!(error("http://u@h/d"), UrlError::Scheme("http".into()));
        assert_eq!(error("postgres://u@h/d?sslmode=on"), UrlError::SslMode("on".into()));
        assert_eq!(error("postgres://u@h/d?sslcert=c"), UrlError::HalfCertificate);
        for text in ["host", "host='a", "postgres://u@h:port/d", "postgres://u@h/d?nonsense=1"] {
            assert!(matches!(error(text), UrlError::Invalid(_)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(postgres://)?.{0,60}") {
            let _ = text.parse::<Url>();
        }
    }
}
