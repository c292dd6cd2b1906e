//! What a client asks for when it joins a topic. Everything is read leniently, as the original
//! does: texts for booleans, nulls where something could stand.

use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::change::{Change, Kind};
use super::filter;
use crate::server::filter::Filter;

/// Bindings of one channel.
const MOST_BINDINGS: usize = 100;
/// Ways in which the filters of one channel may hold, all together.
const MOST_GROUPS: usize = 500;

/// A join.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) wants: Wants,
    /// `walmill: {resume: cursor}`: go on behind this place.
    pub(super) resume: Option<String>,
    /// For whom the channel is, where that is somebody else than the connection.
    pub(super) token: Option<String>,
}

/// What the channel is for.
#[derive(Debug)]
pub(super) enum Wants {
    /// First generation: the topic says it.
    Topic(Vec<Binding>),
    /// Second generation: the config says it.
    Config(Config),
}

impl Wants {
    pub(super) fn bindings(&self) -> &[Binding] {
        match self {
            Self::Topic(bindings) => bindings,
            Self::Config(config) => &config.bindings,
        }
    }
}

/// The config of the second generation. `postgres_changes_options` (whether the answer should wait
/// until changes are live) is not in it: they are when the answer is sent.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) bindings: Vec<Binding>,
    pub(super) to_self: bool,
    pub(super) acknowledge: bool,
    pub(super) presence_key: Option<String>,
    /// Whether the state of who is present is sent.
    pub(super) presence: bool,
    pub(super) private: bool,
}

/// Changes that are meant.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) id: u64,
    /// As it came, for the reply.
    pub(super) asked: Map<String, Value>,
    kind: Option<Kind>,
    /// All of them where it is none.
    schema: Option<String>,
    table: Option<String>,
    pub(super) filter: Filter,
    pub(super) select: Option<Vec<String>>,
    /// Why it can't be served: it is answered as asked for, as the original does, and the client
    /// hears the reason behind that.
    pub(super) broken: Option<String>,
}

impl Binding {
    /// Whether a change is meant.
    pub(super) fn means(&self, change: &Change) -> bool {
        self.covers(change.kind, &change.schema, &change.table) && change.fits(&self.filter)
    }

    /// The same as a filter for whoever looks for readers: first what narrows most.
    pub(super) fn wanted(&self) -> Filter {
        let op = self.kind.map(Kind::op);
        self.filter.and(&Filter::of_changes(self.schema.as_deref(), self.table.as_deref(), op))
    }

    /// Whether a change is meant, its filter aside.
    fn covers(&self, kind: Kind, schema: &str, table: &str) -> bool {
        self.broken.is_none()
            && self.kind.is_none_or(|own| own == kind)
            && self.schema.as_deref().is_none_or(|own| own == schema)
            && self.table.as_deref().is_none_or(|own| own == table)
    }

    fn read(mut asked: Map<String, Value>) -> Self {
        // Missing and null are the same; everything else comes back as it was asked.
        asked.retain(|_, value| !value.is_null());
        let text = |name: &str| asked.get(name).and_then(Value::as_str);
        let some = |name: &str| text(name).filter(|t| !matches!(*t, "" | "*")).map(str::to_owned);
        let (kind, filter) = (read_kind(text("event")), filter::read(text("filter").unwrap_or("")));
        let select = asked.get("select").and_then(Value::as_array).map(|names| {
            names.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<String>>()
        });
        let select = select.filter(|names| !names.is_empty());
        let (schema, table) = (some("schema"), some("table"));
        // Bindings that ask for the same have the same number.
        let id = xxh3_64(Value::Object(asked.clone()).to_string().as_bytes()) & 0x7FFF_FFFF;
        let broken = kind.as_ref().err().or(filter.as_ref().err()).cloned();
        let (kind, filter) =
            (kind.unwrap_or_default(), filter.unwrap_or_else(|_| filter::everything()));
        Self { id, asked, kind, schema, table, filter, select, broken }
    }

    /// A topic of the first generation: `*`, `SCHEMA`, `SCHEMA:TABLE`, `SCHEMA:TABLE:COL=eq.VAL`.
    fn of_topic(topic: &str) -> Result<Self, String> {
        let mut parts = topic.splitn(3, ':');
        let part = |part: Option<&str>| part.filter(|p| !matches!(*p, "" | "*")).map(str::to_owned);
        let (schema, table) = (part(parts.next()), part(parts.next()));
        let filter = parts.next().map(filter::read_topic).transpose()?;
        let filter = filter.unwrap_or_else(filter::everything);
        let (id, asked, kind, select, broken) = (0, Map::new(), None, None, None);
        Ok(Self { id, asked, kind, schema, table, filter, select, broken })
    }
}

fn read_kind(event: Option<&str>) -> Result<Option<Kind>, String> {
    Ok(Some(match event.map(str::to_ascii_uppercase).as_deref() {
        None | Some("*" | "") => return Ok(None),
        Some("INSERT") => Kind::Insert,
        Some("UPDATE") => Kind::Update,
        Some("DELETE") => Kind::Delete,
        Some("TRUNCATE") => Kind::Truncate,
        Some(other) => return Err(format!("`{other}` is not an event")),
    }))
}

