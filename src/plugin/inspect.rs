//! What a file is and says about itself, before anything of it is compiled.

use wasmparser::{BinaryReader, BinaryReaderError, Parser, Payload, ProducersSectionReader};

use super::Allow;
use super::bindings::PACKAGE;
use super::error::Reason;
use super::text::clean;
use super::world::{Role, World, interface};

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
}

impl Contents {
    /// Whether it imports that interface of ours.
    pub(super) fn uses(&self, worlds: &'static [World], name: &str) -> bool {
        self.imports.iter().filter_map(|id| interface(worlds, id)).any(|found| found.name == name)
    }
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

/// What a file is made for: a version of the world, and what it does in it.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) world: &'static World,
    pub(super) role: Role,
}

impl Kind {
    /// By what is exported of our interfaces; if that says nothing, the usual.
    fn of(worlds: &'static [World], exports: &[&str]) -> Result<Self, Reason> {
        for world in worlds {
            let has = |role: Role| has(worlds, exports, world, role.interface());
            match (has(Role::Transform), has(Role::Authorizer)) {
                (true, true) => return Err(Reason::TwoRoles),
                (true, false) => return Ok(Self { world, role: Role::Transform }),
                (false, true) => return Ok(Self { world, role: Role::Authorizer }),
                (false, false) => {}
            }
        }
        Ok(Self { world: &worlds[0], role: Role::Transform })
    }

    fn id(&self, interface: &str) -> String {
        format!("{PACKAGE}/{interface}@{}", self.world.version)
    }

    fn interfaces(&self) -> [&'static str; 2] {
        ["lifecycle", self.role.interface()]
    }

    /// Interface and name of every function that it must export.
    fn functions(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let of_role = self.role.functions().iter().map(|name| (self.role.interface(), *name));
        LIFECYCLE.iter().map(|name| ("lifecycle", *name)).chain(of_role)
    }
}

const LIFECYCLE: [&str; 2] = ["describe", "init"];

fn has(worlds: &'static [World], ids: &[&str], world: &World, name: &str) -> bool {
    ids.iter()
        .filter_map(|id| interface(worlds, id))
        .any(|found| found.name == name && found.world.minor == world.minor)
}

/// Whether the component asks for no more than it may have, and has what a plugin needs.
pub(super) fn check(
    worlds: &'static [World],
    contents: &Contents,
    plugin: &str,
    allow: Allow,
) -> Result<Kind, Reason> {
    for import in &contents.imports {
        match interface(worlds, import) {
            Some(found) if found.name == "kv" && !allow.kv => {
                return Err(Reason::NotGranted { what: "kv".into(), plugin: plugin.into() });
            }
            Some(found) if found.is_offered() => {}
            _ => return Err(Reason::Import(clean(import, LONGEST_NAME))),
        }
    }
    let exports: Vec<&str> = contents.exports.iter().map(String::as_str).collect();
    let kind = Kind::of(worlds, &exports)?;
    let missing = kind.interfaces().into_iter();
    let missing = missing.filter(|name| !has(worlds, &exports, kind.world, name));
    let missing: Vec<String> = missing.map(|name| kind.id(name)).collect();
    if !missing.is_empty() {
        return Err(Reason::Exports(missing));
    }
    if kind.role == Role::Authorizer && contents.uses(worlds, "kv") {
        return Err(Reason::NoState);
    }
    Ok(kind)
}

/// Whether a core module has the exports of a plugin, and imports nothing that can't be given. The
/// rest is found when it is wrapped, in words for those who know the component model.
pub(super) fn check_module(worlds: &'static [World], module: &[u8]) -> Result<Kind, Reason> {
    let mut exports = Vec::new();
    let damaged = |error: BinaryReaderError| Reason::Damaged(error.to_string());
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(damaged)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    check_module_import(worlds, import.map_err(damaged)?.module)?;
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    exports.extend(function(export.map_err(damaged)?.name));
                }
            }
            _ => {}
        }
    }
    let interfaces: Vec<&str> = exports.iter().map(|(interface, _)| *interface).collect();
    let kind = Kind::of(worlds, &interfaces)?;
    let exported = |name: &str, function: &str| {
        let mut of_it = exports.iter().filter(|(_, exported)| *exported == function);
        of_it.any(|(id, _)| has(worlds, &[id], kind.world, name))
    };
    let missing: Vec<String> = kind
        .functions()
        .filter(|(interface, function)| !exported(interface, function))
        .map(|(interface, function)| format!("{}#{function}", kind.id(interface)))
        .collect();
    if missing.is_empty() { Ok(kind) } else { Err(Reason::Exports(missing)) }
}

/// Interface and function of an export, in either of the forms that tools write:
/// `walmill:plugin/transform@0.1.0#process` and `cm32p2|walmill:plugin/transform@0.1|process`.
fn function(export: &str) -> Option<(&str, &str)> {
    match export.strip_prefix("cm32p2|") {
        Some(names) => names.split_once('|'),
        None => export.split_once('#'),
    }
}

/// Imports of other names are the business of whoever wraps the module.
fn check_module_import(worlds: &'static [World], module: &str) -> Result<(), Reason> {
    let name = module.strip_prefix("cm32p2|").unwrap_or(module);
    let foreign = name == "env" || name.starts_with("wasi");
    let unknown = name.starts_with(PACKAGE)
        && !interface(worlds, name).is_some_and(|found| found.is_offered());
    if foreign || unknown { Err(Reason::Import(clean(module, LONGEST_NAME))) } else { Ok(()) }
}
