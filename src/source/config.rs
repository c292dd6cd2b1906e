//! `[source]`: which database, slot and tables.

use std::fmt;
use std::num::NonZeroUsize;

use serde::Deserialize;

use super::url::Url;
use crate::model::pattern::TablePattern;
use crate::model::quantity::{ByteSize, Period};

/// Longest name that PostgreSQL keeps; it cuts longer ones without a word.
const NAME_MAX: usize = 63;

/// `[source]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The database, as `postgres://user:password@host/database` or as `key=value` pairs.
    pub url: Url,
    /// The replication slot.
    #[serde(default)]
    pub slot: SlotName,
    /// The publication.
    #[serde(default)]
    pub publication: PublicationName,
    /// The tables that are published.
    #[serde(default = "every_public_table")]
    pub tables: Vec<TablePattern>,
    /// What becomes of the rows that were there before.
    #[serde(default)]
    pub snapshot: Snapshot,
    /// How many connections read tables at the same time while a snapshot is taken.
    #[serde(default = "snapshot_workers")]
    pub snapshot_workers: NonZeroUsize,
    /// About how large a backfill's chunks are.
    #[serde(default = "backfill_chunk")]
    pub backfill_chunk: ByteSize,
    /// Whether a missing slot is created.
    #[serde(default = "yes")]
    pub create_slot: bool,
    /// Whether a missing publication is created, and one that walmill made is kept up to date.
    #[serde(default = "yes")]
    pub create_publication: bool,
    /// Whether PostgreSQL (14 and later) sends transactions that do not fit its
    /// `logical_decoding_work_mem` while they are open, instead of keeping them on its own disk.
    #[serde(default = "yes")]
    pub streaming: bool,
    /// Whether prepared transactions come when they are prepared, to be kept here until they
    /// commit (PostgreSQL 15 and later); else they come when they commit.
    #[serde(default)]
    pub two_phase: bool,
    /// Whose changes come.
    #[serde(default)]
    pub origin: Origins,
    /// Whether a slot that walmill creates is kept on standbys, too (PostgreSQL 17 and later).
    #[serde(default)]
    pub failover: bool,
    /// Whether changes of a partition come under the name of the whole, where walmill makes the
    /// publication.
    #[serde(default = "yes")]
    pub publish_via_partition_root: bool,
    /// Whether stored generated columns come (PostgreSQL 18 and later), where walmill makes the
    /// publication.
    #[serde(default)]
    pub publish_generated_columns: bool,
    /// How long walmill waits for the database at the start before it gives up; later it waits for
    /// ever.
    #[serde(default = "start_timeout")]
    pub start_timeout: Period,
    /// How much of its log the server may keep for the slot before walmill warns and is not ready.
    /// It warns only: what protects the server's disk is its own `max_slot_wal_keep_size`.
    #[serde(default)]
    pub wal_budget: Option<ByteSize>,
}

impl Config {
    /// With the defaults for everything but the database.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self {
            url,
            slot: SlotName::default(),
            publication: PublicationName::default(),
            tables: every_public_table(),
            snapshot: Snapshot::default(),
            snapshot_workers: snapshot_workers(),
            backfill_chunk: backfill_chunk(),
            create_slot: true,
            create_publication: true,
            streaming: true,
            two_phase: false,
            origin: Origins::default(),
            failover: false,
            publish_via_partition_root: true,
            publish_generated_columns: false,
            start_timeout: start_timeout(),
            wal_budget: None,
        }
    }
}

fn yes() -> bool {
    true
}

fn snapshot_workers() -> NonZeroUsize {
    const { NonZeroUsize::new(4).unwrap() }
}

fn backfill_chunk() -> ByteSize {
    ByteSize::new(4 << 20)
}

fn start_timeout() -> Period {
    Period::from_millis(60_000)
}

fn every_public_table() -> Vec<TablePattern> {
    "public.*".parse().into_iter().collect()
}

/// A replication slot's name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SlotName(String);

/// A publication's name: any identifier.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicationName(String);

/// What becomes of the rows that are there before the slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Snapshot {
    /// They are left alone: the stream begins with the slot.
    #[default]
    Never,
    /// They come first, each once, and then the stream, with no gap between the two.
    Initial,
}

/// Whose changes come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origins {
    /// All.
    #[default]
    Any,
    /// Those that were made on this server, and not those that it got from another by replication
    /// (PostgreSQL 16 and later).
    None,
}

/// A name or word that PostgreSQL or walmill does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No slot can have this name.
    #[error("`{0}` is no slot name: use 1 to 63 lower case letters, digits and `_`")]
    Slot(String),
    /// No publication can have this name.
    #[error("`{0}` is no publication name: use 1 to 63 bytes, without a zero byte")]
    Publication(String),
    /// No such word.
    #[error("`{0}` is no kind of snapshot: use \"never\" or \"initial\"")]
    Snapshot(String),
}

impl SlotName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PublicationName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for SlotName {
    fn default() -> Self {
        Self("walmill".into())
    }
}

impl Default for PublicationName {
    fn default() -> Self {
        Self("walmill".into())
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PublicationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SlotName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        match name.len() {
            1..=NAME_MAX if name.bytes().all(allowed) => Ok(Self(name)),
            _ => Err(NameError::Slot(name)),
        }
    }
}

impl TryFrom<String> for PublicationName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        match name.len() {
            1..=NAME_MAX if !name.contains('\0') => Ok(Self(name)),
            _ => Err(NameError::Publication(name)),
        }
    }
}

impl TryFrom<String> for Snapshot {
    type Error = NameError;

    fn try_from(word: String) -> Result<Self, NameError> {
        match word.as_str() {
            "never" => Ok(Self::Never),
            "initial" => Ok(Self::Initial),
            _ => Err(NameError::Snapshot(word)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_is_enough() {
        let config = read("url = 'postgres://u@localhost/d'").unwrap();
        assert_eq!(config, Config::new("postgres://u@localhost/d".parse().unwrap()));
        assert_eq!(config.tables[0].to_string(), "public.*");
    }

    #[test]
    fn names_that_postgresql_would_refuse_or_cut_are_refused() {
        let long = "x".repeat(64);
        for slot in ["", "Upper", "a-b", "a b", "a;drop", "é", &long] {
            let name = SlotName::try_from(slot.to_owned());
            assert_eq!(name, Err(NameError::Slot(slot.into())));
        }
        for publication in ["", "a\0b", &long] {
            assert!(PublicationName::try_from(publication.to_owned()).is_err());
        }
        assert!(PublicationName::try_from("a\"b; drop".to_owned()).is_ok());
    }

    #[test]
    fn the_kinds_of_snapshot_are_named_where_another_is_written() {
        let config = read("url = 'postgres://u@h/d'\nsnapshot = 'initial'").unwrap();
        assert_eq!(config.snapshot, Snapshot::Initial);
        let error = read("url = 'postgres://u@h/d'\nsnapshot = 'always'").unwrap_err();
        assert!(error.contains("use \"never\" or \"initial\""), "{error}");
        assert!(read("url = 'postgres://u@h/d'\nsnapshot_workers = 0").is_err());
    }
}
