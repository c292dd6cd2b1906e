//! What the soak shares with the other tests.

#[path = "../it/support/process.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
pub mod process;
#[path = "../it/support/proxy.rs"]
pub mod proxy;
#[cfg(feature = "kafka")]
#[path = "../it/support/python.rs"]
pub mod python;
#[path = "../it/support/stamp.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
pub mod stamp;
