//! The ready-made plugins through the real host: what the golden cases in `plugins/*/tests` say
//! goes in and comes out. The cases read as TOML; `golden` turns them into batches and back.

pub mod golden;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walmill::metrics::Metrics;
use walmill::plugin::{Config, Engine, Plugin, Reason, Registry};
use wasmparser::{Parser, Payload};

use crate::support::process::built_plugins;

/// The folder of a plugin's sources.
fn folder(plugin: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").join(plugin)
}

/// A plugin of `scripts/build-plugins`, with its configuration.
pub fn load(engine: &Engine, plugin: &str, config: &toml::Table) -> Result<Arc<Plugin>, Reason> {
    let config = Config {
        path: built_plugins().join(format!("{plugin}.wasm")),
        config: toml::Value::Table(config.clone()).try_into().expect("a config table"),
        limits: Default::default(),
        allow: Default::default(),
        shadow: Default::default(),
        promote: Default::default(),
        rollback: Default::default(),
    };
    let configs = BTreeMap::from([(plugin.to_owned(), config)]);
    match Registry::open(engine, configs, Arc::new(Metrics::new())) {
        Ok(registry) => Ok(registry.snapshot().by_name[plugin].clone()),
        Err(mut errors) => Err(errors.remove(0).1.reason),
    }
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
    let golden: golden::File = toml::from_str(&text).expect("golden cases");
    for case in &golden.case {
        let place = format!("{plugin}: {}: {}", path.display(), case.name);
        golden::check(&place, &golden.relation, case, load(engine, plugin, &case.config));
    }
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
    for plugin in ["filter", "reshape", "route"] {
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
    for plugin in ["filter", "reshape", "route"] {
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