impl Join {
    /// Reads the payload of a join to `realtime:NAME`.
    pub(super) fn read(name: &str, payload: &str) -> Result<Self, String> {
        let payload: Value = serde_json::from_str(payload)
            .map_err(|error| format!("the payload cannot be read: {error}"))?;
        let config = payload.get("config").filter(|config| config.is_object());
        let walmill = payload.get("walmill").or_else(|| config?.get("walmill"));
        let resume = walmill.and_then(|walmill| walmill.get("resume")?.as_str().map(str::to_owned));
        let wants = match config {
            None => Wants::Topic(vec![Binding::of_topic(name)?]),
            Some(config) => Wants::Config(Config::read(config)?),
        };
        Ok(Self { wants, resume, token: token(&payload) })
    }
}

impl Config {
    fn read(config: &Value) -> Result<Self, String> {
        let at = |path: &[&str]| path.iter().try_fold(config, |value, name| value.get(name));
        let bindings = at(&["postgres_changes"]).and_then(Value::as_array);
        let asked = bindings.into_iter().flatten().filter_map(Value::as_object).cloned();
        let bindings: Vec<Binding> = asked.map(Binding::read).collect();
        if bindings.len() > MOST_BINDINGS {
            return Err(format!("a channel has {MOST_BINDINGS} bindings at most"));
        }
        if bindings.iter().map(|binding| binding.filter.groups().len()).sum::<usize>() > MOST_GROUPS
        {
            return Err(format!("the filters of a channel can hold in {MOST_GROUPS} ways at most"));
        }
        let key = at(&["presence", "key"]).and_then(Value::as_str).filter(|key| !key.is_empty());
        Ok(Self {
            bindings,
            to_self: flag(at(&["broadcast", "self"])) == Some(true),
            acknowledge: flag(at(&["broadcast", "ack"])) == Some(true),
            presence_key: key.map(str::to_owned),
            // Clients before 2.12 do not say it, and wait for the state.
            presence: flag(at(&["presence", "enabled"])) != Some(false),
            private: flag(at(&["private"])) == Some(true),
        })
    }
}

/// The token in a payload. The first generation called it otherwise at first.
pub(super) fn token(payload: &Value) -> Option<String> {
    let given = payload.get("access_token").or_else(|| payload.get("user_token"))?.as_str()?;
    // Copied by hand, it may have lines.
    let token: String = given.chars().filter(|letter| !letter.is_whitespace()).collect();
    (!token.is_empty()).then_some(token)
}

fn flag(value: Option<&Value>) -> Option<bool> {
    match value? {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(join: &str) -> Config {
        match Join::read("any", join).unwrap().wants {
            Wants::Config(config) => config,
            Wants::Topic(_) => panic!("of the first generation: {join}"),
        }
    }

    #[test]
    fn a_topic_of_the_first_generation_says_what_it_is_for() {
        for (topic, schema, table, covered) in [
            ("*", "any", "thing", true),
            ("public", "public", "users", true),
            ("public", "other", "users", false),
            ("public:users", "public", "users", true),
            ("public:users", "public", "posts", false),
            ("*:users", "other", "users", true),
            ("public:users:name=eq.a:b=c", "public", "users", true),
        ] {
            let join = Join::read(topic, "{}").unwrap();
            let Wants::Topic(bindings) = join.wants else { panic!("{topic}") };
            assert_eq!(bindings[0].covers(Kind::Insert, schema, table), covered, "{topic}");
        }
    }

    #[test]
    fn a_config_is_read_leniently() {
        let lenient = config(
            r#"{"config":{"broadcast":{"ack":"true","self":true},"presence":null,"private":"false",
            "postgres_changes":[null,{"event":"insert","schema":"public","table":null}]}}"#,
        );
        assert!(lenient.acknowledge && lenient.to_self && lenient.presence && !lenient.private);
        assert_eq!(lenient.bindings.len(), 1);
        assert!(lenient.bindings[0].covers(Kind::Insert, "public", "anything"));
        assert!(!lenient.bindings[0].covers(Kind::Delete, "public", "anything"));
        assert!(!lenient.bindings[0].asked.contains_key("table"));
        let quiet = config(r#"{"config":{"presence":{"enabled":false,"key":"me"}}}"#);
        assert!(!quiet.presence && quiet.presence_key.as_deref() == Some("me"));
    }

    #[test]
    fn bindings_that_ask_for_the_same_have_one_number() {
        let bindings = config(
            r#"{"config":{"postgres_changes":[{"event":"*","schema":"public"},
            {"event":"*","schema":"public","filter":null},{"event":"*","schema":"public","filter":""}]}}"#,
        )
        .bindings;
        assert_eq!(bindings[0].id, bindings[1].id);
        assert_ne!(bindings[0].id, bindings[2].id);
    }

    #[test]
    fn a_filter_that_is_none_is_said() {
        for (binding, why) in [
            (r#"{"event":"*","filter":"id=5"}"#, "column=operator.value"),
            (r#"{"event":"UPSERT"}"#, "is not an event"),
        ] {
            let config = config(&format!(r#"{{"config":{{"postgres_changes":[{binding}]}}}}"#));
            let broken = config.bindings[0].broken.clone().unwrap();
            assert!(broken.contains(why), "{broken}");
            assert!(!config.bindings[0].covers(Kind::Insert, "public", "t"));
        }
        assert!(Join::read("public:t:id", "{}").unwrap_err().contains("column=operator.value"));
    }
}
