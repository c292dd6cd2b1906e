//! One soak: rounds of a storm and a calm, until the time is over or a promise is broken.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::ledger::{Book, Key, Steps};
use crate::plan::{Draw, Fault, Planned, plan};
use crate::promise::{Broken, Promise};
use crate::stage::{Stage, lasts};
use crate::workload::{self, committed, connect, session};

/// Lines of walmill's log that are shown.
const LINES: usize = 40;
/// So many there are: only in the next one is seen what comes again from the last.
const ROUNDS: u32 = 2;
/// Sessions that write.
const SESSIONS: u64 = 3;
/// More than this walmill never has in memory, whatever happens.
const MEMORY: u64 = 320;
/// Between two looks at walmill.
const GLANCE: Duration = Duration::from_millis(25);
/// Rest comes sooner, or it is worth a word.
const SLOW: Duration = Duration::from_secs(10);
/// Having something around it that is not well, walmill may end; so long after it was well, too.
const EXCUSED: Duration = Duration::from_secs(5);

/// What a soak is.
pub struct Soak {
    pub seed: u64,
    /// After that, no round begins but the first ones.
    pub time: Duration,
    pub draw: Draw,
    /// How long walmill has to become quiet once all is well.
    pub patience: Duration,
    /// `[store] sync_interval`.
    pub sync_interval: &'static str,
    /// walmill's environment.
    pub variables: Vec<(&'static str, String)>,
}

/// What came of a soak.
pub struct Outcome {
    pub broken: Option<Broken>,
    /// What happened, with times.
    pub story: String,
    /// Events that committed.
    pub events: usize,
    pub rounds: u32,
    /// Events that came again, with the same id and the same bytes.
    pub again: u64,
    /// The most memory, in MiB.
    pub memory: u64,
}

struct Run<'a> {
    soak: &'a Soak,
    stage: Stage,
    outcome: Outcome,
    began: Instant,
    /// What lasts and when it ends.
    lasting: Vec<(Instant, Fault)>,
    excused_until: Instant,
}

impl Soak {
    pub async fn run(&self) -> Outcome {
        let stage = Stage::set(self.seed, self.sync_interval, self.variables.clone()).await;
        let outcome = Outcome {
            broken: None,
            story: String::new(),
            events: 0,
            rounds: 0,
            again: 0,
            memory: 0,
        };
        let began = Instant::now();
        let (lasting, excused_until) = (Vec::new(), began);
        let mut run = Run { soak: self, stage, outcome, began, lasting, excused_until };
        while run.began.elapsed() < self.time || run.outcome.rounds < ROUNDS {
            if let Err(broken) = run.round().await {
                run.outcome.broken = Some(broken);
                run.outcome.story += &run.last_words();
                break;
            }
        }
        run.outcome
    }
}

