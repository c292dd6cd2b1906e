//! `walmill doctor`: what only the database knows, before it gets in the way.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::Args;

use super::{ConfigArguments, Failure, print_findings, start_log};
use crate::app;
use crate::config::Config;
use crate::config::finding::{Finding, Severity};
use crate::source;
use crate::source::doctor::{self, Advice, Examination};

/// `walmill doctor`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print the findings as JSON on stdout.
    #[arg(long)]
    json: bool,
    /// Run the SQL that is safe to run while the server serves, after a question for each.
    #[arg(long)]
    fix: bool,
    /// Ask nothing.
    #[arg(long, requires = "fix")]
    yes: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.fix && !arguments.yes && !std::io::stdin().is_terminal() {
        let message = "`--fix` asks before it changes anything, and there is no terminal to ask on";
        return Err(Failure::usage(vec![
            Finding::error("no-terminal", "--fix", message).suggest("add `--yes`"),
        ]));
    }
    start_log(None);
    let loaded = arguments.config.load()?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::run_time(Finding::error("runtime", "", error.to_string())))?;
    let visit =
        Visit { arguments, source: app::source_config(&loaded.config), config: &loaded.config };
    let examination = runtime.block_on(visit.run());
    let findings = examination.advice.into_iter().map(|advice| advice.finding).collect();
    visit.tell(findings, examination.reached)
}

struct Visit<'a> {
    arguments: &'a Arguments,
    config: &'a Config,
    source: source::Config,
}

impl Visit<'_> {
    async fn run(&self) -> Examination {
        let found = doctor::examine(&self.source, &self.config.store).await;
        if !self.arguments.fix || !self.fix(&found.advice).await {
            return found;
        }
        doctor::examine(&self.source, &self.config.store).await
    }

    /// Runs what mends; whether anything was run.
    async fn fix(&self, advice: &[Advice]) -> bool {
        let mut ran = false;
        for advice in advice.iter().filter(|advice| !advice.fix.is_empty()) {
            eprintln!("{}\n", advice.finding);
            if !self.agreed() {
                continue;
            }
            for statement in &advice.fix {
                ran = true;
                match doctor::apply(&self.source, statement).await {
                    Ok(()) => eprintln!("ran: {statement};"),
                    Err(error) => {
                        eprintln!("failed: {statement};\n  {error}");
                        break;
                    }
                }
            }
        }
        ran
    }

    fn agreed(&self) -> bool {
        if self.arguments.yes {
            return true;
        }
        eprint!("Run it? [y/N] ");
        // Whoever cannot be asked has not agreed.
        let _ = std::io::stderr().flush();
        let mut answer = String::new();
        let asked = std::io::stdin().lock().read_line(&mut answer);
        asked.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    }

    fn tell(&self, findings: Vec<Finding>, reached: bool) -> Result<(), Failure> {
        let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
        let code = match (reached, failed) {
            (false, _) => Some(3),
            (true, true) => Some(1),
            (true, false) => None,
        };
        let shown = match self.arguments.json {
            true => {
                super::check::print_json(&findings)?;
                Vec::new()
            }
            false => findings,
        };
        match code {
            Some(code) => Err(Failure { code, findings: shown }),
            None => {
                print_findings(&shown);
                if !self.arguments.json {
                    println!("{}: ready to stream", self.source.url);
                }
                Ok(())
            }
        }
    }
}
