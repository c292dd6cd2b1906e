//! Plugins for tests, written as WebAssembly text: core modules with the canonical ABI names. Each
//! passes every event; a test says what else it does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::bindings::{Batch, Column, Relation};
use super::promotion::{Promote, Rollback, Shadow};
use super::{Allow, Config, Engine, Instance, Limits, NoState, Plugin, Registry};
use crate::metrics::Metrics;

/// Code that runs at the start of a function, and more fields of the module.
#[derive(Default, Clone, Copy)]
pub(crate) struct Guest {
    /// Imports, before anything else.
    pub imports: &'static str,
    /// Data segments, functions, a start function.
    pub fields: &'static str,
    pub describe: &'static str,
    pub init: &'static str,
    /// Parameters: id, schema, table, columns, full-old-rows; the plan is at 1156.
    pub on_relation: &'static str,
    /// Parameter 0 points to the batch; the outcome is at 1284; `$n` is free for use.
    pub process: &'static str,
    pub realloc: &'static str,
    /// Makes it an authorizer. Parameters: pointer and length of stream, claims, parameters and
    /// remote; the grant is at 1284.
    pub open: Option<&'static str>,
}

/// Nothing but passing.
pub(crate) const PASS: Guest = Guest {
    imports: "",
    fields: "",
    describe: "",
    init: "",
    on_relation: "",
    process: "",
    realloc: "",
    open: None,
};

pub(crate) const FOREVER: &str = "(loop $forever (br $forever))";
/// Takes all the memory it can get, then traps.
pub(crate) const MEMORY_BOMB: &str =
    "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 256)) (i32.const -1)))) unreachable";
/// Traps if the batch's first event is a truncate.
pub(crate) const TRAP_ON_TRUNCATE: &str = "(if (i32.eq (i32.load8_u (i32.load offset=4 (local.get 0))) (i32.const 3)) (then unreachable))";
/// Takes no config.
pub(crate) const FINDINGS: Guest = Guest {
    fields: r#"(data (i32.const 512) "columns[2]no such column")
               (data (i32.const 640) "\00\02\00\00\0a\00\00\00\0a\02\00\00\0e\00\00\00")"#,
    init: "(i32.store8 (i32.const 1088) (i32.const 1))
           (i32.store (i32.const 1092) (i32.const 640)) (i32.store (i32.const 1096) (i32.const 1))",
    ..PASS
};

impl Guest {
    /// The module, in WebAssembly text. A return area of zeros is an empty success.
    pub(crate) fn text(&self) -> String {
        let Self { imports, fields, describe, init, realloc, .. } = self;
        let work = self.open.map_or_else(|| self.transform(), authorize);
        format!(
            r#"(module {imports}
              (memory (export "memory") 8)
              (global $top (mut i32) (i32.const 262144))
              (data (i32.const 16) "guest1.0")
              {fields}
              (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
                {realloc}
                (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                (global.set $top (i32.add (local.get $at) (local.get 3)))
                (block $fits (loop $more
                  (br_if $fits (i32.le_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))))
                  (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))
                  unreachable))
                (local.get $at))
              (func $describe (export "walmill:plugin/lifecycle@0.1.0#describe") (result i32)
                (i32.store (i32.const 1024) (i32.const 16)) (i32.store (i32.const 1028) (i32.const 5))
                (i32.store (i32.const 1032) (i32.const 21)) (i32.store (i32.const 1036) (i32.const 3))
                {describe}
                (i32.const 1024))
              (func $init (export "walmill:plugin/lifecycle@0.1.0#init")
                (param i32 i32 i32 i32 i32) (result i32)
                {init}
                (i32.const 1088))
              {work})"#
        )
    }

    fn transform(&self) -> String {
        let Self { on_relation, process, .. } = self;
        format!(
            r#"(func $on-relation (export "walmill:plugin/transform@0.1.0#on-relation")
                (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
                {on_relation}
                (i32.const 1152))
              (func $process (export "walmill:plugin/transform@0.1.0#process") (param i32) (result i32)
                (local $n i32)
                (i32.store (i32.const 1284) (i32.const 131072))
                (i32.store (i32.const 1288) (i32.load (local.get 0)))
                {process}
                (i32.const 1280))
              (func (export "cabi_post_walmill:plugin/transform@0.1.0#process") (param i32)
                (global.set $top (i32.const 262144)))"#
        )
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        wat::parse_str(self.text()).unwrap()
    }

    /// As a plugin named `guest`.
    pub(crate) fn load(&self, config: Config) -> Arc<Plugin> {
        let folder = Folder::new();
        std::fs::write(folder.join("guest.wasm"), self.bytes()).unwrap();
        let config = Config { path: folder.join("guest.wasm"), ..config };
        let registry = open("guest", config);
        registry.snapshot().by_name["guest"].clone()
    }

    /// An instance of it, with limits that a test does not have to wait for.
    pub(crate) fn start(&self) -> Instance {
        self.load(config()).instantiate(0, 1, false, Arc::new(Mutex::new(NoState))).unwrap()
    }
}

fn authorize(open: &str) -> String {
    format!(
        r#"(func $open (export "walmill:plugin/authorize@0.1.0#open")
            (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            {open}
            (i32.const 1280))
          (func (export "cabi_post_walmill:plugin/authorize@0.1.0#open") (param i32)
            (global.set $top (i32.const 262144)))"#
    )
}

pub(crate) fn open(name: &str, config: Config) -> Registry {
    let configs = BTreeMap::from([(name.to_owned(), config)]);
    Registry::open(&Engine::new(None).unwrap(), configs, Arc::new(Metrics::new()))
        .unwrap_or_else(|errors| panic!("{errors:?}"))
}

pub(crate) fn config() -> Config {
    Config {
        path: "guest.wasm".into(),
        config: serde_json::Map::new(),
        limits: toml::from_str::<Limits>("memory = \"16MiB\"\ndeadline = \"50ms\"").unwrap(),
        allow: Allow::default(),
        shadow: Shadow::default(),
        promote: Promote::default(),
        rollback: Rollback::default(),
    }
}

/// `public.posts (id, title)`, announced under this id.
pub(crate) fn relation(id: u32) -> Relation {
    let column = |name: &str, tag, key| Column {
        name: name.into(),
        type_oid: 25,
        type_name: "text".into(),
        tag,
        key,
    };
    Relation {
        id,
        schema: "public".into(),
        table: "posts".into(),
        columns: vec![column("id", 2, true), column("title", 16, false)],
        full_old_rows: false,
    }
}

/// Events of relation 1, of which no column was asked for.
pub(crate) fn batch(ops: &[u8]) -> Batch {
    Batch {
        count: u32::try_from(ops.len()).unwrap(),
        ops: ops.into(),
        relations: vec![1; ops.len()],
        lsns: vec![],
        times: vec![],
        starts: vec![0; ops.len() + 1],
        tags: vec![],
        data: vec![],
        heap: vec![],
    }
}

/// A folder that goes with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("walmill-plugin-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl std::ops::Deref for Folder {
    type Target = std::path::Path;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
