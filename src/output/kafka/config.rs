//! `[[output.kafka]]`, in types that cannot hold nonsense.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::model::pattern::Glob;
use crate::model::{Period, Secret};
use crate::output::broker::{Delivery, Wait};
use crate::output::deliver::{Ordering, StartFrom};
use crate::output::format::Format;
use crate::output::template::{Names, Template};

/// One `[[output.kafka]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Section")]
pub struct Config {
    /// Its name, its streams and how they are delivered.
    pub delivery: Delivery,
    /// Brokers to ask for the others, `host:port`.
    pub brokers: Vec<String>,
    /// The topic that an event goes to.
    pub topic: Template,
    /// Whether a delete in Debezium's format is followed by a tombstone.
    pub tombstones: bool,
    /// A broker that takes longer is away.
    pub timeout: Period,
    /// What an event looks like.
    pub format: Format,
    /// Settings of librdkafka, over walmill's own; they may be secrets.
    pub properties: BTreeMap<String, Secret>,
}

/// What order and "at least once" rest on, or another key says.
const TAKEN: [(&str, &str); 10] = [
    ("bootstrap.servers", "`brokers` says it"),
    ("metadata.broker.list", "`brokers` says it"),
    ("enable.idempotence", "order per key rests on it"),
    ("enable.gapless.guarantee", "order per key rests on it"),
    ("max.in.flight", "order per key rests on it"),
    ("max.in.flight.requests.per.connection", "order per key rests on it"),
    ("acks", "an event counts once all replicas in sync have it"),
    ("request.required.acks", "an event counts once all replicas in sync have it"),
    ("message.timeout.ms", "events are tried until they are taken"),
    ("delivery.timeout.ms", "events are tried until they are taken"),
];

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    name: String,
    streams: Vec<Glob>,
    brokers: Vec<String>,
    #[serde(default = "walmill", deserialize_with = "topic")]
    topic: Template,
    #[serde(default = "yes")]
    tombstones: bool,
    #[serde(default = "thirty_seconds")]
    timeout: Period,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    properties: BTreeMap<String, Secret>,
    #[serde(default)]
    ordering: Ordering,
    #[serde(default)]
    retry: Wait,
    #[serde(default)]
    from: StartFrom,
}

fn walmill() -> Template {
    Template::parse("walmill.{stream}", Names::Topic).expect("a topic")
}

fn yes() -> bool {
    true
}

fn thirty_seconds() -> Period {
    Period::from_millis(30_000)
}

fn topic<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
    let text = String::deserialize(deserializer)?;
    Template::parse(&text, Names::Topic).map_err(serde::de::Error::custom)
}

impl TryFrom<Section> for Config {
    type Error = String;

    fn try_from(section: Section) -> Result<Self, String> {
        let Section { name, streams, ordering, retry, from, brokers, properties, .. } = section;
        let delivery = Delivery { name, streams, ordering, wait: retry, from }.check()?;
        let name = &delivery.name;
        if brokers.is_empty() || brokers.iter().any(|broker| !is_broker(broker)) {
            return Err(format!("output {name} needs `brokers`, as in [\"kafka.example:9092\"]"));
        }
        if let Some((key, why)) = TAKEN.iter().find(|(key, _)| properties.contains_key(*key)) {
            return Err(format!("output {name} cannot set the property `{key}`: {why}"));
        }
        Ok(Self {
            delivery,
            brokers,
            topic: section.topic,
            tombstones: section.tombstones,
            timeout: section.timeout,
            format: section.format,
            properties,
        })
    }
}

fn is_broker(text: &str) -> bool {
    let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    matches!(port, Some(Ok(_))) && !text.contains([',', '/', '@'])
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
        let config = read("brokers = ['127.0.0.1:9092', '[::1]:9092']").unwrap();
        assert_eq!(
            (config.topic.to_string(), config.tombstones),
            ("walmill.{stream}".into(), true)
        );
        assert_eq!(config.format, Format::CloudEvents);
    }

    #[test]
    fn what_would_break_a_promise_is_refused_and_no_secret_is_shown() {
        let properties = "properties = { 'sasl.password' = 'p4ssw0rd' }";
        let config = read(&format!("brokers = ['a:1']\n{properties}")).unwrap();
        assert!(!format!("{config:?}").contains("p4ssw0rd"));
        for (more, why) in [
            ("brokers = []", "needs `brokers`"),
            ("brokers = ['kafka://a']", "needs `brokers`"),
            ("brokers = ['a:1']\nproperties = { acks = '1' }", "cannot set the property `acks`"),
            ("brokers = ['a:1']\ntopic = 'a b'", "topics have letters"),
            ("brokers = ['a:1']\ntopic = '{id}'", "a beginning of its own"),
        ] {
            let error = read(more).unwrap_err();
            assert!(error.contains(why), "{more}: {error}");
        }
    }
}
