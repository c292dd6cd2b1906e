//! The metrics of plugins: what walmill counts about each, and those that a plugin keeps itself.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::instance::CallError;
use crate::metrics::{FloatGauge, Metrics, Name, Outcome, PluginSeries};

/// Series that a plugin may keep.
const MOST_SERIES: usize = 64;
const LONGEST_NAME: usize = 64;

/// Handed to a plugin for a series that it may not have; nothing is kept under it.
pub(super) const IGNORED: u32 = u32::MAX;

/// One plugin's metrics, shared by its instances and its versions.
pub(super) struct Meters {
    plugin: String,
    metrics: Arc<Metrics>,
    cpu: Counter<f64, AtomicU64>,
    /// At hand, because nearly every call ends so.
    ok: Counter,
    series: Mutex<Vec<(String, Series)>>,
}

#[derive(Clone)]
enum Series {
    Counter(Counter),
    Gauge(FloatGauge),
}

impl Meters {
    pub(super) fn new(plugin: &str, metrics: Arc<Metrics>) -> Self {
        let cpu = metrics.plugin_cpu.get_or_create_owned(&Name { name: plugin.into() });
        let ok = Outcome { name: plugin.into(), outcome: "ok" };
        let ok = metrics.plugin_calls.get_or_create_owned(&ok);
        Self { plugin: plugin.into(), metrics, cpu, ok, series: Mutex::default() }
    }

    /// Records processor time of the guest.
    pub(super) fn used(&self, cpu: Duration) {
        self.cpu.inc_by(cpu.as_secs_f64());
    }

    /// Records how a call ended.
    pub(super) fn called<T>(&self, answer: &Result<T, CallError>) {
        let outcome = match answer {
            Ok(_) => {
                self.ok.inc();
                return;
            }
            Err(CallError::Failed(_) | CallError::Findings(_)) => "error",
            Err(CallError::Trap(_)) => "trap",
            Err(CallError::Deadline { .. }) => "deadline",
            Err(CallError::Memory { .. }) => "memory",
            Err(CallError::Table { .. }) => "table",
            Err(CallError::Output(_)) => "output",
            // It is made again, and counted then.
            Err(CallError::Asked(_)) => return,
        };
        let labels = Outcome { name: self.plugin.clone(), outcome };
        self.metrics.plugin_calls.get_or_create(&labels).inc();
    }

    /// The id of the plugin's counter of that name.
    pub(super) fn counter(&self, name: &str) -> u32 {
        self.register(name, |labels| {
            Series::Counter(self.metrics.plugin_counter.get_or_create_owned(labels))
        })
    }

    /// The id of the plugin's gauge of that name.
    pub(super) fn gauge(&self, name: &str) -> u32 {
        self.register(name, |labels| {
            Series::Gauge(self.metrics.plugin_gauge.get_or_create_owned(labels))
        })
    }

    fn register(&self, name: &str, make: impl Fn(&PluginSeries) -> Series) -> u32 {
        let well_formed = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(well_formed) {
            return IGNORED;
        }
        let labels = PluginSeries { plugin: self.plugin.clone(), name: name.into() };
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let known = series.iter().position(|(known, _)| known == name);
        if known.is_none() && series.len() == MOST_SERIES {
            return IGNORED;
        }
        let at = known.unwrap_or_else(|| {
            series.push((name.into(), make(&labels)));
            series.len() - 1
        });
        u32::try_from(at).unwrap_or(IGNORED)
    }

    /// Adds to a counter; an unknown one is ignored.
    pub(super) fn add(&self, id: u32, delta: u64) {
        if let Some(Series::Counter(counter)) = self.find(id) {
            counter.inc_by(delta);
        }
    }

    /// Sets a gauge; an unknown one is ignored.
    pub(super) fn set(&self, id: u32, value: f64) {
        if let Some(Series::Gauge(gauge)) = self.find(id) {
            gauge.set(value);
        }
    }

    fn find(&self, id: u32) -> Option<Series> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.get(usize::try_from(id).ok()?).map(|(_, series)| series.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_s_series_are_capped_and_named() {
        let metrics = Arc::new(Metrics::new());
        let meters = Meters::new("redact", metrics.clone());
        let masked = meters.counter("masked");
        assert_eq!(meters.counter("masked"), masked);
        meters.add(masked, 2);
        meters.set(meters.gauge("level"), 0.5);
        meters.set(masked, 9.0);
        meters.add(IGNORED, 1);
        for bad in ["", "a b", "ü", "a\"}", &"x".repeat(65)] {
            assert_eq!(meters.counter(bad), IGNORED, "{bad}");
        }
        let more = (0..100).filter(|n| meters.counter(&format!("n{n}")) != IGNORED).count();
        assert_eq!(more, 62);
        let text = metrics.encode().unwrap();
        for line in [
            "walmill_plugin_counter_total{plugin=\"redact\",name=\"masked\"} 2",
            "walmill_plugin_gauge{plugin=\"redact\",name=\"level\"} 0.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
