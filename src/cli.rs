//! The commands. Data goes to stdout, everything else to stderr; an error is printed with what to
//! do about it, and the exit code says whose turn it is.

mod backfill;
mod bench;
mod check;
mod client;
mod comparison;
mod demo;
mod dev;
mod dlq;
mod doctor;
mod file;
mod init;
mod output;
mod pipeline;
mod plugin;
mod replay;
mod run;
mod secret;
mod slot;
mod token;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::config::finding::{Finding, Severity};
use crate::config::{Config, Loaded};
use crate::plugin::compiler;

/// PostgreSQL changes through WebAssembly plugins to WebSocket, SSE, webhooks and brokers.
#[derive(Debug, Parser)]
#[command(name = "walmill", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stream a database: production.
    Run(run::Arguments),
    /// Run, and swap in plugins as their sources are saved: build, test, and show what changes.
    Dev(dev::Arguments),
    /// Show it working: a throw-away PostgreSQL, sample tables, plugins, a writer and the server.
    Demo(demo::Arguments),
    /// Check a config without a database: keys, names, secrets, and that each plugin loads.
    Check(check::Arguments),
    /// Ask the database what stands in the way of a stream, and what mends it.
    Doctor(doctor::Arguments),
    /// Write a commented config to start from.
    Init(init::Arguments),
    /// Bring rows that are there already into the stream of a walmill that runs.
    Backfill(backfill::Arguments),
    /// Tell a pipeline that runs to go on.
    Pipeline(pipeline::Arguments),
    /// Outputs: those of a walmill that runs; enable one again.
    Output(output::Arguments),
    /// Look at dead letters; try them again, drop or export them.
    Dlq(dlq::Arguments),
    /// Plugins: those in force in a walmill that runs.
    Plugin(plugin::Arguments),
    /// Go over what was done again: through a pipeline's plugins, or to an output.
    Replay(replay::Arguments),
    /// List the server's slots; make, drop or recreate the config's.
    Slot(slot::Arguments),
    /// Make a secret: for webhooks, an API key, JWTs.
    Secret(secret::Arguments),
    /// Make a JWT to try things out, or see what is in one.
    Token(token::Arguments),
    /// Measure what each part costs here, beside a consumer that throws the stream away.
    Bench(bench::Arguments),
    /// Reads a slot for the `bench` that started this.
    #[command(name = bench::READER, hide = true)]
    ReadAndThrowAway(bench::ReaderArguments),
    /// Compiles a plugin for the walmill that started this.
    #[command(name = compiler::COMMAND, hide = true)]
    CompilePlugin {
        /// Processor time.
        seconds: u64,
        /// Bytes.
        memory: u64,
    },
}

/// Where the config is.
#[derive(Debug, Args)]
struct ConfigArguments {
    /// The config: a file, or a folder of `*.toml` files.
    #[arg(
        short,
        long,
        global = true,
        value_name = "PATH",
        default_value = "walmill.toml",
        env = "WALMILL_CONFIG"
    )]
    config: PathBuf,
    /// Sets one key over the file, as in `--set server.listen=127.0.0.1:4001`.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArguments {
    fn load(&self) -> Result<Loaded, Failure> {
        Config::load(&self.config, &self.set).map_err(Failure::usage)
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A command that did not do what it was asked to.
#[derive(Debug)]
struct Failure {
    code: u8,
    findings: Vec<Finding>,
}

impl Failure {
    /// Failed at run time.
    fn run_time(finding: Finding) -> Self {
        Self { code: 1, findings: vec![finding] }
    }

    /// The command line or the config is wrong.
    fn usage(findings: Vec<Finding>) -> Self {
        Self { code: 2, findings }
    }

    /// Something around walmill is missing or taken: no database, a port in use.
    fn environment(finding: Finding) -> Self {
        Self { code: 3, findings: vec![finding] }
    }
}

/// Does what takes a runtime, for a command that has nothing else to do meanwhile.
fn wait<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::run_time(Finding::error("runtime", "", error.to_string())))?
        .block_on(work)
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    // The only failure is that a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    // This very file, even if another is put in its place meanwhile.
    compiler::set_program("/proc/self/exe".into());
    let outcome = match cli.command {
        Command::CompilePlugin { seconds, memory } => return compile_plugin(seconds, memory),
        Command::Run(arguments) => run::run(arguments),
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Backfill(arguments) => backfill::run(&arguments),
        Command::Pipeline(arguments) => pipeline::run(&arguments),
        Command::Output(arguments) => output::run(&arguments),
        Command::Dlq(arguments) => dlq::run(&arguments),
        Command::Plugin(arguments) => plugin::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Slot(arguments) => slot::run(&arguments),
        Command::Secret(arguments) => secret::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::ReadAndThrowAway(arguments) => bench::read(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_findings(&failure.findings);
            ExitCode::from(failure.code)
        }
    }
}

/// Ends by a signal where the work exceeds its bounds.
fn compile_plugin(seconds: u64, memory: u64) -> ExitCode {
    match compiler::serve(seconds, memory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The reader is the walmill that started it.
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Findings for a person, on stderr.
fn print_findings(findings: &[Finding]) {
    let mut stderr = std::io::stderr().lock();
    let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    for finding in findings {
        let text = finding.to_string();
        // Nobody is left to tell when stderr is closed.
        let _ = match (colour, finding.severity) {
            (false, _) => writeln!(stderr, "{text}"),
            (true, severity) => {
                let code = if severity == Severity::Error { 31 } else { 33 };
                let (head, rest) = text.split_once(':').unwrap_or((&text, ""));
                writeln!(stderr, "\x1b[1;{code}m{head}\x1b[0m:{rest}")
            }
        };
    }
}

/// Log lines go to stderr; `WALMILL_LOG` chooses which, as in `walmill=debug`.
fn start_log(format: Option<LogFormat>) {
    let filter = EnvFilter::try_from_env("WALMILL_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,walmill=info"));
    let terminal = std::io::stderr().is_terminal();
    let default = if terminal { LogFormat::Text } else { LogFormat::Json };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none());
    let started = match format.unwrap_or(default) {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        // Only a log that is already there can be in the way.
        tracing::debug!("the log was started before: {error}");
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
