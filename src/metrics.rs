//! Every metric in one table: name, unit, meaning. Labels are bounded by the config: names of
//! pipelines, plugins, streams and outputs, never values from rows.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// One label pair of a metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Name {
    /// The part's name in the config.
    pub name: String,
}

/// A part and what became of something in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// The part's name in the config.
    pub name: String,
    /// One of a few words, named at the metric.
    pub outcome: &'static str,
}

/// A series that a plugin keeps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PluginSeries {
    /// The plugin's name in the config.
    pub plugin: String,
    /// The plugin's name for the series; their number is bounded.
    pub name: String,
}

/// A float gauge.
pub type FloatGauge = Gauge<f64, AtomicU64>;
type Histograms = Family<Name, Histogram, Buckets>;

/// Seconds, from 0.1 ms to 52 s by doubling.
#[derive(Debug, Clone, Copy)]
pub struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.0001, 2.0, 20))
    }
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $type:ty = $name:literal $(, $unit:expr)?;)+) => {
        /// walmill's metrics. Each field is one; its text is the metric's help.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $type,)+
        }

        impl Metrics {
            /// All of them at zero.
            #[must_use]
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("walmill");
                $(
                    let $field = <$type as Make>::make();
                    // The encoder ends a help text with a full stop itself.
                    let help = concat!($($help),+).trim().trim_end_matches('.');
                    metrics!(@register registry, $name, help, $field $(, $unit)?);
                )+
                Self { registry, $($field,)+ }
            }
        }
    };
    (@register $registry:ident, $name:literal, $help:ident, $field:ident) => {
        $registry.register($name, $help, $field.clone());
    };
    (@register $registry:ident, $name:literal, $help:ident, $field:ident, $unit:expr) => {
        $registry.register_with_unit($name, $help, $unit, $field.clone());
    };
}

