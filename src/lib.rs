//! walmill turns a PostgreSQL database into streams of events.

pub mod metrics;
pub mod model;
pub mod server;
pub mod store;
