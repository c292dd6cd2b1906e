//! `[[output.nats]]`, in types that cannot hold nonsense.

use std::num::NonZeroUsize;

use serde::{Deserialize, Deserializer};
use url::Url;

use crate::model::pattern::Glob;
use crate::model::{Period, Secret};
use crate::output::broker::{Delivery, Tls, Wait};
use crate::output::deliver::{Ordering, StartFrom};
use crate::output::format::Format;
use crate::output::template::{Names, Template};

/// One `[[output.nats]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Section")]
pub struct Config {
    /// Its name, its streams and how they are delivered.
    pub delivery: Delivery,
    /// Servers of one cluster.
    pub servers: Vec<Server>,
    /// Under which subject an event is published.
    pub subject: Template,
    /// The JetStream stream that has to take it; any if not set.
    pub stream: Option<String>,
    /// Whether a missing stream is made.
    pub create_stream: bool,
    /// Whether nobody else writes to the stream.
    pub exclusive: bool,
    /// Who walmill is to the server.
    pub login: Login,
    /// How the connection is secured, where it is.
    pub tls: Option<Tls>,
    /// A server that takes longer is away.
    pub timeout: Period,
    /// Events under way at the same time.
    pub in_flight: NonZeroUsize,
    /// What an event looks like.
    pub format: Format,
}

impl Config {
    /// The subjects of a stream that is made for this output: those that begin as its own do.
    #[must_use]
    pub fn stream_subject(&self) -> Option<String> {
        stream_subject(&self.subject)
    }

    /// Whether it may deliver several streams. Two pipelines make events of the same id from a
    /// table that both read, so the server could not find duplicates by the id alone.
    #[must_use]
    pub fn reads_several(&self) -> bool {
        match self.delivery.streams.as_slice() {
            [one] => one.literal().is_none(),
            _ => true,
        }
    }
}

fn stream_subject(subject: &Template) -> Option<String> {
    match subject.prefix() {
        (whole, true) => Some(whole.to_owned()),
        (prefix, false) => prefix.rsplit_once('.').map(|(first, _)| format!("{first}.>")),
    }
}

/// Who walmill is to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Login {
    /// Anybody.
    #[default]
    None,
    /// Who has this token.
    Token(Secret),
    /// A user with a password.
    User(String, Secret),
    /// Who has this seed of an NKey.
    NKey(Secret),
    /// The content of a `.creds` file.
    Credentials(Secret),
}

/// A server's address, without user and password.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Server(String);

impl Server {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_secured(&self) -> bool {
        self.0.starts_with("tls:")
    }
}

impl TryFrom<String> for Server {
    type Error = String;

    /// The text is not shown in errors: it may hold a password.
    fn try_from(text: String) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|error| format!("not a URL: {error}"))?;
        match url.scheme() {
            _ if !url.username().is_empty() || url.password().is_some() => {
                Err("a server's URL has no user or password in it; use `user` and `password`, \
                     `token`, `nkey` or `credentials`"
                    .into())
            }
            _ if !url.has_host() => Err("a server's URL has a host: nats://host:4222".into()),
            "nats" | "tls" => Ok(Self(text)),
            scheme => Err(format!("a server's URL begins with nats or tls, not {scheme}")),
        }
    }
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    name: String,
    streams: Vec<Glob>,
    #[serde(deserialize_with = "one_or_several")]
    url: Vec<Server>,
    #[serde(default = "walmill", deserialize_with = "subject")]
    subject: Template,
    stream: Option<String>,
    #[serde(default)]
    create_stream: bool,
    #[serde(default)]
    exclusive: bool,
    token: Option<Secret>,
    user: Option<String>,
    password: Option<Secret>,
    nkey: Option<Secret>,
    credentials: Option<Secret>,
    tls: Option<Tls>,
    #[serde(default = "ten_seconds")]
    timeout: Period,
    #[serde(default = "in_flight")]
    in_flight: NonZeroUsize,
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
    Template::parse("walmill.{stream}", Names::Subject).expect("a subject")
}

fn ten_seconds() -> Period {
    Period::from_millis(10_000)
}

fn in_flight() -> NonZeroUsize {
    const { NonZeroUsize::new(256).unwrap() }
}

fn subject<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
    let text = String::deserialize(deserializer)?;
    Template::parse(&text, Names::Subject).map_err(serde::de::Error::custom)
}