metrics! {
    /// Whether the source is receiving: 1 or 0.
    source_connected: Gauge = "source_connected";
    /// Connections that the source made.
    source_connections: Counter = "source_connections";
    /// Bytes of the server's log that have not been received yet.
    source_lag_bytes: Gauge = "source_lag", Unit::Bytes;
    /// Age of the last received commit while the source is behind the server, 0 when it is not.
    source_lag_seconds: FloatGauge = "source_lag", Unit::Seconds;
    /// Bytes of the server's log between what was confirmed and its end.
    source_unconfirmed: Gauge = "source_unconfirmed", Unit::Bytes;
    /// Bytes of the server's log that are kept for the slot.
    source_retained: Gauge = "source_retained", Unit::Bytes;
    /// Bytes that the server can write before it may invalidate the slot; -1 where it never does.
    source_safe: Gauge = "source_safe", Unit::Bytes;
    /// Whether more of the log is kept than source.wal_budget says: 1 or 0.
    source_over_budget: Gauge = "source_over_budget";
    /// Transactions received from PostgreSQL.
    source_transactions: Counter = "source_transactions";
    /// Changes received from PostgreSQL.
    source_changes: Counter = "source_changes";
    /// Bytes of change messages received from PostgreSQL.
    source_received: Counter = "source_received", Unit::Bytes;
    /// Bytes of open and prepared transactions written to files, until they commit.
    source_spilled: Counter = "source_spilled", Unit::Bytes;
    /// Rows that the last snapshot of this run has read.
    snapshot_rows: Gauge = "snapshot_rows";
    /// Bytes of tables' files that the last snapshot of this run has read.
    snapshot_read: Gauge = "snapshot_read", Unit::Bytes;
    /// Size of the files of the tables that the last snapshot of this run reads.
    snapshot_size: Gauge = "snapshot_size", Unit::Bytes;
    /// Backfills that run or wait for their turn.
    backfills: Gauge = "backfills";
    /// Rows that backfills brought into the journal.
    backfill_rows: Counter = "backfill_rows";
    /// Bytes that the store's files take.
    store_size: Gauge = "store_size", Unit::Bytes;
    /// Time of each sync of the journal to disk.
    store_sync: Histogram = "store_sync", Unit::Seconds;
    /// Blocks appended to the journal.
    journal_blocks: Counter = "journal_blocks";
    /// Changes a pipeline took from the journal; outcome is emitted, dropped or dead_letter.
    pipeline_changes: Family<Outcome, Counter> = "pipeline_changes";
    /// Bytes of the server's log between a pipeline's cursor and the journal's end.
    pipeline_lag: Family<Name, Gauge> = "pipeline_lag", Unit::Bytes;
    /// Time from commit in PostgreSQL to the event's place in its stream.
    pipeline_latency: Histograms = "pipeline_latency", Unit::Seconds;
    /// Whether a pipeline runs: 1, or 0 after it stopped on an error.
    pipeline_running: Family<Name, Gauge> = "pipeline_running";
    /// Changed definitions of tables that a pipeline wants a person to accept.
    pipeline_schema_changes: Family<Name, Gauge> = "pipeline_schema_changes";
    /// Processor time that a plugin used.
    plugin_cpu: Family<Name, Counter<f64, AtomicU64>> = "plugin_cpu", Unit::Seconds;
    /// Calls of a plugin; outcome is ok, error, trap, deadline, memory, table or output.
    plugin_calls: Family<Outcome, Counter> = "plugin_calls";
    /// Offers of a new plugin version; outcome is ok, refused or waiting.
    plugin_reloads: Family<Outcome, Counter> = "plugin_reloads";
    /// Versions that were taken back; outcome is automatic or asked.
    plugin_rollbacks: Family<Outcome, Counter> = "plugin_rollbacks";
    /// Events of shadow runs; outcome is same or different.
    plugin_shadow_events: Family<Outcome, Counter> = "plugin_shadow_events";
    /// Whether a version waits to be promoted: 1 or 0.
    plugin_waiting: Family<Name, Gauge> = "plugin_waiting";
    /// Counters that plugins keep.
    plugin_counter: Family<PluginSeries, Counter> = "plugin_counter";
    /// Gauges that plugins keep.
    plugin_gauge: Family<PluginSeries, FloatGauge> = "plugin_gauge";
    /// The generation of plugins in force.
    plugin_generation: Gauge = "plugin_generation";
    /// Events in a stream since the start.
    stream_events: Family<Name, Counter> = "stream_events";
    /// Connected clients, by protocol: websocket, sse.
    clients: Family<Name, Gauge> = "clients";
    /// Clients that left; name is the protocol, outcome is closed, slow, error, shutdown, expired,
    /// access-changed.
    clients_left: Family<Outcome, Counter> = "clients_left";
    /// Events sent to clients, by protocol: websocket, sse, pull.
    client_events: Family<Name, Counter> = "client_events";
    /// Deliveries of an output; outcome is ok, retry or dead_letter.
    output_deliveries: Family<Outcome, Counter> = "output_deliveries";
    /// Time of one delivery attempt of an output.
    output_attempt: Histograms = "output_attempt", Unit::Seconds;
    /// Bytes of the server's log between an output's checkpoint and its streams' end.
    output_lag: Family<Name, Gauge> = "output_lag", Unit::Bytes;
    /// Whether an output's far side is taken for down, so that it is only probed: 1 or 0.
    output_circuit_open: Family<Name, Gauge> = "output_circuit_open";
    /// Whether an output delivers nothing until a person enables it: 1 or 0.
    output_disabled: Family<Name, Gauge> = "output_disabled";
    /// Dead letters that are kept.
    dead_letters_kept: Gauge = "dead_letters_kept";
    /// Age of the oldest dead letter that is kept, 0 while there is none.
    dead_letters_oldest: FloatGauge = "dead_letters_oldest_age", Unit::Seconds;
    /// Dead letters that were removed because they were too old or too many.
    dead_letters_expired: Counter = "dead_letters_expired";
    /// Configs that were put in force while walmill ran.
    config_reloads: Counter = "config_reloads";
    /// Configs that were refused while walmill ran.
    config_refusals: Counter = "config_refusals";
    /// Whether the config that was read last is in force: 1 or 0.
    config_current: Gauge = "config_current";
    /// Dead letters written since the start.
    dead_letters: Counter = "dead_letters";
}

impl Metrics {
    /// In the OpenMetrics text format, as Prometheus reads it.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

trait Make {
    fn make() -> Self;
}

impl<N: Default, A: Default> Make for Gauge<N, A>
where
    Gauge<N, A>: Default,
{
    fn make() -> Self {
        Self::default()
    }
}

impl<N, A> Make for Counter<N, A>
where
    Counter<N, A>: Default,
{
    fn make() -> Self {
        Self::default()
    }
}

impl Make for Histogram {
    fn make() -> Self {
        Buckets.new_metric()
    }
}

impl<L: Clone + std::hash::Hash + Eq, M: Default> Make for Family<L, M> {
    fn make() -> Self {
        Self::default()
    }
}

impl Make for Histograms {
    fn make() -> Self {
        Self::new_with_constructor(Buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_unit_help_and_value() {
        let metrics = Metrics::new();
        metrics.source_lag_bytes.set(12);
        let name = || Name { name: "orders".into() };
        metrics.pipeline_latency.get_or_create(&name()).observe(0.001);
        let text = metrics.encode().expect("writing to a string");
        for line in [
            "# HELP walmill_source_lag_bytes Bytes of the server's log that have not been received yet.",
            "walmill_source_lag_bytes 12",
            "walmill_pipeline_latency_seconds_count{name=\"orders\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
