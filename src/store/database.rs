//! The embedded database, set up for values of tens of KiB that are written once and go in order.

use std::path::Path;

use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{CompressionType, Database, KeyspaceCreateOptions};

/// Blocks of files that are kept in memory.
const CACHE: u64 = 8 << 20;
/// The database's own log. What lags behind in memory is written out before it grows past this.
const LOG: u64 = 128 << 20;
/// What a log keeps in memory until it is written to a file.
pub(super) const MEMORY: u64 = 2 << 20;

pub(super) fn open(path: &Path) -> fjall::Result<Database> {
    Database::builder(path)
        .cache_size(CACHE)
        .max_journaling_size(LOG)
        // The log lives for minutes: compressing it would cost more than it saves.
        .journal_compression(CompressionType::None)
        // With two, the first leaves compaction to the second, and puts it back into their queue
        // over and over for as long as that one is busy: a processor's time for nothing.
        .worker_threads(1)
        .open()
}

/// For the journal: what every change passes through, so it is not compressed.
pub(super) fn blocks() -> KeyspaceCreateOptions {
    entries().data_block_compression_policy(CompressionPolicy::disabled())
}

/// For a stream: JSON, kept long.
pub(super) fn events() -> KeyspaceCreateOptions {
    entries().data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
}

fn entries() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMORY)
        .data_block_size_policy(BlockSizePolicy::all(16 << 10))
        .expect_point_read_hits(true)
}

/// For everything else.
pub(super) fn small() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(1 << 20)
}
