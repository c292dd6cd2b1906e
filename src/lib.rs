//! walmill turns a PostgreSQL database into streams of events.

pub mod app;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod metrics;
pub mod model;
pub mod output;
pub mod pgoutput;
pub mod pipeline;
pub mod plugin;
pub mod server;
pub mod source;
pub mod store;
pub mod task;
