//! What is measured: each case is a config of walmill, but for the reader that throws away.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) part: Part,
    pub(super) output: Output,
}

/// How much of the way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A reader that throws away.
    Raw,
    /// Source and journal.
    Journal,
    /// All of it, with these plugins.
    Pipeline(&'static [Guest]),
}

/// One plugin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Guest {
    name: &'static str,
    /// Below the folder of plugins.
    file: &'static str,
    language: Language,
    config: &'static str,
    keeps: Kept,
}

/// Which rows a plugin lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    All,
    /// Those of one region in four.
    Region,
    /// Those in two states of four.
    Status,
}

impl Kept {
    /// Whether the row of this id is among them.
    pub(super) fn keeps(self, id: u64) -> bool {
        match self {
            Self::All => true,
            Self::Region => id.is_multiple_of(4),
            Self::Status => id.is_multiple_of(2),
        }
    }
}

/// What a plugin was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Language {
    Rust,
    JavaScript,
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "Rust",
            Self::JavaScript => "JavaScript",
        })
    }
}

/// Who receives the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Output {
    /// They stay in the store.
    None,
    WebSocket,
    Webhook,
    Nats,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::WebSocket => "websocket",
            Self::Webhook => "webhook",
            Self::Nats => "nats",
        })
    }
}

const FILTER: Guest = rust("filter", r#"{ where = "region == 'NZ'" }"#, Kept::Region);
const RESHAPE: Guest =
    rust("reshape", r#"{ mask = { email = "email" }, drop = ["priority"] }"#, Kept::All);
const ROUTE: Guest = rust("route", r#"{ column = "region", prefix = "orders." }"#, Kept::All);

/// A filter that keeps every row: what the plugin itself costs, with nothing saved behind it.
const PASS: &[Guest] = &[rust("filter", r#"{ where = "quantity >= 0" }"#, Kept::All)];
const JUST_FILTER: &[Guest] = &[FILTER];
const THREE: &[Guest] = &[FILTER, RESHAPE, ROUTE];
/// Filter, masked column, computed column and route in one; the same in each language.
const ORDERS: [&[Guest]; 2] = [
    &[example("examples/rust", Language::Rust)],
    &[example("examples/javascript", Language::JavaScript)],
];

const fn rust(name: &'static str, config: &'static str, keeps: Kept) -> Guest {
    Guest { name, file: name, language: Language::Rust, config, keeps }
}

const fn example(file: &'static str, language: Language) -> Guest {
    Guest { name: "orders", file, language, config: "{}", keeps: Kept::Status }
}

const fn case(name: &'static str, part: Part, output: Output) -> Case {
    Case { name, part, output }
}

/// In the order in which they are measured. The first is what the others are compared with.
pub(super) const CASES: [Case; 17] = [
    case("raw", Part::Raw, Output::None),
    case("journal", Part::Journal, Output::None),
    case("pipeline", Part::Pipeline(&[]), Output::None),
    case("pass", Part::Pipeline(PASS), Output::None),
    case("filter", Part::Pipeline(JUST_FILTER), Output::None),
    case("reshape", Part::Pipeline(&[RESHAPE]), Output::None),
    case("route", Part::Pipeline(&[ROUTE]), Output::None),
    case("three", Part::Pipeline(THREE), Output::None),
    case("orders", Part::Pipeline(ORDERS[0]), Output::None),
    case("orders-js", Part::Pipeline(ORDERS[1]), Output::None),
    case("pipeline-ws", Part::Pipeline(&[]), Output::WebSocket),
    case("pass-ws", Part::Pipeline(PASS), Output::WebSocket),
    case("filter-ws", Part::Pipeline(JUST_FILTER), Output::WebSocket),
    case("three-ws", Part::Pipeline(THREE), Output::WebSocket),
    case("filter-webhook", Part::Pipeline(JUST_FILTER), Output::Webhook),
    case("filter-nats", Part::Pipeline(JUST_FILTER), Output::Nats),
    case("pipeline-nats", Part::Pipeline(&[]), Output::Nats),
];

impl FromStr for Case {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let named = CASES.iter().find(|case| case.name == name).copied();
        named.ok_or_else(|| format!("there are {}", CASES.map(|case| case.name).join(", ")))
    }
}

impl Case {
    fn guests(&self) -> &'static [Guest] {
        match self.part {
            Part::Raw | Part::Journal => &[],
            Part::Pipeline(guests) => guests,
        }
    }

    pub(super) fn plugins(&self) -> usize {
        self.guests().len()
    }

    pub(super) fn language(&self) -> Option<Language> {
        self.guests().first().map(|guest| guest.language)
    }

    /// What all of its plugins let through: no two of them choose rows.
    pub(super) fn keeps(&self) -> Kept {
        let chosen = self.guests().iter().map(|guest| guest.keeps);
        chosen.fold(Kept::All, |all, kept| if all == Kept::All { kept } else { all })
    }

    /// A file that it needs and that is not there.
    pub(super) fn missing(&self, plugins: &Path) -> Option<PathBuf> {
        let mut files = self.guests().iter().map(|guest| guest.path(plugins));
        files.find(|file| !file.is_file())
    }

    /// The config of its pipeline.
    pub(super) fn pipeline(&self, plugins: &Path) -> String {
        if !matches!(self.part, Part::Pipeline(_)) {
            return String::new();
        }
        let quoted = self.guests().iter().map(|guest| format!("'{}'", guest.name));
        let names = quoted.collect::<Vec<_>>().join(", ");
        let tables: String = self.guests().iter().map(|guest| guest.table(plugins)).collect();
        format!(
            "{tables}[[pipeline]]\nname = 'orders'\ntables = ['public.orders']\n\
             plugins = [{names}]\nstreams = ['orders.*']\n"
        )
    }

    /// The streams that a client asks for.
    pub(super) fn streams(&self) -> &'static [&'static str] {
        match self.guests().iter().any(|guest| guest.name == "route") {
            true => &["orders", "orders.nz"],
            false => &["orders"],
        }
    }
}

impl Guest {
    fn path(&self, plugins: &Path) -> PathBuf {
        plugins.join(format!("{}.wasm", self.file))
    }

    fn table(&self, plugins: &Path) -> String {
        let Self { name, config, .. } = self;
        format!("[plugins.{name}]\npath = '{}'\nconfig = {config}\n", self.path(plugins).display())
    }
}
