//! walmill turns a PostgreSQL database into streams of events.

pub mod cluster;
pub mod metrics;
pub mod model;
<<<<<<< HEAD
pub mod server;
=======
pub mod output;
pub mod pgoutput;
pub mod pipeline;
pub mod plugin;
>>>>>>> main
pub mod store;
pub mod task;
