//! `[[output.webhook]]`, in types that cannot hold nonsense.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::SigningKey;
use super::guard;
use super::message::Mode;
use super::policy::Policies;
use crate::model::pattern::Glob;
use crate::model::{ByteSize, Period, Secret};
use crate::output::deliver::{self, Ordering, Retry, StartFrom};

/// One `[[output.webhook]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Section")]
pub struct Config {
    /// Its name: its checkpoint is kept under it.
    pub name: String,
    /// The streams it delivers; `*` stands for any run of characters.
    pub streams: Vec<Glob>,
    /// Where events are POSTed to.
    pub url: Endpoint,
    /// Every event is signed with each of them, so that a receiver can change over. Empty only if
    /// the config says `unsigned = true`.
    pub keys: Vec<SigningKey>,
    /// How events are written.
    pub mode: Mode,
    /// How many go together, with `mode = "batch"`.
    pub batch: Batching,
    /// A try that takes longer has failed.
    pub timeout: Period,
    /// A connection that takes longer has failed.
    pub connect_timeout: Period,
    /// An answer that does not begin by then has failed.
    pub header_timeout: Period,
    /// What an answer's status means.
    pub on_status: Policies,
    /// Certificates, where the receiver wants to see one or has one of its own making.
    pub tls: Tls,
    /// Sent along with every event.
    pub headers: Headers,
    /// Whether private, local and other special addresses may be connected to.
    pub allow_private: bool,
    /// Deliveries under way at the same time.
    pub concurrency: NonZeroUsize,
    /// What is kept in order.
    pub ordering: Ordering,
    /// How failed deliveries are tried again.
    pub retry: Retry,
    /// Where it begins with a stream that it has never delivered.
    pub from: StartFrom,
}

impl Config {
    /// What [`crate::output::deliver::run`] needs to know.
    #[must_use]
    pub fn deliver(&self) -> deliver::Config {
        deliver::Config {
            name: self.name.clone(),
            streams: self.streams.clone(),
            concurrency: self.concurrency,
            ordering: self.ordering,
            retry: self.retry.clone(),
            from: self.from,
        }
    }
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    name: String,
    streams: Vec<Glob>,
    url: Endpoint,
    secret: Option<SigningKey>,
    #[serde(default)]
    secrets: Vec<SigningKey>,
    #[serde(default)]
    unsigned: bool,
    #[serde(default)]
    mode: Mode,
    batch: Option<Batching>,
    #[serde(default = "fifteen_seconds")]
    timeout: Period,
    connect_timeout: Option<Period>,
    header_timeout: Option<Period>,
    #[serde(default)]
    on_status: Policies,
    #[serde(default)]
    tls: Tls,
    #[serde(default)]
    headers: Headers,
    #[serde(default)]
    allow_private: bool,
    #[serde(default = "eight")]
    concurrency: NonZeroUsize,
    #[serde(default)]
    ordering: Ordering,
    #[serde(default)]
    retry: Retry,
    #[serde(default)]
    from: StartFrom,
}

/// `batch = { events = 100, bytes = "1MiB", linger = "100ms" }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batching {
    /// At most so many events.
    pub events: NonZeroUsize,
    /// At most so many bytes, unless one event alone has more.
    pub bytes: ByteSize,
    /// How long a batch that is not full waits for more.
    pub linger: Period,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            events: const { NonZeroUsize::new(100).unwrap() },
            bytes: ByteSize::new(1 << 20),
            linger: Period::from_millis(100),
        }
    }
}

/// `tls = { certificate = { file = "walmill.pem" }, key = { file = "walmill.key" } }`, in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// What walmill shows, the whole chain.
    pub certificate: Option<Secret>,
    /// Its key.
    pub key: Option<Secret>,
    /// Who may have signed the receiver's certificate, beside those that the system trusts.
    pub ca: Option<Secret>,
}

/// A connection takes no longer, whatever the timeout for the whole is.
const TEN_SECONDS: Period = Period::from_millis(10_000);

fn fifteen_seconds() -> Period {
    Period::from_millis(15_000)
}

fn eight() -> NonZeroUsize {
    const { NonZeroUsize::new(8).unwrap() }
}

impl TryFrom<Section> for Config {
    type Error = String;

