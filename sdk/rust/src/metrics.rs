//! The plugin's own figures in walmill's metrics. Make them in
//! [`Transform::new`](crate::Transform::new).

use crate::bindings::walmill::plugin::metrics;

/// A figure that only grows.
#[derive(Debug, Clone, Copy)]
pub struct Counter(u32);

impl Counter {
    /// A counter of this name; the help is a sentence.
    #[must_use]
    pub fn new(name: &str, help: &str) -> Self {
        Self(metrics::counter(name, help))
    }

    /// Counts.
    pub fn add(self, count: u64) {
        metrics::add(self.0, count);
    }
}

/// A figure that goes up and down.
#[derive(Debug, Clone, Copy)]
pub struct Gauge(u32);

impl Gauge {
    /// A gauge of this name; the help is a sentence.
    #[must_use]
    pub fn new(name: &str, help: &str) -> Self {
        Self(metrics::gauge(name, help))
    }

    /// Sets it.
    pub fn set(self, value: f64) {
        metrics::set(self.0, value);
    }
}
