//! `walmill check`: everything that can be known without a database.

use std::io::Write as _;

use clap::Args;

use super::{ConfigArguments, Failure, print_findings};
use crate::app;
use crate::config::finding::{Finding, Severity};

/// `walmill check`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print the findings as JSON on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let findings = match arguments.config.load() {
        Ok(loaded) => {
            let mut findings = loaded.warnings;
            findings.extend(app::check_plugins(&loaded.config));
            findings
        }
        Err(failure) => failure.findings,
    };
    let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
    if arguments.json {
        print_json(&findings)?;
        return if failed { Err(Failure::usage(Vec::new())) } else { Ok(()) };
    }
    if failed {
        return Err(Failure::usage(findings));
    }
    print_findings(&findings);
    println!("{}: fine", arguments.config.config.display());
    Ok(())
}

pub(super) fn print_json(findings: &[Finding]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, findings)
        .map_err(std::io::Error::from)
        .and_then(|()| writeln!(stdout))
        .map_err(|error| Failure::run_time(Finding::error("stdout", "", error.to_string())))
}
