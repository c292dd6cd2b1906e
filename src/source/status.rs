//! The source's state, as the rest of walmill and the metrics see it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::config::Config;
use super::connection::Identity;
use super::fault::Report;
use super::feedback::Progress;
use crate::metrics::Metrics;
use crate::model::status::{RetainedWal, SnapshotProgress, SourceState, SourceStatus};
use crate::model::{Lsn, clock};

/// Keeps the status and the gauges. Cloning shares it.
#[derive(Clone)]
pub(super) struct Publisher {
    status: Arc<watch::Sender<SourceStatus>>,
    metrics: Arc<Metrics>,
}

impl Publisher {
    pub(super) fn new(config: &Config, durable: Lsn, metrics: Arc<Metrics>) -> Self {
        let status = SourceStatus {
            state: SourceState::Connecting,
            slot: config.slot.to_string(),
            publication: config.publication.to_string(),
            server_version: None,
            system_identifier: None,
            timeline: None,
            server_lsn: Lsn::ZERO,
            received_lsn: durable,
            confirmed_lsn: Lsn::ZERO,
            last_commit_time: None,
            connections: 0,
            wal: None,
        };
        Self { status: Arc::new(watch::Sender::new(status)), metrics }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    pub(super) fn identified(&self, version: &str, identity: &Identity) {
        self.status.send_modify(|status| {
            status.server_version = Some(version.into());
            status.system_identifier = Some(identity.system_identifier.clone());
            status.timeline = Some(identity.timeline);
            status.server_lsn = status.server_lsn.max(identity.flushed);
        });
    }

    /// Shows how far a snapshot is.
    pub(super) fn snapshotting(&self, progress: SnapshotProgress) {
        let shown = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.snapshot_rows.set(shown(progress.rows_done));
        self.metrics.snapshot_read.set(shown(progress.bytes_done));
        self.metrics.snapshot_size.set(shown(progress.bytes_total));
        self.set(SourceState::Snapshotting(progress));
    }

    pub(super) fn streaming(&self) {
        self.metrics.source_connected.set(1);
        self.metrics.source_connections.inc();
        self.status.send_modify(|status| {
            status.state = SourceState::Streaming;
            status.connections += 1;
        });
    }

    pub(super) fn waiting(&self, report: Report, retry: Duration) {
        let Report { error, remedy } = report;
        let retry_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
        self.set(SourceState::Waiting { error, remedy, retry_ms });
    }

    pub(super) fn standby(&self, report: Report) {
        let Report { error, remedy } = report;
        self.set(SourceState::Standby { error, remedy });
    }

    pub(super) fn halted(&self, report: Report, slot_lost: bool) {
        let Report { error, remedy } = report;
        self.set(SourceState::Halted { error, remedy, slot_lost });
    }

    pub(super) fn stopped(&self) {
        self.set(SourceState::Stopped);
    }

    fn set(&self, state: SourceState) {
        self.metrics.source_connected.set(0);
        self.status.send_if_modified(|status| {
            let changed = status.state != state;
            status.state = state;
            changed
        });
    }

    pub(super) fn confirmed(&self, lsn: Lsn) {
        self.status.send_if_modified(|status| {
            let changed = status.confirmed_lsn != lsn;
            status.confirmed_lsn = lsn;
            changed
        });
    }

    /// Shows how far the stream is.
    pub(super) fn publish(&self, progress: &Progress) {
        let (server, received) = (progress.server(), progress.received());
        let time = progress.commit_time();
        self.status.send_if_modified(|status| {
            let before = (status.server_lsn, status.received_lsn, status.last_commit_time);
            status.server_lsn = status.server_lsn.max(server);
            status.received_lsn = status.received_lsn.max(received);
            status.last_commit_time = time.or(status.last_commit_time);
            before != (status.server_lsn, status.received_lsn, status.last_commit_time)
        });
        self.gauge();
    }

    /// Shows what the slot keeps, and says once when that is more than it should be.
    pub(super) fn retained(&self, wal: RetainedWal) {
        let before = self.status.borrow().wal;
        self.status.send_if_modified(|status| status.wal.replace(wal) != Some(wal));
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.source_retained.set(bytes(wal.retained_bytes));
        self.metrics.source_safe.set(wal.safe_bytes.map_or(-1, bytes));
        self.metrics.source_over_budget.set(i64::from(wal.is_over_budget()));
        let was_over = before.is_some_and(|before| before.is_over_budget());
        let retained = format_args!("{} MiB", wal.retained_bytes >> 20);
        match (was_over, wal.is_over_budget()) {
            (false, true) => tracing::warn!(
                %retained,
                "the server keeps more of its log for the slot than `source.wal_budget` says: see \
                 what the journal waits for, and for old transactions in pg_stat_activity"
            ),
            (true, false) => tracing::info!(%retained, "the slot is within `source.wal_budget`"),
            _ => {}
        }
    }

    fn gauge(&self) {
        let status = self.status.borrow();
        let bytes = |to: Lsn, from: Lsn| i64::try_from(to.since(from)).unwrap_or(i64::MAX);
        let lag = bytes(status.server_lsn, status.received_lsn);
        let age = match status.last_commit_time {
            Some(time) if lag > 0 => Duration::from_micros(clock::now().abs_diff(time)),
            _ => Duration::ZERO,
        };
        self.metrics.source_lag_bytes.set(lag);
        self.metrics.source_lag_seconds.set(age.as_secs_f64());
        self.metrics.source_unconfirmed.set(bytes(status.server_lsn, status.confirmed_lsn));
    }
}
