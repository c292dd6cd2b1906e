//! Plain data that every other module speaks: positions, relations, events.
//!
//! Nothing here does input or output, and nothing here knows PostgreSQL's wire format, the plugin
//! interface or the store's layout.

pub mod access;
pub mod address;
pub mod attempt;
pub mod backfill;
pub mod clock;
pub mod event;
pub mod finding;
pub mod input;
pub mod lsn;
pub mod offset;
pub mod pattern;
pub mod plugin;
pub mod quantity;
pub mod relation;
pub mod reload;
pub mod replay;
pub mod secret;
pub mod shadow;
pub mod status;
pub mod veil;

pub use event::{EventRecord, EventsBuilder, Op};
pub use finding::{Finding, Severity};
pub use lsn::Lsn;
pub use offset::{Cursor, CursorError, Epoch, EventId, Offset};
pub use quantity::{ByteSize, Period, QuantityError};
pub use relation::{Column, Kind, Relation, RelationId, ReplicaIdentity};
pub use secret::Secret;