    fn try_from(section: Section) -> Result<Self, String> {
        let name = section.name;
        if name.is_empty() {
            return Err("an output needs a name: its checkpoint is kept under it".into());
        }
        if section.streams.is_empty() {
            return Err(format!("output {name} has no streams, so it would deliver nothing"));
        }
        if section.batch.is_some() && section.mode != Mode::Batch {
            return Err(format!("output {name} has a `batch`, which needs `mode = \"batch\"`"));
        }
        if section.tls.certificate.is_some() != section.tls.key.is_some() {
            return Err(format!("output {name}: `tls` needs `certificate` and `key` together"));
        }
        if !section.allow_private {
            section.url.check_address().map_err(|why| format!("output {name}: {why}"))?;
        }
        let keys: Vec<_> = section.secret.into_iter().chain(section.secrets).collect();
        match (keys.is_empty(), section.unsigned) {
            (true, false) => Err(format!(
                "output {name} has no `secret`, so receivers could not tell its events from forged \
                 ones; give it one (`whsec_…`), or write `unsigned = true`"
            )),
            (false, true) => Err(format!("output {name} has a secret and `unsigned = true`")),
            _ => Ok(Self {
                name,
                streams: section.streams,
                url: section.url,
                keys,
                mode: section.mode,
                batch: section.batch.unwrap_or_default(),
                timeout: section.timeout,
                connect_timeout: section.connect_timeout.unwrap_or(TEN_SECONDS),
                header_timeout: section.header_timeout.unwrap_or(section.timeout),
                on_status: section.on_status,
                tls: section.tls,
                headers: section.headers,
                allow_private: section.allow_private,
                concurrency: section.concurrency,
                ordering: section.ordering,
                retry: section.retry,
                from: section.from,
            }),
        }
    }
}

/// An `http` or `https` URL. Shows without what may hold a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(pub(super) Url);

impl Endpoint {
    /// How much of the path shows: its first part.
    fn shown(&self) -> &str {
        let path = self.0.path();
        path[1..].find('/').map_or(path, |end| &path[..=end])
    }

    /// What does not show, whole and in its parts, as it is written and as it is meant.
    pub(super) fn hidden(&self) -> Vec<String> {
        let Self(url) = self;
        let rest = &url.path()[self.shown().len()..];
        let query = url.query().unwrap_or_default();
        let pairs = url.query_pairs().map(|(name, value)| match value.is_empty() {
            true => name.into_owned(),
            false => value.into_owned(),
        });
        // The value of `name=value`, or what has no `=`.
        let written = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |it| it.1));
        let parts: Vec<&str> = rest.split('/').chain(written).collect();
        let mut hidden: Vec<String> = parts.iter().map(|part| meant(part)).chain(pairs).collect();
        hidden.extend([rest, query].into_iter().chain(parts).map(str::to_owned));
        hidden
    }

    fn check_address(&self) -> Result<(), String> {
        let ip = match self.0.host() {
            Some(url::Host::Ipv4(ip)) => ip.into(),
            Some(url::Host::Ipv6(ip)) => ip.into(),
            Some(url::Host::Domain(_)) | None => return Ok(()),
        };
        guard::check(ip).map_err(|why| why.to_string())
    }
}

/// What stands in a URL, without its `%`.
fn meant(part: &str) -> String {
    // Nothing in it parts it, or is a space.
    let one = part.replace('&', "%26").replace('=', "%3D").replace('+', "%2B");
    url::form_urlencoded::parse(one.as_bytes()).map(|(text, _)| text).collect()
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        endpoint(&text).map_err(serde::de::Error::custom)
    }
}

/// The text itself is not shown in errors: it may hold a password.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    let url: Url = text.parse().map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("a webhook's URL begins with http or https, not {}", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a webhook's URL has no user or password in it; use `headers`".into());
    }
    Ok(Endpoint(url))
}

/// Shows where it leads: the server, and the first part of the path. The rest may be the secret of
/// whoever made the URL, as it is with Slack, Discord and Zapier: of that it shows only what tells
/// one from another.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(url) = self;
        let (path, first) = (url.path(), self.shown());
        let origin = url.origin().ascii_serialization();
        if first == path && url.query().is_none() && url.fragment().is_none() {
            return write!(f, "{origin}{path}");
        }
        write!(f, "{origin}{}", first.trim_end_matches('/'))?;
        let [a, b, ..] = <[u8; 32]>::from(Sha256::digest(url.as_str()));
        write!(f, "/…{a:02x}{b:02x}")
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Headers of one's own, `headers = { Authorization = { env = "TOKEN" } }`. Values print as
/// secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, Secret>")]
pub struct Headers(pub(super) HeaderMap);

/// Names that walmill, or HTTP, needs for itself.
const TAKEN: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "walmill-replayed",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

impl TryFrom<BTreeMap<String, Secret>> for Headers {
    type Error = String;

