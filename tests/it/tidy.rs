//! What a reader expects of every file, checked so that nobody has to.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of `src/`.
pub struct SourceFile {
    /// Its path below the repository's root.
    pub path: PathBuf,
    text: String,
}

impl SourceFile {
    /// The module of the first level that it belongs to: `output` for `src/output/webhook.rs`.
    pub fn module(&self) -> &str {
        let part = self.path.iter().nth(1).and_then(|part| part.to_str()).expect("a file of src/");
        part.strip_suffix(".rs").unwrap_or(part)
    }

    /// Whether it is compiled into tests only.
    pub fn is_test(&self) -> bool {
        self.path.components().any(|part| {
            ["tests", "tests.rs", "testing.rs"].iter().any(|name| part.as_os_str() == *name)
        })
    }

    /// Its lines up to the tests at its end.
    pub fn code(&self) -> impl Iterator<Item = &str> {
        self.text.lines().take_while(|line| *line != "mod tests {")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that is, or would be, in the repository.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let listed = listed.ok().filter(|output| output.status.success()).expect("git and a clone");
    let names = String::from_utf8(listed.stdout).expect("UTF-8 names");
    let names = names.split('\0').filter(|name| !name.is_empty());
    names.map(PathBuf::from).filter(|path| root().join(path).is_file()).collect()
}

fn with_extension(extension: &str) -> Vec<(PathBuf, String)> {
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(root().join(&path));
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, text)
    };
    let fits = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    files().into_iter().filter(fits).map(read).collect()
}

/// Every Rust file of `src/`.
pub fn sources() -> Vec<SourceFile> {
    let rust = with_extension("rs").into_iter();
    let sources: Vec<_> = rust
        .filter(|(path, _)| path.starts_with("src"))
        .map(|(path, text)| SourceFile { path, text })
        .collect();
    assert!(sources.len() > 10, "found only {} files in src/", sources.len());
    sources
}

/// Fails with all that is wrong, each with its place.
fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Lines of Rust files that something is wrong with.
fn faulty_lines(fault: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in with_extension("rs") {
        for (number, line) in (1..).zip(text.lines()) {
            faults.extend(fault(line).map(|why| format!("{}:{number}: {why}", path.display())));
        }
    }
    faults
}

#[test]
fn every_module_says_what_it_is_for() {
    // Tests beside the code say it by their names.
    let silent = |file: &SourceFile| !file.is_test() && !file.text.starts_with("//! ");
    let silent = sources().into_iter().filter(silent);
    none(silent.map(|file| format!("{}: begin with `//!`", file.path.display())).collect());
}

#[test]
fn every_file_is_a_room_one_can_take_in() {
    let faults = sources().into_iter().filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > 500).then(|| format!("{}: {lines} lines; 500 at most", file.path.display()))
    });
    none(faults.collect());
}

#[test]
fn comments_fit_on_a_screen() {
    // rustfmt sees to the code. A URL cannot be broken, and a table's row must not be.
    none(faulty_lines(|line| {
        let text = line.trim_start().strip_prefix("//")?.trim_start_matches(['/', '!', ' ']);
        let columns = line.chars().count();
        let fits = columns <= 100 || text.contains("://") || text.starts_with('|');
        (!fits).then(|| format!("{columns} columns; 100 at most"))
    }));
}

#[test]
fn nothing_is_left_for_later() {
    // In two halves, so that this file does not find itself.
    let marks = [
        ("to", "do!"),
        ("unimple", "mented!"),
        ("db", "g!"),
        ("#[ig", "nore"),
        ("TO", "DO"),
        ("FIX", "ME"),
        ("XX", "X"),
    ]
    .map(|(a, b)| format!("{a}{b}"));
    none(faulty_lines(|line| {
        let mark = marks.iter().find(|mark| has_word(line, mark))?;
        Some(format!("{mark}: do it, or open an issue"))
    }));
}

/// Whether the word stands there by itself, and not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(inside) && !line[at + word.len()..].starts_with(inside)
    })
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let folders = ["/ro", "/wo", "/ho"].map(|start| {
        let rest = match start {
            "/ro" => "ot/",
            "/wo" => "rk/",
            _ => "me/",
        };
        format!("{start}{rest}")
    });
    let mut faults = Vec::new();
    for path in files() {
        // What is not text (a picture, a plugin) is not written by hand.
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(folder) = folders.iter().find(|folder| names_folder(line, folder)) {
                faults.push(format!("{}:{number}: {folder}…", path.display()));
            }
        }
    }
    none(faults);
}

/// Whether an absolute path begins with the folder, as against a URL or a longer path that has it.
fn names_folder(line: &str, folder: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || ['.', '_', '-', '}', '*'].contains(&c);
    line.match_indices(folder).any(|(at, _)| !line[..at].ends_with(inside))
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let mut faults = Vec::new();
    for (path, text) in with_extension("md") {
        let folder = root().join(path.parent().unwrap_or(Path::new("")));
        for (number, line) in (1..).zip(outside_code(&text)) {
            for link in links(line).filter(|link| !folder.join(link).exists()) {
                faults.push(format!("{}:{number}: no {link}", path.display()));
            }
        }
    }
    none(faults);
}

/// The lines of a Markdown text, those of code blocks empty.
fn outside_code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().scan(false, |in_code, line| {
        let fence = line.trim_start().starts_with("```");
        *in_code ^= fence;
        Some(if *in_code || fence { "" } else { line })
    })
}

/// Targets of `[text](target)` that are files, without their anchors.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    targets
        .filter(|target| !target.contains(':'))
        .filter_map(|target| target.split('#').next())
        .filter(|path| !path.is_empty())
}

#[test]
fn the_checks_find_what_they_look_for() {
    assert!(has_word("    // LATER: x", "LATER") && !has_word("COLLATERAL", "LATER"));
    assert!(names_folder("cd /a/b", "/a/") && !names_folder("https://x.org/a/b", "/a/"));
    let line = "[a](x.md#there) and [b](https://x.org/y.md), [c](#here) ![d](p/q.png \"t\")";
    assert_eq!(links(line).collect::<Vec<_>>(), ["x.md", "p/q.png"]);
    assert_eq!(outside_code("a\n```\nb\n```\nc").collect::<Vec<_>>(), ["a", "", "", "", "c"]);
}
