//! What is removed when it is old, or when there is too much, and what is kept for whom.

use std::sync::{Arc, PoisonError, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Deserialize;

use super::log::{Header, Log};
use super::stream::Stream;
use super::{Inner, StoreError};
use crate::model::pattern::Glob;
use crate::model::{ByteSize, Offset, Period, clock};

/// Between two looks for something to remove.
const EVERY: Duration = Duration::from_secs(10);

/// `retention = { age = "7d", size = "10GiB" }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// What was stored longer ago is removed.
    pub age: Period,
    /// How much the journal and all streams may take together, uncompressed; the oldest goes first.
    pub size: ByteSize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Period::from_millis(7 * 86_400_000), size: ByteSize::new(10 << 30) }
    }
}

/// What happens when retention would remove what a pipeline or an output has not had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It stays. Once it alone is more than `retention.size`, the journal takes nothing more, and
    /// PostgreSQL keeps its log.
    #[default]
    Block,
    /// It goes, and its reader is told of the gap.
    DropOldest,
}

/// Who reads what must be kept until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// A pipeline reads the journal.
    Pipeline(String),
    /// An output delivers streams, those too that are made later.
    Output {
        /// Its name.
        output: String,
        /// The streams it delivers.
        streams: Vec<Glob>,
    },
}

/// A log, and the place up to which it is no longer needed, if anyone needs it at all.
struct Held<'a> {
    log: &'a Log,
    /// The stream that it is the log of; none for the journal.
    stream: Option<&'a str>,
    by: Option<(Offset, String)>,
}

impl Held<'_> {
    fn needs(&self, entry: &Header) -> bool {
        self.by.as_ref().is_some_and(|(done, _)| entry.last > *done)
    }

    /// The stream's name, if it is one of these.
    fn stream(&self, globs: &[Glob]) -> Option<&str> {
        let name = self.stream?;
        globs.iter().any(|glob| glob.matches(name)).then_some(name)
    }

    /// One more reader has come so far.
    fn hold(&mut self, done: Offset, who: impl FnOnce() -> String) {
        if self.by.as_ref().is_none_or(|(slowest, _)| done < *slowest) {
            self.by = Some((done, who()));
        }
    }
}

impl Inner {
    /// Removes what is old or too much.
    pub(super) fn retain(&self, now: i64) -> Result<(), StoreError> {
        let _one = self.retaining.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = self.streams.all();
        let logs = self.logs(&streams)?;
        let age = i64::try_from(self.config.retention.age.duration().as_micros());
        let oldest = now.saturating_sub(age.unwrap_or(i64::MAX));
        for held in &logs {
            held.log.drop_before(|entry| entry.stored >= oldest || held.needs(entry))?;
        }
        if self.size() > self.config.retention.size.bytes() {
            self.shrink(logs)?;
        }
        Ok(())
    }

    /// Removes the oldest until a sixteenth of the room is free, so that not every block that
    /// comes has to do this again.
    fn shrink(&self, mut logs: Vec<Held<'_>>) -> Result<(), StoreError> {
        let room = self.config.retention.size.bytes();
        let target = room - room / 16;
        while !logs.is_empty() {
            let excess = self.size().saturating_sub(target);
            if excess == 0 {
                break;
            }
            let mut oldest = (i64::MAX, 0);
            for (at, held) in logs.iter().enumerate() {
                let first = held.log.first()?.map_or(i64::MAX, |entry| entry.header.stored);
                oldest = oldest.min((first, at));
            }
            let held = &logs[oldest.1];
            let from = held.log.start().saturating_add(excess.div_ceil(logs.len() as u64));
            if !held.log.drop_before(|entry| entry.start >= from || held.needs(entry))? {
                logs.swap_remove(oldest.1);
            }
        }
        Ok(())
    }

    /// Bytes that the journal and all streams take.
    fn size(&self) -> u64 {
        let streams: u64 = self.streams.all().iter().map(|stream| stream.size()).sum();
        self.records.log.size() + streams
    }

