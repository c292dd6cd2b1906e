//! The ready-made plugins through the real host: what the golden cases in `plugins/*/tests` say
//! goes in and comes out.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walmill::plugin::golden::{self, Format};
use walmill::plugin::registry::load_alone;
use walmill::plugin::{Config, Engine, Plugin, Reason};
use wasmparser::{Parser, Payload};

use crate::support::process::built_plugins;

/// The folder of a plugin's sources.
fn folder(plugin: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").join(plugin)
}

/// A plugin of `scripts/build-plugins`, with its configuration.
pub fn load(engine: &Engine, plugin: &str, config: &toml::Table) -> Result<Arc<Plugin>, Reason> {
    let path = built_plugins().join(format!("{plugin}.wasm"));
    let config = toml::Value::Table(config.clone()).try_into().expect("a config table");
    let mut config = Config::new(path, config);
    // What it keeps, it keeps in memory and for the case.
    config.allow.kv = true;
    load_alone(engine, plugin, config).map_err(|error| error.reason)
}

fn check(plugin: &str) {
    let cache = tempfile::tempdir().expect("a folder");
    let engine = Engine::new(Some(cache.path())).expect("an engine");
    let files = fs::read_dir(folder(plugin).join("tests")).expect("golden cases");
    for file in files {
        check_file(&engine, plugin, &file.expect("a file").path());
    }
}

/// What the golden cases of a file say about a plugin.
pub fn check_file(engine: &Engine, plugin: &str, path: &Path) {
    let text = fs::read_to_string(path).expect("golden cases");
    let file = golden::File::parse(&text, Format::of(path)).expect("golden cases");
    let reports = file.run(|config| load(engine, plugin, config));
    assert!(!reports.is_empty(), "{plugin}: {}: no cases", path.display());
    let failed = reports.iter().filter(|report| !report.passes());
    let failed: String = failed.map(|report| format!("  {}\n{report}", report.name)).collect();
    assert!(failed.is_empty(), "{plugin}: {}\n{failed}", path.display());
}

#[test]
fn count_answers_as_its_golden_cases_say() {
    check("count");
}

#[test]
fn deduplicate_answers_as_its_golden_cases_say() {
    check("deduplicate");
}

#[test]
fn the_filter_answers_as_its_golden_cases_say() {
    check("filter");
}

#[test]
fn reshape_answers_as_its_golden_cases_say() {
    check("reshape");
}

#[test]
fn route_answers_as_its_golden_cases_say() {
    check("route");
}

#[test]
fn the_ready_made_plugins_import_nothing_but_what_walmill_offers() {
    for plugin in ["count", "deduplicate", "filter", "reshape", "route"] {
        let file = fs::read(built_plugins().join(plugin).with_extension("wasm")).expect(plugin);
        let mut exports = 0;
        for payload in Parser::new(0).parse_all(&file) {
            match payload.expect("a whole file") {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        let module = import.expect("an import").module;
                        assert!(module.starts_with("walmill:plugin/"), "{plugin} imports {module}");
                    }
                }
                Payload::ExportSection(section) => exports = section.count(),
                _ => {}
            }
        }
        assert!(exports > 3, "{plugin} exports {exports} things");
    }
}

#[test]
fn the_examples_beside_the_plugins_are_right() {
    let engine = Engine::new(None).expect("an engine");
    for plugin in ["count", "deduplicate", "filter", "reshape", "route"] {
        let text = fs::read_to_string(folder(plugin).join("walmill.toml")).expect("an example");
        let example: toml::Table = text.parse().expect("TOML");
        let configured = example["plugins"].as_table().expect("plugins").values();
        for configured in configured {
            let config = configured["config"].as_table().expect("a config");
            let loaded = load(&engine, plugin, config).map(drop);
            assert!(loaded.is_ok(), "{plugin}: {loaded:?}");
        }
    }
}
