//! What a process has used, as the kernel counts it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the machine's steady clock, the same in all processes.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// Processor time of a process, and of its threads that serve clients.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub all: Duration,
    pub serving: Duration,
}

impl Usage {
    /// Until now, of threads that run.
    pub fn of(process: u32, serving: &str) -> anyhow::Result<Self> {
        let mut usage = Self::default();
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            let thread = thread?.path();
            let time = run_time(&thread).with_context(|| thread.display().to_string())?;
            usage.all += time;
            if fs::read_to_string(thread.join("comm"))?.starts_with(serving) {
                usage.serving += time;
            }
        }
        Ok(usage)
    }

    /// What was added since then.
    pub fn since(self, before: Self) -> Self {
        Self { all: self.all - before.all, serving: self.serving - before.serving }
    }
}

fn run_time(thread: &Path) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(thread.join("schedstat"))?;
    let nanoseconds = text.split(' ').next().context("a first number")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

/// Bytes that a process has in memory.
pub fn resident(process: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes << 10)
}

/// Lets this process and those that it starts have as many sockets as the system allows.
pub fn raise_limit_of_files() -> anyhow::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(())
}