    /// Why the journal must not take anything now; `inside` a transaction only a full disk counts.
    pub(super) fn no_room(&self, inside: bool) -> Result<Option<String>, StoreError> {
        let free = self.folder.free_space().map_err(fjall::Error::Io)?;
        if free < self.config.min_free.bytes() {
            return Ok(Some(format!(
                "the disk of {} has {} MiB free, less than `[store] min_free` = {}; make room on it",
                self.folder.path().display(),
                free >> 20,
                self.config.min_free
            )));
        }
        if inside || self.size() <= self.config.retention.size.bytes() {
            return Ok(None);
        }
        self.retain(clock::now())?;
        match self.config.when_full {
            WhenFull::Block => self.waiting(),
            WhenFull::DropOldest => Ok(None),
        }
    }

    /// Whether what waits for its readers is more than there is room for.
    fn waiting(&self) -> Result<Option<String>, StoreError> {
        let streams = self.streams.all();
        let (mut total, mut most) = (0, (0, String::new()));
        for held in self.logs(&streams)? {
            let size = held.log.size_from(|entry| held.needs(entry))?;
            total += size;
            if let Some((_, who)) = held.by
                && size > most.0
            {
                most = (size, format!("in the {} for {who}", held.log.name()));
            }
        }
        let room = self.config.retention.size;
        Ok((total > room.bytes()).then(|| {
            format!(
                "{} MiB wait to be read, most of it {}, and `[store] retention.size` is {room}; get \
                 that going, raise the size, or set `when_full = \"drop-oldest\"`",
                total >> 20,
                most.1
            )
        }))
    }

    /// The journal and the streams, each with its slowest reader.
    fn logs<'a>(&'a self, streams: &'a [Arc<Stream>]) -> Result<Vec<Held<'a>>, StoreError> {
        let journal = Held { log: &self.records.log, stream: None, by: None };
        let streams = streams.iter();
        let streams =
            streams.map(|stream| Held { log: &stream.log, stream: Some(stream.name()), by: None });
        let mut logs: Vec<_> = std::iter::once(journal).chain(streams).collect();
        if self.config.when_full == WhenFull::DropOldest {
            return Ok(logs);
        }
        for reader in self.readers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            match reader {
                Reader::Pipeline(name) => {
                    let done = self.checkpoints.pipeline(name)?.unwrap_or(Offset::START);
                    let done = self.replays.needs(reader)?.map_or(done, |needed| needed.min(done));
                    // The journal is the first of them.
                    logs[0].hold(done, || format!("pipeline `{name}`"));
                }
                Reader::Output { output, streams } => {
                    for held in &mut logs {
                        let Some(stream) = held.stream(streams) else { continue };
                        let done = self.checkpoints.output(output, stream)?;
                        held.hold(done.unwrap_or(Offset::START), || format!("output `{output}`"));
                    }
                }
            }
        }
        Ok(logs)
    }
}

/// The thread that looks for something to remove.
pub(super) struct Janitor {
    /// Dropped to end it.
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Janitor {
    pub(super) fn start(store: &Arc<Inner>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        // It must not keep open a store that everyone else let go.
        let store = Arc::downgrade(store);
        let thread =
            thread::Builder::new().name("retention".into()).spawn(move || run(&store, &stopped))?;
        Ok(Self { stop, thread })
    }

    pub(super) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the retention thread panicked");
        }
    }
}

fn run(store: &Weak<Inner>, stopped: &mpsc::Receiver<()>) {
    while stopped.recv_timeout(EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
        let Some(store) = store.upgrade() else { return };
        let now = clock::now();
        if let Err(error) = store.retain(now).and_then(|()| store.retain_dead_letters(now)) {
            let error = anyhow::Error::from(error);
            tracing::error!("remove what is old from the store: {error:#}");
            return;
        }
        if let Ok(size) = store.db.disk_space() {
            store.metrics.store_size.set(i64::try_from(size).unwrap_or(i64::MAX));
        }
    }
}
