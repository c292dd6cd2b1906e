//! What a file is and says about itself, before anything of it is compiled.

use wasmparser::{BinaryReader, BinaryReaderError, Parser, Payload, ProducersSectionReader};

use super::Allow;
use super::bindings::{MINOR, PACKAGE, VERSION};
use super::error::Reason;
use super::text::clean;

/// Bytes of a name that comes from a file.
const LONGEST_NAME: usize = 200;

/// What the first bytes say.
pub(super) enum Sort {
    Component,
    Module,
    /// In words.
    Other(&'static str),
}

/// Told by the header: magic, then version and layer.
pub(super) fn sort(bytes: &[u8]) -> Sort {
    match bytes {
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Sort::Component,
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Sort::Module,
        [0, b'a', b's', b'm', ..] => Sort::Other("WebAssembly of an unknown version"),
        [] => Sort::Other("empty"),
        [0x7f, b'E', b'L', b'F', ..] => Sort::Other("a native program"),
        [b'P', b'K', 3, 4, ..] => Sort::Other("a zip archive"),
        [0x1f, 0x8b, ..] => Sort::Other("compressed with gzip"),
        _ if bytes.trim_ascii_start().starts_with(b"(") => {
            Sort::Other("WebAssembly text; make a binary of it with `wasm-tools parse`")
        }
        _ => Sort::Other("something else"),
    }
}

/// What a component says about itself.
#[derive(Default)]
pub(super) struct Contents {
    imports: Vec<String>,
    exports: Vec<String>,
    pub(super) language: Option<String>,
    pub(super) imports_clock: bool,
}

/// Reads imports and exports of the outermost component, and languages wherever they are.
pub(super) fn contents(component: &[u8]) -> Result<Contents, BinaryReaderError> {
    let mut contents = Contents::default();
    let mut languages = Vec::new();
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    contents.imports.push(import?.name.name.into());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    contents.exports.push(export?.name.name.into());
                }
            }
            Payload::CustomSection(section) if section.name() == "producers" => {
                let reader = BinaryReader::new(section.data(), section.data_offset());
                languages_of(reader, &mut languages);
            }
            _ => {}
        }
    }
    contents.language = language(languages);
    contents.imports_clock = contents.imports.iter().any(|name| interface(name) == Some("clock"));
    Ok(contents)
}

/// A `producers` section that can't be read says nothing; the plugin works without it.
fn languages_of(section: BinaryReader<'_>, languages: &mut Vec<String>) {
    let fields = ProducersSectionReader::new(section).into_iter().flatten().filter_map(Result::ok);
    for field in fields.filter(|field| field.name == "language") {
        let values = field.values.into_iter().filter_map(Result::ok);
        languages.extend(values.map(|value| value.name.to_owned()));
    }
}

/// The language that the author wrote. Runtimes and adapters of other languages are in C, C++ and
/// Rust, and say so too.
fn language(languages: Vec<String>) -> Option<String> {
    let of_runtimes = |name: &String| name.starts_with('C') && name.len() < 6 || name == "Rust";
    let at = languages.iter().position(|name| !of_runtimes(name)).unwrap_or(0);
    let name = languages.into_iter().nth(at)?;
    Some(clean(&name, LONGEST_NAME))
}

/// The name of one of our interfaces, if the import is one, of a version that we have.
fn interface(import: &str) -> Option<&str> {
    let (name, version) = import.strip_prefix(PACKAGE)?.strip_prefix('/')?.split_once('@')?;
    compatible(version).then_some(name)
}

/// Within a minor number, a guest that was made for another patch fits.
fn compatible(version: &str) -> bool {
    version.strip_prefix(MINOR).is_some_and(|patch| patch.is_empty() || patch.starts_with('.'))
}

fn is_offered(interface: &str) -> bool {
    matches!(interface, "types" | "log" | "clock" | "metrics" | "kv")
}

/// Whether the component asks for no more than it may have, and has what a plugin needs.
pub(super) fn check(contents: &Contents, plugin: &str, allow: Allow) -> Result<(), Reason> {
    for import in &contents.imports {
        match interface(import) {
            Some("kv") if !allow.kv => {
                return Err(Reason::NotGranted { what: "kv".into(), plugin: plugin.into() });
            }
            Some(name) if is_offered(name) => {}
            _ => return Err(Reason::Import(clean(import, LONGEST_NAME))),
        }
    }
    let missing: Vec<String> = ["lifecycle", "transform"]
        .iter()
        .filter(|wanted| !contents.exports.iter().any(|name| interface(name) == Some(wanted)))
        .map(|wanted| format!("{PACKAGE}/{wanted}@{VERSION}"))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Reason::Exports(missing)) }
}

/// The functions that a core module must export.
const FUNCTIONS: [(&str, &str); 4] = [
    ("lifecycle", "describe"),
    ("lifecycle", "init"),
    ("transform", "on-relation"),
    ("transform", "process"),
];

/// Whether a core module has the exports of a plugin, and imports nothing that can't be given. The
/// rest is found when it is wrapped, in words for those who know the component model.
pub(super) fn check_module(module: &[u8]) -> Result<(), Reason> {
    let mut exports = Vec::new();
    let damaged = |error: BinaryReaderError| Reason::Damaged(error.to_string());
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(damaged)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    check_module_import(import.map_err(damaged)?.module)?;
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    exports.push(export.map_err(damaged)?.name);
                }
            }
            _ => {}
        }
    }
    let missing: Vec<String> = FUNCTIONS
        .iter()
        .filter(|wanted| !exports.iter().any(|name| function(name) == Some(**wanted)))
        .map(|(interface, function)| format!("{PACKAGE}/{interface}@{VERSION}#{function}"))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Reason::Exports(missing)) }
}

/// Interface and function of an export, in either of the forms that tools write:
/// `walmill:plugin/transform@0.1.0#process` and `cm32p2|walmill:plugin/transform@0.1|process`.
fn function(export: &str) -> Option<(&str, &str)> {
    let (name, function) = match export.strip_prefix("cm32p2|") {
        Some(names) => names.split_once('|')?,
        None => export.split_once('#')?,
    };
    Some((interface(name)?, function))
}

/// Imports of other names are the business of whoever wraps the module.
fn check_module_import(module: &str) -> Result<(), Reason> {
    let name = module.strip_prefix("cm32p2|").unwrap_or(module);
    let foreign = name == "env" || name.starts_with("wasi");
    let unknown = name.starts_with(PACKAGE) && !interface(name).is_some_and(is_offered);
    if foreign || unknown { Err(Reason::Import(clean(module, LONGEST_NAME))) } else { Ok(()) }
}
