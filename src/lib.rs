//! walmill turns a PostgreSQL database into streams of events.
//!
//! # One transaction's journey
//!
//! PostgreSQL commits. [`source`] receives the transaction's messages from its slot, decodes them
//! with [`pgoutput`] only as far as it must, and sends whole transactions on as blocks. The journal
//! in [`store`] appends them, shows them to readers at once, and syncs them in groups; what is on
//! disk is confirmed to PostgreSQL. Each [`pipeline`] reads blocks behind its own cursor, runs the
//! changes of its tables through its chain of plugins ([`plugin`]), writes events, and commits
//! them with its cursor in one step. [`server`] lets clients read the streams from where they
//! were; each [`output`] delivers them from its checkpoint.
//!
//! Beside this way, and never on it: [`config`] and [`cli`] say what is to run, [`app`] starts and
//! joins it, [`metrics`] counts. [`model`] is the plain data that all of them speak, [`task`] keeps
//! tasks together, [`cluster`] is a throw-away PostgreSQL for the demo, the benchmark and the
//! tests.
//!
//! # What always holds
//!
//! - Only what the journal has synced is ever confirmed to PostgreSQL
//!   ([`store::journal::Durable`]).
//! - A transaction is seen whole or not at all; what was rolled back is never seen.
//! - Events, plugin state, dead letters and cursor of a batch are on disk together or not at all.
//! - A batch is seen by one generation of plugins.
//! - An event's place ([`model::Offset`]) is that of its change in PostgreSQL's log, so what is
//!   made again after a crash bears the same id.
//! - A row that was there before ([`source`]: first snapshot, backfills) is never older than what
//!   was streamed before it.
//! - Nothing is queued for a reader: each reads the log at its own pace.

pub mod app;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod metrics;
pub mod model;
pub mod mutation;
pub mod output;
pub mod pgoutput;
pub mod pipeline;
pub mod plugin;
pub mod server;
pub mod source;
pub mod store;
pub mod task;
