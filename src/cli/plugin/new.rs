//! `walmill plugin new`: a project to start from, out of the templates in the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use rust_embed::RustEmbed;

use super::super::Failure;
use crate::config::finding::Finding;

/// `walmill plugin new`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The language to write it in, as `rust`; one that has no template lists those that have.
    #[arg(short, long, value_name = "LANG")]
    language: String,
    /// The plugin's folder, which is made; its last part is the plugin's name.
    name: PathBuf,
}

#[derive(RustEmbed)]
#[folder = "templates"]
struct Templates;

#[derive(RustEmbed)]
#[folder = "sdk"]
struct Sdks;

const WIT: &str = include_str!("../../../wit/walmill.wit");

/// Other names for languages.
const ALIASES: [(&str, &str); 5] = [
    ("assemblyscript", "as"),
    ("cpp", "c++"),
    ("javascript", "js"),
    ("python", "py"),
    ("typescript", "ts"),
];

/// Every language with a template.
fn languages() -> BTreeSet<String> {
    let folder = |path: &str| path.split_once('/').map(|(language, _)| language.to_owned());
    Templates::iter().filter_map(|path| folder(&path)).collect()
}

/// The language that was asked for, by its template's name.
fn language(asked: &str) -> Result<String, Failure> {
    let asked = asked.to_lowercase();
    let alias = ALIASES.iter().find(|(_, alias)| *alias == asked);
    let name = alias.map_or(asked.as_str(), |(name, _)| *name);
    let all = languages();
    all.get(name).cloned().ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        let message = format!("there is no template for `{asked}`");
        Failure::usage(vec![
            Finding::error("language", "--language", message)
                .suggest(format!("the languages are: {}", names.join(", "))),
        ])
    })
}

/// The folder of the SDK that a language's projects are built with.
fn sdk(language: &str) -> &str {
    match language {
        "javascript" | "typescript" => "js",
        other => other,
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let folder = &arguments.name;
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    check_name(name)?;
    if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let finding = Finding::error("exists", folder.display().to_string(), "is there already");
        return Err(Failure::usage(vec![finding.suggest("give the plugin another name")]));
    }
    let files = files(&language(&arguments.language)?, name);
    for (path, content) in &files {
        write(&folder.join(path), content)?;
    }
    let shown = folder.display();
    println!("wrote {shown}: {} files\n", files.len());
    println!("    walmill plugin build {shown}\n    walmill plugin test {shown}\n");
    println!("{shown}/README.md says how walmill.toml names it.");
    Ok(())
}

/// Every file of a project and what is in it.
fn files(language: &str, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let filled = |text: &[u8]| fill(text, &[("{{name}}", name), ("{{crate}}", &krate(name))]);
    let mut files = Vec::new();
    let prefix = format!("{language}/");
    for path in Templates::iter().filter(|path| is_source(path, &prefix)) {
        let file = Templates::get(&path).map(|file| file.data).unwrap_or_default();
        let place = path[prefix.len()..].replace("{{name}}", name);
        files.push((place.into(), filled(&file)));
    }
    let prefix = format!("{}/", sdk(language));
    for path in Sdks::iter().filter(|path| is_source(path, &prefix)) {
        let file = Sdks::get(&path).map(|file| file.data).unwrap_or_default();
        files.push((Path::new("walmill").join(&path[prefix.len()..]), moved(&file)));
    }
    files.push(("wit/walmill.wit".into(), WIT.into()));
    files
}

/// Whether the file is one of this folder, and none that a build has left there.
fn is_source(path: &str, prefix: &str) -> bool {
    let built = |part: &str| matches!(part, "node_modules" | "target" | "Cargo.lock");
    path.starts_with(prefix) && !path.split('/').any(built)
}

/// An SDK's file as it stands in a project, where the interface is one folder nearer and there is
/// no workspace around it.
fn moved(text: &[u8]) -> Vec<u8> {
    fill(text, &[("../../wit", "../wit"), ("workspace = \"../../plugins\"\n", "")])
}

/// Text with words replaced; what is no text stays as it is.
fn fill(content: &[u8], words: &[(&str, &str)]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(content) else { return content.to_vec() };
    words.iter().fold(text.to_owned(), |text, (word, with)| text.replace(word, with)).into_bytes()
}

/// The name as languages with no `-` in names write it.
fn krate(name: &str) -> String {
    name.replace('-', "_")
}

fn check_name(name: &str) -> Result<(), Failure> {
    let letter = name.starts_with(|first: char| first.is_ascii_lowercase());
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if letter && name.len() <= 64 && name.chars().all(rest) {
        return Ok(());
    }
    let message = "is no name for a plugin: small letters, digits, `-` and `_`, a letter first";
    Err(Failure::usage(vec![Finding::error("name", name, message)]))
}

fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, content)).map_err(|error| {
        let place = path.display().to_string();
        Failure::environment(Finding::error("unwritable", place, error.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_its_name_and_the_sdk_beside_it() {
        let files = files("rust", "by-country");
        let text = |path: &str| {
            let (_, content) = files.iter().find(|(at, _)| at == Path::new(path)).unwrap();
            String::from_utf8(content.clone()).unwrap()
        };
        assert!(text("plugin.toml").contains("release/by_country.wasm"));
        assert!(text("Cargo.toml").contains("name = \"by-country\""));
        assert!(!text("walmill/Cargo.toml").contains("workspace ="));
        assert!(text("walmill/src/lib.rs").contains("path: \"../wit\""));
        assert!(text("wit/walmill.wit").contains("world plugin"));
    }

    #[test]
    fn a_name_is_one_that_every_language_takes() {
        assert!(["a", "by-country", "x_2"].iter().all(|name| check_name(name).is_ok()));
        assert!(
            ["", "2x", "Orders", "ü", "a/b", "-a"].iter().all(|name| check_name(name).is_err())
        );
    }
}