impl Run<'_> {
    async fn round(&mut self) -> Result<(), Broken> {
        let round = self.outcome.rounds;
        let storm = self.storm(round).await;
        // Whatever was found, everything is left well.
        self.heal();
        storm?;
        let client = connect(&self.stage.cluster.url()).await;
        let end = workload::end(&client, round).await;
        self.calm(&("items".to_owned(), end)).await?;
        let committed = committed(&client).await;
        let again = self.stage.books.iter().map(|book| book.count().1).sum::<u64>();
        self.read_all(&committed).await?;
        self.compare(&committed)?;
        self.look().await?;
        let events = committed[0].events;
        self.story(&format!(
            "round {round}: {events} events, {again} came again, {} MiB at most",
            self.outcome.memory
        ));
        let ended = self.stage.terminate();
        if !ended.success() {
            let what = format!("SIGTERM at rest: {ended}");
            return Err(Broken::new(Promise::GoesOn, "walmill", what));
        }
        self.stage.settle();
        workload::forget(&client).await;
        self.stage.launch();
        self.outcome.events += events;
        self.outcome.again += again;
        self.outcome.rounds += 1;
        Ok(())
    }

    /// What is wrong at the first output, with a word on how many others it is wrong at.
    fn compare(&self, committed: &[Steps]) -> Result<(), Broken> {
        let books = self.stage.books.iter();
        let mut wrong = books.filter_map(|book| book.compare(committed).err());
        let Some(mut first) = wrong.next() else { return Ok(()) };
        let others: Vec<_> = wrong.map(|broken| broken.at).collect();
        write!(first.what, "\n  also wrong: {others:?}").expect("a string");
        Err(first)
    }

    /// Sessions write while things go wrong.
    async fn storm(&mut self, round: u32) -> Result<(), Broken> {
        let stop = CancellationToken::new();
        let url = self.stage.cluster.url();
        let seed = self.soak.seed ^ (u64::from(round) << 8);
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| tokio::spawn(session(url.clone(), seed + number, stop.clone())))
            .collect();
        let began = Instant::now();
        let mut planned = plan(self.soak.seed, round, self.soak.draw).into_iter().peekable();
        let mut result = Ok(());
        while began.elapsed() < self.soak.draw.round && result.is_ok() {
            while let Some(next) = planned.next_if(|next| began.elapsed() >= next.at) {
                self.begin(next);
            }
            self.end_what_is_over(Instant::now());
            result = self.look().await;
            tokio::time::sleep(GLANCE).await;
        }
        stop.cancel();
        if !self.lasting.is_empty() {
            self.end_what_is_over(Instant::now() + Duration::from_secs(3600));
        }
        for session in sessions {
            session.await.expect("a session");
        }
        result
    }

    fn begin(&mut self, planned: Planned) {
        let Planned { lasts: time, fault, .. } = planned;
        let said = self.stage.begin(fault);
        let now = Instant::now();
        let mut line = fault.to_string();
        if lasts(fault) {
            write!(line, " for {} ms", time.as_millis()).expect("a string");
            self.lasting.push((now + time, fault));
        }
        if let Some(said) = said {
            write!(line, ": {said}").expect("a string");
        }
        if excuses(fault) {
            self.excused_until = self.excused_until.max(now + time + EXCUSED);
        }
        self.story(&line);
    }

    fn end_what_is_over(&mut self, now: Instant) {
        let (over, lasting) = self.lasting.drain(..).partition(|(end, _)| *end <= now);
        self.lasting = lasting;
        let over: Vec<(Instant, Fault)> = over;
        for (_, fault) in over {
            self.stage.end(fault);
        }
    }

    fn heal(&mut self) {
        self.end_what_is_over(Instant::now() + Duration::from_secs(3600));
        self.stage.begin(Fault::Clock(0));
        if self.stage.is_plugin_bad() {
            self.stage.begin(Fault::Swap { version: 0, careful: true });
        }
    }

    /// Looks at walmill, and at what arrived so far.
    async fn look(&mut self) -> Result<(), Broken> {
        if let Some(ended) = self.stage.walmill.ended() {
            self.story(&format!("walmill ended by itself: {ended}"));
            let excused = match ended.code() {
                // It does not start with a file that is no plugin and that it never saw before.
                Some(2) => self.stage.is_plugin_bad(),
                _ => Instant::now() <= self.excused_until,
            };
            if !excused {
                let what = format!("it ended by itself: {ended}");
                return Err(Broken::new(Promise::GoesOn, "walmill", what));
            }
            self.stage.launch();
        }
        self.outcome.memory = self.outcome.memory.max(self.stage.peak_memory());
        if self.outcome.memory > MEMORY {
            let what = format!("{} MiB, of {MEMORY} at most", self.outcome.memory);
            return Err(Broken::new(Promise::Bounded, "walmill", what));
        }
        self.stage.books.iter().try_for_each(Book::check)
    }

    /// Waits until walmill has nothing more to do: the last row is everywhere, and nothing is late.
    async fn calm(&mut self, end: &Key) -> Result<(), Broken> {
        let deadline = Instant::now() + self.soak.patience;
        let mut news = Instant::now() + SLOW;
        loop {
            self.look().await?;
            let late: Vec<_> =
                self.stage.books.iter().filter(|book| !book.has(end)).map(Book::name).collect();
            if late.is_empty() && self.outputs_are_done().await {
                return Ok(());
            }
            let status = self.stage.status().await;
            if let Some(what) = status.as_ref().and_then(stands_still) {
                return Err(Broken::new(Promise::GoesOn, "walmill", what));
            }
            if Instant::now() > news {
                let outputs = status.as_ref().map(|status| status["outputs"].to_string());
                let outputs = outputs.unwrap_or_default();
                self.story(&format!("not at rest yet; late: {late:?}; outputs: {outputs}"));
                news += SLOW;
            }
            if Instant::now() > deadline {
                let status = status.map(|status| format!("{status:#}")).unwrap_or_default();
                let what = format!("it does not come to the end; late: {late:?}\n{status}");
                // What says that it is done, and is not, has lost something.
                let promise = match self.outputs_are_done().await {
                    true => Promise::NothingLost,
                    false => Promise::GoesOn,
                };
                return Err(Broken::new(promise, "walmill", what));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Waits until consumers have read what brokers have: the last row in one of Kafka's partitions
    /// says nothing of the others.
    async fn read_all(&mut self, committed: &[Steps]) -> Result<(), Broken> {
        let deadline = Instant::now() + self.soak.patience;
        let is_short = |book: &Book| !book.has_all_of(committed);
        while self.stage.books.iter().any(|book| book.is_apart() && is_short(book)) {
            if Instant::now() > deadline {
                break;
            }
            self.look().await?;
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Whether walmill says that every output has taken and noted everything.
    async fn outputs_are_done(&self) -> bool {
        let Some(status) = self.stage.status().await else { return false };
        let well = |output: &Value| output["error"].is_null();
        let outputs = status["outputs"].as_array();
        let Some(metrics) = self.stage.ask("/metrics").await else { return false };
        let pushed = outputs.map_or(0, Vec::len);
        let lags = metrics.lines().filter(|line| line.starts_with("walmill_output_lag_bytes{"));
        let done = lags.filter(|line| line.ends_with(" 0")).count();
        outputs.is_some_and(|outputs| outputs.iter().all(well)) && done == pushed
    }

    fn story(&mut self, line: &str) {
        if self.outcome.story.trim_end().ends_with(line) {
            return;
        }
        let seconds = self.began.elapsed().as_secs_f64();
        println!("{seconds:8.3} {line}");
        writeln!(self.outcome.story, "{seconds:8.3} {line}").expect("a string");
    }

    fn last_words(&self) -> String {
        let log = self.stage.walmill.log();
        let lines: Vec<_> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak.log");
        std::fs::write(&path, &log).expect("keep the log");
        format!("walmill's log, all of which is in {}:\n{end}\n", path.display())
    }
}

/// Whether walmill may end for that.
fn excuses(fault: Fault) -> bool {
    matches!(fault, Fault::Disk(_) | Fault::Postgres(_) | Fault::Silence | Fault::Cut(..))
}

/// What of it does not go on by itself.
fn stands_still(status: &Value) -> Option<String> {
    let source = &status["source"]["state"];
    if source.to_string().contains("halted") {
        return Some(format!("the source has halted: {source}"));
    }
    let pipelines = status["pipelines"].as_array().into_iter().flatten();
    for pipeline in pipelines {
        if !pipeline["stopped"].is_null() {
            return Some(format!("a pipeline has stopped: {pipeline}"));
        }
    }
    match status["dead_letters"].as_u64() {
        None | Some(0) => None,
        Some(letters) => Some(format!("{letters} events were set aside")),
    }
}