/// `url = "…"` or `url = ["…", "…"]`.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Server>, D::Error> {
    struct Urls;
    impl<'de> serde::de::Visitor<'de> for Urls {
        type Value = Vec<Server>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a URL or a list of URLs")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Server::try_from(text.to_owned()).map(|server| vec![server]).map_err(E::custom)
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut urls: A,
        ) -> Result<Vec<Server>, A::Error> {
            let mut servers = Vec::new();
            while let Some(server) = urls.next_element()? {
                servers.push(server);
            }
            match servers.is_empty() {
                true => Err(serde::de::Error::custom("there is no URL")),
                false => Ok(servers),
            }
        }
    }
    deserializer.deserialize_any(Urls)
}

impl TryFrom<Section> for Config {
    type Error = String;

    fn try_from(section: Section) -> Result<Self, String> {
        let Section { name, streams, ordering, retry, from, url, stream, .. } = section;
        let delivery = Delivery { name, streams, ordering, wait: retry, from }.check()?;
        let name = &delivery.name;
        let given =
            (section.token, section.user, section.password, section.nkey, section.credentials);
        let login = match given {
            (None, None, None, None, None) => Login::None,
            (Some(token), None, None, None, None) => Login::Token(token),
            (None, Some(user), Some(password), None, None) => Login::User(user, password),
            (None, None, None, Some(seed), None) => Login::NKey(seed),
            (None, None, None, None, Some(content)) => Login::Credentials(content),
            _ => {
                return Err(format!(
                    "output {name} logs in with one of: `user` and `password`, `token`, `nkey`, \
                     `credentials`"
                ));
            }
        };
        let secured = url.iter().any(Server::is_secured);
        let tls = section.tls.or_else(|| secured.then(Tls::default));
        if stream.is_none() && (section.create_stream || section.exclusive) {
            let key = if section.exclusive { "exclusive" } else { "create_stream" };
            return Err(format!("output {name} has `{key}`, which needs the `stream`'s name"));
        }
        if section.create_stream && stream_subject(&section.subject).is_none() {
            return Err(format!(
                "output {name} has `create_stream`, and its subject begins with no part of its \
                 own; write `orders.{{region}}`, say"
            ));
        }
        if let Some(stream) = stream.as_deref().filter(|stream| !is_name(stream)) {
            return Err(format!(
                "output {name}: `{stream}` is no name of a JetStream stream; it has no spaces, \
                 `.`, `*`, `>` or slashes"
            ));
        }
        Ok(Self {
            delivery,
            servers: url,
            subject: section.subject,
            stream,
            create_stream: section.create_stream,
            exclusive: section.exclusive,
            login,
            tls,
            timeout: section.timeout,
            in_flight: section.in_flight,
            format: section.format,
        })
    }
}

fn is_name(stream: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    !stream.is_empty() && !stream.contains(bad)
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
        let config = read("url = 'nats://127.0.0.1:4222'").unwrap();
        assert_eq!(config.subject.to_string(), "walmill.{stream}");
        assert_eq!((config.login, config.tls), (Login::None, None));
        assert_eq!((config.in_flight.get(), config.format), (256, Format::CloudEvents));
        let secured = read("url = ['tls://a:4222', 'nats://b:4222']").unwrap();
        assert_eq!((secured.servers.len(), secured.tls), (2, Some(Tls::default())));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let config = read("url = 'nats://a'\nuser = 'u'\npassword = 'p4ssw0rd'").unwrap();
        assert!(!format!("{config:?}").contains("p4ssw0rd"));
        let error = read("url = 'nats://u:p4ssw0rd@a'").unwrap_err();
        assert!(error.contains("no user or password") && !error.contains("p4ssw0rd"), "{error}");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let url = "url = 'nats://a'\n";
        for (more, why) in [
            ("token = 'a'\nnkey = 'b'", "logs in with one of"),
            ("user = 'a'", "logs in with one of"),
            ("exclusive = true", "`exclusive`, which needs the `stream`'s name"),
            ("create_stream = true", "`create_stream`, which needs"),
            ("stream = 'a'\ncreate_stream = true\nsubject = 'a{op}'", "no part of its own"),
            ("stream = 'a.b'", "no name of a JetStream stream"),
            ("subject = '{table}'", "a beginning of its own"),
            ("subject = 'a b'", "no place in a subject"),
            ("tls.ca = 'nonsense'", "in PEM"),
            ("tls.key = 'x'", "belong together"),
            ("in_flight = 0", "nonzero"),
        ] {
            let error = read(&format!("{url}{more}")).unwrap_err();
            assert!(error.contains(why), "{more}: {error}");
        }
        assert!(read("url = []").unwrap_err().contains("no URL"));
        assert!(read("url = 'http://a'").unwrap_err().contains("nats or tls"));
    }
}
