//! `walmill plugin test`: golden cases through the host that streams use.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::super::Failure;
use super::load::{PluginArguments, Subject, engine, load};
use super::project::Project;
use crate::config::finding::Finding;
use crate::plugin::Engine;
use crate::plugin::golden::{CaseReport, File, Format, updated};

/// `walmill plugin test`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    plugin: PluginArguments,
    /// Files with golden cases, in place of those that `plugin.toml` names.
    #[arg(long, value_name = "FILE")]
    cases: Vec<PathBuf>,
    /// Write what came into the files, in place of what was expected.
    #[arg(long)]
    update: bool,
    /// Print the cases as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let subject = arguments.plugin.open()?;
    let files = match (&arguments.cases, &subject.project) {
        (cases, _) if !cases.is_empty() => cases.clone(),
        (_, Some(project)) => project.cases()?,
        (_, None) => {
            let finding = Finding::error("no-cases", "--cases", "a `.wasm` file has no cases");
            return Err(Failure::usage(vec![finding.suggest("name them: `--cases FILE`")]));
        }
    };
    let tests = Tests(run_files(&engine()?, &subject, &files)?);
    if arguments.update {
        return tests.0.iter().try_for_each(FileReport::update);
    }
    if arguments.json {
        let files = serde_json::json!({ "files": tests.0 });
        println!("{files:#}");
    } else {
        print!("{}", tests.shown());
    }
    let (failed, all) = tests.count();
    if failed == 0 {
        if !arguments.json {
            println!("{all} cases, all as expected");
        }
        return Ok(());
    }
    let message = format!("{failed} of {all} cases are not as expected");
    Err(Failure::run_time(
        Finding::error("cases", subject.name, message)
            .suggest("if what came is right, `walmill plugin test --update` writes it down"),
    ))
}

/// A file of cases and what they came to.
#[derive(Debug, Serialize)]
struct FileReport {
    path: PathBuf,
    cases: Vec<CaseReport>,
}

/// Runs the cases of files.
fn run_files(
    engine: &Engine,
    subject: &Subject,
    files: &[PathBuf],
) -> Result<Vec<FileReport>, Failure> {
    let run = |path: &PathBuf| {
        let file = File::parse(&read(path)?, Format::of(path)).map_err(|why| wrong(path, why))?;
        let cases = file.run(|config| {
            load(engine, &subject.name, &subject.file, config).map_err(|error| error.reason)
        });
        Ok(FileReport { path: path.clone(), cases })
    };
    files.iter().map(run).collect()
}

/// Runs the golden cases of a project that has been built.
pub(in crate::cli) fn test(project: &Project) -> Result<Tests, Failure> {
    let subject = Subject::of(project.clone())?;
    Ok(Tests(run_files(&engine()?, &subject, &project.cases()?)?))
}

/// Files of cases and what they came to.
pub(in crate::cli) struct Tests(Vec<FileReport>);

impl Tests {
    /// How many cases failed, of how many.
    pub(in crate::cli) fn count(&self) -> (usize, usize) {
        let cases = || self.0.iter().flat_map(|file| &file.cases);
        (cases().filter(|case| !case.passes()).count(), cases().count())
    }

    /// Every case in a line, and below it what is otherwise than expected.
    pub(in crate::cli) fn shown(&self) -> String {
        self.0.iter().map(FileReport::shown).collect()
    }
}

impl FileReport {
    /// Every case in a line, and below it what is otherwise than expected.
    fn shown(&self) -> String {
        let mut shown = format!("{}\n", self.path.display());
        for case in &self.cases {
            let mark = if case.passes() { "ok  " } else { "FAIL" };
            // Writing to a string cannot fail.
            let _ = write!(shown, "  {mark}  {}\n{case}", case.name);
        }
        shown
    }

    fn update(&self) -> Result<(), Failure> {
        let changed = self.cases.iter().filter(|case| !case.passes()).count();
        if changed == 0 {
            println!("{}: as it was", self.path.display());
            return Ok(());
        }
        let text = updated(&read(&self.path)?, Format::of(&self.path), &self.cases)
            .map_err(|error| wrong(&self.path, error.to_string()))?;
        std::fs::write(&self.path, text).map_err(|error| wrong(&self.path, error.to_string()))?;
        println!("{}: {changed} cases rewritten", self.path.display());
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| wrong(path, format!("cannot be read: {error}")))
}

fn wrong(path: &Path, why: String) -> Failure {
    Failure::usage(vec![Finding::error("cases", path.display().to_string(), why)])
}
