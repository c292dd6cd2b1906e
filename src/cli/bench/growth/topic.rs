//! What grows in each table, and how far.

use clap::ValueEnum;
use serde::Serialize;

use super::exponent::Limit;

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Topic {
    RowWidth,
    TransactionSize,
    Pipelines,
    Plugins,
    Streams,
    Subscribers,
    Journal,
    Restart,
}

/// Bytes of text that are written for one size at most.
const MOST_BYTES: u64 = 150_000_000;

impl Topic {
    /// Those of which each size is a load of its own.
    pub(super) const OF_LOAD: [Self; 6] = [
        Self::RowWidth,
        Self::TransactionSize,
        Self::Pipelines,
        Self::Plugins,
        Self::Streams,
        Self::Subscribers,
    ];

    /// As in `--only`, and of the plot's file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RowWidth => "row-width",
            Self::TransactionSize => "transaction-size",
            Self::Pipelines => "pipelines",
            Self::Plugins => "plugins",
            Self::Streams => "streams",
            Self::Subscribers => "subscribers",
            Self::Journal => "journal",
            Self::Restart => "restart",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::RowWidth => "Width of a row",
            Self::TransactionSize => "Size of a transaction",
            Self::Pipelines => "Pipelines on one slot",
            Self::Plugins => "Plugins in a row",
            Self::Streams => "Streams",
            Self::Subscribers => "Subscribers",
            Self::Journal => "Size of the journal",
            Self::Restart => "Restart",
        }
    }

    /// What grows, with its unit.
    pub(super) fn size(self) -> &'static str {
        match self {
            Self::RowWidth => "text in a row, bytes",
            Self::TransactionSize => "rows in a transaction",
            Self::Pipelines => "pipelines that each take every row",
            Self::Plugins => "filters that each keep every row",
            Self::Streams => "streams that a route fills",
            Self::Subscribers => "WebSocket clients of one stream",
            Self::Journal | Self::Restart => "data folder, MB",
        }
    }

    /// What it costs, with its unit.
    pub(super) fn cost(self) -> &'static str {
        match self {
            Self::Restart => "time until ready, ms",
            Self::Journal => "CPU time for one more row, µs",
            _ => "CPU time for a row, µs",
        }
    }

    /// How its cost may grow. A row in a large transaction costs no more than in a small one, so
    /// that the transaction costs in proportion to its rows.
    pub(super) fn limit(self) -> Limit {
        match self {
            Self::TransactionSize | Self::Journal | Self::Restart => Limit::Flat,
            _ => Limit::Linear,
        }
    }

    pub(super) fn sizes(self) -> &'static [u64] {
        match self {
            Self::RowWidth => &[10, 100, 1_000, 10_000, 100_000],
            Self::TransactionSize => &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000],
            Self::Pipelines => &[1, 2, 4, 8, 16, 32],
            Self::Plugins => &[0, 1, 2, 4, 8, 16],
            Self::Streams => &[1, 10, 100, 1_000],
            Self::Subscribers => &[1, 10, 100, 1_000, 2_000],
            Self::Journal | Self::Restart => &super::journal::SIZES,
        }
    }

    /// Rows that are written for a size: enough to be measured, since time is counted in
    /// hundredths of a second.
    pub(super) fn rows(self, size: u64) -> u64 {
        match self {
            Self::RowWidth => (MOST_BYTES / size).min(200_000),
            Self::TransactionSize if size == 1 => 50_000,
            Self::TransactionSize => size.max(200_000),
            Self::Pipelines => 50_000,
            Self::Plugins => 100_000,
            Self::Streams => 200_000,
            Self::Subscribers => (1_000_000 / size).clamp(1_000, 50_000),
            Self::Journal | Self::Restart => 50_000,
        }
    }
}
