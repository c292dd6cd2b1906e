//! An output between a store that a test fills and a far side.

use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walmill::metrics::Metrics;
use walmill::model::status::OutputStatus;
use walmill::model::{EventId, EventsBuilder, Lsn, Offset, Period};
use walmill::output::deliver;
use walmill::store::retention::Retention;
use walmill::store::{self, Outcome, Store, StoreError};

use super::process::PATIENCE;

/// A store that a test fills, in a folder of its own.
pub struct Streams {
    folder: TempDir,
    age: Period,
    pub store: Store,
    commit: u64,
}

impl Streams {
    pub fn new() -> Self {
        Self::kept_for(Retention::default().age)
    }

    /// Events that are older than that go, unless an output has yet to deliver them.
    pub fn kept_for(age: Period) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Self::open(&folder, age);
        Self { folder, age, store, commit: 0 }
    }

    fn open(folder: &TempDir, age: Period) -> Store {
        let retention = Retention { age, ..Retention::default() };
        let path = folder.path().join("data");
        let config = store::Config { path, retention, ..Default::default() };
        Store::open(&config, Arc::new(Metrics::new())).expect("open the store")
    }

    /// The store as a new process would find it.
    pub fn reopen(self) -> Self {
        let Self { folder, age, store, commit } = self;
        store.close().expect("close the store");
        drop(store);
        let store = Self::open(&folder, age);
        Self { folder, age, store, commit }
    }

    /// A transaction with one event for each key, as a pipeline named like the stream commits it.
    /// A key that ends in a NUL makes a barrier.
    pub fn commit(&mut self, stream: &str, keys: &[&str]) -> Vec<Offset> {
        let rows: Vec<_> = keys.iter().map(|key| (*key, serde_json::json!({}))).collect();
        self.commit_rows(stream, &rows)
    }

    /// The last transaction's events once more, in the stream of another pipeline of its table.
    pub fn commit_twins(&mut self, stream: &str, keys: &[&str]) -> Vec<Offset> {
        self.commit -= 1;
        self.commit(stream, keys)
    }

    /// A transaction of inserted rows, each under its key.
    pub fn commit_rows(&mut self, stream: &str, rows: &[(&str, serde_json::Value)]) -> Vec<Offset> {
        self.commit += 1;
        let mut events = EventsBuilder::default();
        let ordinals = 0..u32::try_from(rows.len()).expect("a few rows");
        let offsets: Vec<_> = ordinals.map(|at| Offset::new(Lsn(self.commit), at)).collect();
        for (&offset, (key, row)) in offsets.iter().zip(rows) {
            let (id, subject) = (EventId(offset), key.trim_end_matches('\0'));
            let json = serde_json::json!({ "specversion": "1.0", "source": "/test/1/1",
                "id": id.to_string(), "type": "walmill.row.insert", "subject": subject,
                "datacontenttype": "application/json", "stream": stream,
                "data": { "schema": "public", "table": "orders", "op": "insert",
                    "key": { "id": subject }, "record": row, "old_record": null, "unchanged": [] } });
            events.push(
                offset,
                |out| out.extend(key.as_bytes()),
                |out| out.extend(json.to_string().as_bytes()),
            );
        }
        let outcome = Outcome {
            pipeline: stream.to_owned(),
            cursor: Offset::end_of(Lsn(self.commit)),
            events: vec![(stream.to_owned(), events.finish())],
            ..Outcome::default()
        };
        self.store.commit(outcome).expect("commit");
        offsets
    }

    /// How far the output `billing` is.
    pub fn checkpoint(&self, stream: &str) -> Option<Offset> {
        self.store.checkpoint("billing", stream).expect("read the checkpoint")
    }
}

/// A running output.
pub struct Running {
    pub status: watch::Receiver<OutputStatus>,
    shutdown: CancellationToken,
    pub task: tokio::task::JoinHandle<Result<(), StoreError>>,
}

impl Running {
    pub fn of(
        streams: &Streams,
        config: deliver::Config,
        output: impl walmill::output::Output,
    ) -> Self {
        let (sender, status) = watch::channel(deliver::status(&config.name, &output));
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(deliver::run(
            config,
            output,
            streams.store.clone(),
            Arc::new(Metrics::new()),
            sender,
            shutdown.clone(),
        ));
        Self { status, shutdown, task }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("no panic").expect("a store that works");
    }

    /// The error that it shows, once it shows one.
    pub async fn error(&self) -> String {
        let mut status = self.status.clone();
        let shown = tokio::time::timeout(PATIENCE, status.wait_for(|s| s.error.is_some()));
        let shown = shown.await.expect("an error in time").expect("a running output");
        shown.error.clone().expect("the error that was waited for")
    }
}

pub fn ids(offsets: &[Offset]) -> Vec<String> {
    offsets.iter().map(|&offset| EventId(offset).to_string()).collect()
}
