//! Tables as the stream last described them, and the kinds of value their columns hold.

use std::fmt;

use serde::{Deserialize, Serialize};

/// walmill's own number for one version of one table's definition. A changed definition gets a new
/// one, so a change in the journal always finds the columns of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RelationId(pub u32);

/// A table as the stream last described it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// PostgreSQL's OID of the table.
    pub oid: u32,
    /// The schema's name.
    pub schema: String,
    /// The table's name.
    pub table: String,
    /// What old rows hold.
    pub identity: ReplicaIdentity,
    /// In the table's order.
    pub columns: Vec<Column>,
}

impl Relation {
    /// Whether the stream marks the columns that identify a row. FULL marks every column, and
    /// NOTHING none; then it is the primary key.
    #[must_use]
    pub fn says_key(&self) -> bool {
        matches!(self.identity, ReplicaIdentity::Default | ReplicaIdentity::Index)
    }

    /// Takes these columns for the key.
    pub fn set_key(&mut self, primary_key: &[String]) {
        for column in &mut self.columns {
            column.key = primary_key.contains(&column.name);
        }
        self.identify();
    }

    /// A table without a key is identified by all its columns.
    pub fn identify(&mut self) {
        if !self.columns.iter().any(|column| column.key) {
            self.columns.iter_mut().for_each(|column| column.key = true);
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// What PostgreSQL sends of a row's old version (PostgreSQL docs, "Replica Identity").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaIdentity {
    /// The primary key's columns.
    Default,
    /// Nothing.
    Nothing,
    /// Every column.
    Full,
    /// The columns of a chosen unique index.
    Index,
}

/// One column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// OID of its type.
    pub type_oid: u32,
    /// PostgreSQL's type modifier, -1 for none.
    pub type_mod: i32,
    /// As SQL would write it: `int8`, `numeric(12,2)`, `public.mood`.
    pub type_name: String,
    /// How its values are read and shown.
    pub kind: Kind,
    /// Part of the key that identifies a row: the primary key, or the replica identity's index.
    pub key: bool,
}

/// How a type's values are read and shown. A type with no kind of its own is [`Kind::Text`], in
/// PostgreSQL's text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `boolean`
    Bool,
    /// `smallint`, `integer`, `bigint`, and the numbers of 32 bits that PostgreSQL counts by:
    /// `oid`, `xid`, `cid`
    Int,
    /// `real`, `double precision`
    Float,
    /// `timestamp`
    Timestamp,
    /// `timestamptz`
    TimestampTz,
    /// `date`
    Date,
    /// `time`
    Time,
    /// Everything else.
    Text,
    /// `numeric`, and `xid8`, which is too large for an integer of 64 bits with a sign
    Numeric,
    /// `json`, `jsonb`
    Json,
    /// `bytea`
    Bytea,
    /// `uuid`
    Uuid,
    /// An array; its elements' kind.
    Array(Element),
}

/// The kind of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// As [`Kind::Bool`].
    Bool,
    /// As [`Kind::Int`].
    Int,
    /// As [`Kind::Float`].
    Float,
    /// As [`Kind::Timestamp`].
    Timestamp,
    /// As [`Kind::TimestampTz`].
    TimestampTz,
    /// As [`Kind::Numeric`].
    Numeric,
    /// As [`Kind::Json`].
    Json,
    /// As [`Kind::Text`]; every other kind, too.
    Text,
    /// The same, parted by this byte and not by a comma: `box` has a semicolon.
    Delimited(u8),
}

impl Element {
    /// The kind of elements of a built-in type, by its OID.
    #[must_use]
    pub fn of_builtin(oid: u32) -> Self {
        match Kind::of_builtin(oid) {
            Kind::Bool => Self::Bool,
            Kind::Int => Self::Int,
            Kind::Float => Self::Float,
            Kind::Timestamp => Self::Timestamp,
            Kind::TimestampTz => Self::TimestampTz,
            Kind::Numeric => Self::Numeric,
            Kind::Json => Self::Json,
            // As JSON these are the text that PostgreSQL writes.
            Kind::Date | Kind::Time | Kind::Text | Kind::Bytea | Kind::Uuid | Kind::Array(_) => {
                Self::Text
            }
        }
    }
}

impl Kind {
    /// The kind of a built-in type, by its OID (`pg_type.dat`); [`Kind::Text`] for any other.
    #[must_use]
    pub fn of_builtin(oid: u32) -> Self {
        match oid {
            16 => Self::Bool,
            20 | 21 | 23 | 26 | 28 | 29 => Self::Int,
            700 | 701 => Self::Float,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            1082 => Self::Date,
            1083 => Self::Time,
            1700 | 5069 => Self::Numeric,
            114 | 3802 => Self::Json,
            17 => Self::Bytea,
            2950 => Self::Uuid,
            1000 => Self::Array(Element::Bool),
            1005 | 1007 | 1016 | 1028 | 1011 | 1012 => Self::Array(Element::Int),
            1021 | 1022 => Self::Array(Element::Float),
            1115 => Self::Array(Element::Timestamp),
            1185 => Self::Array(Element::TimestampTz),
            1231 | 271 => Self::Array(Element::Numeric),
            199 | 3807 => Self::Array(Element::Json),
            1020 => Self::Array(Element::Delimited(b';')),
            // bytea, char, name, text, bpchar, varchar, date, time, timetz, interval, inet, cidr,
            // macaddr, macaddr8, bit, varbit, uuid, money, xml, tsvector
            1001 | 1002 | 1003 | 1009 | 1014 | 1015 | 1182 | 1183 | 1270 | 1187 | 1041 | 651
            | 1040 | 775 | 1561 | 1563 | 2951 | 791 | 143 | 3643 => Self::Array(Element::Text),
            _ => Self::Text,
        }
    }
}
