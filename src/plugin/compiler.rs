//! Compiling in a process of its own: a file made to hurt takes that one's memory and time, which
//! are bounded, and nothing of walmill's.
//!
//! The process is walmill itself, started again under a command that only it uses. It gets the
//! file's bytes and no more: no environment, no arguments but its bounds. What comes back is
//! machine code, and believed, since it comes from our own compiler.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Resource, Rlimit, Signal, nice, setrlimit};

use super::engine;
use super::error::Reason;
use super::limits::Limits;
use super::text::clean;

/// The command that walmill starts itself under.
pub const COMMAND: &str = "compile-plugin";

/// Threads of the compiler: enough to be quick, few enough to leave the streams theirs.
const THREADS: &str = "2";
/// Bytes of machine code.
const LARGEST_ARTIFACT: u64 = 1 << 30;
/// Bytes of what it says about a failure.
const LONGEST_FAILURE: u64 = 4_096;
/// How much longer than its processor time it may take, on a machine that has other things to do.
const PATIENCE: u32 = 10;

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Makes every [`super::Engine`] of this process compile with this program, which must be this
/// walmill. To be called once, by its `main`.
pub fn set_program(program: PathBuf) {
    // Were it called again, the first one holds.
    let _ = PROGRAM.set(program);
}

pub(super) fn program() -> Option<&'static Path> {
    PROGRAM.get().map(PathBuf::as_path)
}

/// The machine code for a component, made by `program`.
pub(super) fn compile(
    program: &Path,
    plugin: &str,
    limits: &Limits,
    component: &[u8],
) -> Result<Vec<u8>, Reason> {
    let mut child = start(program, limits)
        .map_err(|error| Reason::Compiler(format!("{}: {error}", program.display())))?;
    let ended = talk(&mut child, limits, component);
    // It has ended, or is of no use any more.
    let _ = child.kill();
    let status = child.wait().map_err(|error| Reason::Compiler(error.to_string()))?;
    let Some((artifact, failure)) = ended else { return Err(too_long(plugin, limits)) };
    if status.success() { Ok(artifact) } else { Err(reason(plugin, limits, status, &failure)) }
}

fn start(program: &Path, limits: &Limits) -> std::io::Result<Child> {
    let seconds = limits.compile_time.duration().as_secs().max(1);
    Command::new(program)
        .arg(COMMAND)
        .arg(seconds.to_string())
        .arg(limits.compile_memory.bytes().to_string())
        .env_clear()
        .env("RAYON_NUM_THREADS", THREADS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Hands the component over and takes what comes back; `None` when that takes too long.
fn talk(child: &mut Child, limits: &Limits, component: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let wait = limits.compile_time.duration().saturating_mul(PATIENCE).max(Duration::from_secs(10));
    let (done, ended) = channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            // One that ends before it has read everything says why.
            let _ = stdin.map(|mut stdin| stdin.write_all(component));
        });
        let failure = scope.spawn(move || read(stderr, LONGEST_FAILURE));
        scope.spawn(move || done.send(read(stdout, LARGEST_ARTIFACT)));
        let artifact = match ended.recv_timeout(wait) {
            Ok(artifact) => Some(artifact),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                // Its pipes close, and so the threads here end.
                let _ = child.kill();
                None
            }
        };
        let failure = failure.join().unwrap_or_default();
        artifact.map(|artifact| (artifact, failure))
    })
}

fn read(pipe: Option<impl Read>, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What is missing makes the whole invalid, which is noticed.
    let _ = pipe.map(|pipe| pipe.take(limit).read_to_end(&mut bytes));
    bytes
}

fn too_long(plugin: &str, limits: &Limits) -> Reason {
    Reason::CompileTime { limit: limits.compile_time, plugin: plugin.into() }
}

/// Why it ended without a result.
fn reason(plugin: &str, limits: &Limits, status: ExitStatus, said: &[u8]) -> Reason {
    let said = String::from_utf8_lossy(said);
    let said = said.trim();
    let ended_by = |signal: Signal| status.signal() == Some(signal.as_raw());
    // The allocator's words, the system's for memory, and for threads, which need some.
    let memory = ["memory allocation", "out of memory", "os error 12", "os error 11"];
    if ended_by(Signal::XCPU) || ended_by(Signal::KILL) {
        too_long(plugin, limits)
    } else if memory.iter().any(|sign| said.contains(sign)) {
        Reason::CompileMemory { limit: limits.compile_memory, plugin: plugin.into() }
    } else if status.code() == Some(FAILED) {
        Reason::Damaged(clean(said, 500))
    } else {
        // A panic says where in its first line, and what in the second.
        let said = said.lines().take(2).collect::<Vec<_>>().join(" ");
        Reason::Damaged(format!("the compiler gave up ({status}): {}", clean(&said, 500)))
    }
}

/// The exit code for a file that is no component, or one that cannot be compiled.
const FAILED: i32 = 1;

/// What the other process does: compiles what is on its standard input, within bounds.
///
/// # Errors
/// The bounds cannot be set, or the component cannot be compiled.
pub fn serve(seconds: u64, memory: u64) -> anyhow::Result<()> {
    bound(seconds, memory).context("set the compiler's limits")?;
    let mut component = Vec::new();
    std::io::stdin().lock().read_to_end(&mut component).context("read the component")?;
    let wasmtime = wasmtime::Engine::new(&engine::config()).map_err(engine::opaque)?;
    let artifact = wasmtime.precompile_component(&component).map_err(engine::opaque)?;
    ensure!(artifact.len() as u64 <= LARGEST_ARTIFACT, "{} bytes of code", artifact.len());
    std::io::stdout().lock().write_all(&artifact).context("hand over the code")
}

fn bound(seconds: u64, memory: u64) -> rustix::io::Result<()> {
    let limit = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Core, limit(0))?;
    setrlimit(Resource::As, limit(memory))?;
    // The first stops it with a signal that says so; the second one stops it.
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 1) })?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    nice(10).map(drop)
}