    fn try_from(headers: BTreeMap<String, Secret>) -> Result<Self, String> {
        let mut map = HeaderMap::new();
        for (name, secret) in headers {
            let header: HeaderName =
                name.parse().map_err(|_| format!("`{name}` is no name of a header"))?;
            if TAKEN.contains(&header.as_str()) || header.as_str().starts_with("ce-") {
                return Err(format!("header {name} is walmill's own"));
            }
            let mut value = HeaderValue::from_str(secret.reveal())
                .map_err(|_| format!("the value of header {name} has characters it cannot have"))?;
            value.set_sensitive(true);
            map.append(header, value);
        }
        Ok(Self(map))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::output::webhook) fn endpoint(url: &str) -> Endpoint {
        super::endpoint(url).unwrap()
    }

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read(more: &str) -> Result<Config, String> {
        let section = format!("name = 'billing'\nstreams = ['orders', 'orders.*']\n{more}");
        toml::from_str(&section).map_err(|error| error.message().to_owned())
    }

    fn with_url(url: &str) -> Result<Config, String> {
        read(&format!("url = '{url}'\nsecret = '{SECRET}'"))
    }

    #[test]
    fn what_is_left_out_is_sensible() {
        let config = with_url("https://billing.example/hook?token=t0k3n").unwrap();
        assert_eq!(config.timeout, Period::from_millis(15_000));
        assert_eq!((config.concurrency.get(), config.ordering), (8, Ordering::Key));
        assert_eq!((config.allow_private, config.from), (false, StartFrom::Earliest));
    }

    #[test]
    fn a_url_shows_where_it_leads_and_not_what_may_be_a_token() {
        let shown = |url: &str| with_url(url).unwrap().url.to_string();
        assert_eq!(shown("https://billing.example/hook"), "https://billing.example/hook");
        assert_eq!(shown("https://billing.example"), "https://billing.example/");
        let slack = "https://hooks.example:8443/services/T1/B2/t0k3n";
        let (start, digest) = ("https://hooks.example:8443/services/…", 4);
        assert!(shown(slack).starts_with(start), "{}", shown(slack));
        assert_eq!(shown(slack).len(), start.len() + digest);
        assert_ne!(shown(slack), shown("https://hooks.example:8443/services/T1/B2/other"));
        assert!(shown("https://billing.example/?token=t").starts_with("https://billing.example/…"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let config = read(&format!(
            "url = 'https://billing.example/hook?token=t0k3n'\nsecret = '{SECRET}'\n\
             headers = {{ Authorization = 'Bearer b3ar3r' }}"
        ));
        let shown = format!("{:?}", config.unwrap());
        for secret in ["t0k3n", "b3ar3r", &SECRET[6..]] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }

    #[test]
    fn an_unsigned_webhook_has_to_be_wanted() {
        assert!(read("url = 'https://billing.example'").unwrap_err().contains("no `secret`"));
        assert!(read("url = 'https://billing.example'\nunsigned = true").unwrap().keys.is_empty());
    }

    #[test]
    fn every_writing_of_a_private_address_is_refused_unless_allowed() {
        for url in [
            "http://127.1",
            "http://0x7f000001",
            "http://2130706433",
            "http://0177.0.0.1",
            "http://127.0.0.1#@good",
            "http://１２７.0.0.1",
            "http://[::1]",
            "http://[::ffff:127.0.0.1]",
            "http://[::ffff:7f00:1]",
            "http://[64:ff9b::7f00:1]",
            "http://0.0.0.0",
            "http://169.254.169.254/latest/meta-data",
            "http://100.64.0.1",
            "http://[fd00::1]",
            "http://[fe80::1]",
            "http://[ff02::1]",
            "http://[2002:7f00:1::]",
        ] {
            let error = with_url(url).unwrap_err();
            assert!(error.contains("allow_private"), "{url}: {error}");
            let allowed = format!("url = '{url}'\nsecret = '{SECRET}'\nallow_private = true");
            assert!(read(&allowed).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for url in
            ["ftp://billing.example", "file:///etc/passwd", "billing", "http://[fe80::1%25eth0]"]
        {
            assert!(with_url(url).is_err(), "{url}");
        }
        assert!(with_url("http://good@127.0.0.1").unwrap_err().contains("user"));
        assert!(!with_url("http://u:pa55@127.0.0.1").unwrap_err().contains("pa55"));
    }

    #[test]
    fn headers_of_ones_own_cannot_replace_walmills() {
        for (headers, why) in [
            ("{ Webhook-Id = 'x' }", "walmill's own"),
            ("{ 'a b' = 'x' }", "no name"),
            ("{ X-Token = \"a\\nb\" }", "characters"),
        ] {
            let more = format!(
                "url = 'https://billing.example'\nsecret = '{SECRET}'\nheaders = {headers}"
            );
            let error = read(&more).unwrap_err();
            assert!(error.contains(why), "{headers}: {error}");
        }
    }
}
