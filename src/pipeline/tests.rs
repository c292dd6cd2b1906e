//! A pipeline over a real store, with changes as PostgreSQL would send them and plugins that fail
//! in every way.

mod again;
mod limits;
mod plans;
mod replay;
mod room;
mod shadow;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Config, OnError, Pipeline, Shutdown};
use crate::metrics::Metrics;
use crate::model::{Column, Kind, Lsn, Offset, Relation, RelationId, ReplicaIdentity};
use crate::pgoutput::frame;
use crate::plugin::guests::{FOREVER, Folder, Guest, PASS, config as plugin_config};
use crate::plugin::registry::Registry;
use crate::plugin::{Config as PluginConfig, Engine};
use crate::store::dead_letter::By;
use crate::store::journal::{Append, Block, Journal};
use crate::store::stream::Read;
use crate::store::{Config as StoreConfig, Origin, Store};

/// Calls `$bad` when any event of the batch is a truncate.
const ON_ANY_TRUNCATE: &str = r"
    (func $scan (param $ops i32) (param $left i32)
      (loop $next
        (if (i32.eqz (local.get $left)) (then return))
        (if (i32.eq (i32.load8_u (local.get $ops)) (i32.const 3)) (then (call $bad)))
        (local.set $ops (i32.add (local.get $ops) (i32.const 1)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br $next)))";
const SCAN: &str =
    "(call $scan (i32.load offset=4 (local.get 0)) (i32.load offset=8 (local.get 0)))";

/// A store with a journal, and the relation that its changes are about.
struct House {
    folder: Folder,
    store: Store,
    journal: Journal,
    relation: RelationId,
    next: u64,
}

impl House {
    fn new() -> Self {
        let folder = Folder::new();
        let store_config = StoreConfig { path: folder.join("data"), ..StoreConfig::default() };
        let store = Store::open(&store_config, Arc::new(Metrics::new())).expect("a store");
        let origin = Origin {
            system_identifier: "7".into(),
            timeline: 1,
            slot: "walmill".into(),
            database: "app".into(),
        };
        store.set_origin(&origin).expect("an origin");
        let relation = store.intern_relation(&posts()).expect("a relation");
        let journal = store.start_journal().expect("a journal");
        Self { folder, store, journal, relation, next: 0x100 }
    }

    /// Appends a transaction of these changes, in blocks of `per_block` changes.
    async fn commit(&mut self, changes: &[Vec<u8>], per_block: usize) -> Lsn {
        let commit = Lsn(self.next);
        let end = Lsn(self.next + 8);
        self.next += 0x100;
        let parts: Vec<&[Vec<u8>]> = changes.chunks(per_block).collect();
        let mut ordinal = 0;
        for (part, changes) in (0..).zip(&parts) {
            let complete = part as usize + 1 == parts.len();
            let mut frames = framed(&frame::begin(commit, 1_000_000, 9));
            for change in *changes {
                frames.extend(framed(change));
            }
            if complete {
                frames.extend(framed(&frame::commit(commit, end, 1_000_000)));
            }
            let frames = Bytes::from(frames);
            let block = Block {
                first: commit,
                part,
                ordinal,
                last: commit,
                complete,
                end,
                time: 1,
                frames,
                tables: Vec::new(),
            };
            self.journal.appender.send(Append::Block(block)).await.expect("the journal runs");
            ordinal += u32::try_from(changes.len()).expect("few");
        }
        let durable = &mut self.journal.durable;
        durable.wait_for(|durable| durable.lsn() >= end).await.expect("the journal runs");
        commit
    }

    fn insert(&self, id: u32, title: &str) -> Vec<u8> {
        let mut message = vec![b'I'];
        message.put_u32(self.relation.0);
        put_tuple(&mut message, b'N', [Some(&id.to_string()), Some(title)]);
        message
    }

    /// An update that gives a row another key.
    fn move_row(&self, from: u32, to: u32) -> Vec<u8> {
        let mut message = vec![b'U'];
        message.put_u32(self.relation.0);
        put_tuple(&mut message, b'K', [Some(&from.to_string()), None]);
        put_tuple(&mut message, b'N', [Some(&to.to_string()), Some("x")]);
        message
    }

    fn truncate(&self) -> Vec<u8> {
        let mut message = vec![b'T'];
        message.put_u32(1);
        message.put_u8(0);
        message.put_u32(self.relation.0);
        message
    }

    /// A plugin file, loaded.
    fn plugin(&self, guest: &Guest) -> Registry {
        self.plugin_with(guest, plugin_config())
    }

    fn plugin_with(&self, guest: &Guest, config: PluginConfig) -> Registry {
        self.plugins(&[("guest", guest)], &config)
    }

    fn plugins(&self, guests: &[(&str, &Guest)], config: &PluginConfig) -> Registry {
        let load = |(name, guest): &(&str, &Guest)| {
            let path = self.folder.join(format!("{name}.wasm"));
            std::fs::write(&path, guest.bytes()).expect("write the plugin");
            ((*name).to_owned(), PluginConfig { path, ..config.clone() })
        };
        let configs = guests.iter().map(load).collect();
        Registry::open(&Engine::new(None).expect("an engine"), configs, Arc::new(Metrics::new()))
            .expect("a plugin that loads")
    }

    /// Runs the pipeline until it has read everything.
    async fn run(&self, registry: &Registry, config: Config) {
        let pipeline =
            Pipeline::new(config, self.store.clone(), registry.clone(), Arc::new(Metrics::new()));
        let pipeline = pipeline.expect("a pipeline");
        let shutdown =
            Shutdown { drain: CancellationToken::new(), abort: CancellationToken::new() };
        shutdown.drain.cancel();
        let runtime = Handle::current();
        let run = move || pipeline.run(&runtime, &shutdown);
        tokio::task::spawn_blocking(run).await.expect("no panic").expect("it drains");
    }

    /// The events of the stream `posts`.
    fn events(&self) -> Vec<Value> {
        let stream = self.store.stream("posts").expect("the stream");
        let (mut events, mut after) = (Vec::new(), Offset::START);
        while let Read::Events(run) = stream.read(after).expect("a read") {
            for event in run.after(after) {
                events.push(serde_json::from_slice(&event.json).expect("JSON"));
            }
            after = run.last;
        }
        events
    }

    fn ids(&self) -> Vec<String> {
        self.events().iter().map(|event| event["id"].as_str().expect("an id").into()).collect()
    }
}

fn put_tuple(message: &mut Vec<u8>, tag: u8, values: [Option<&str>; 2]) {
    message.put_u8(tag);
    message.put_u16(2);
    for value in values {
        let Some(value) = value else {
            message.put_u8(b'n');
            continue;
        };
        message.put_u8(b't');
        message.put_u32(u32::try_from(value.len()).expect("short"));
        message.put_slice(value.as_bytes());
    }
}

fn posts() -> Relation {
    let column = |name: &str, kind, type_name: &str, key| Column {
        name: name.into(),
        type_oid: 25,
        type_mod: -1,
        type_name: type_name.into(),
        kind,
        key,
    };
    Relation {
        oid: 1,
        schema: "public".into(),
        table: "posts".into(),
        identity: ReplicaIdentity::Default,
        columns: vec![
            column("id", Kind::Int, "int8", true),
            column("title", Kind::Text, "text", false),
        ],
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(message.len() + 4);
    frame.put_u32(u32::try_from(message.len()).expect("short"));
    frame.put_slice(message);
    frame
}

fn config(on_error: OnError) -> Config {
    let text = r#"name = "posts"
        tables = ["public.posts"]
        plugins = ["guest"]"#;
    Config { on_error, ..toml::from_str(text).expect("a config") }
}

/// Passes everything but truncates, at which it runs `bad`.
fn failing(bad: &str) -> Guest {
    let fields = format!("(func $bad {bad}){ON_ANY_TRUNCATE}");
    Guest { fields: fields.leak(), process: SCAN, ..PASS }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_says_where_it_comes_from_and_what_it_is() {
    let mut house = House::new();
    let change = house.insert(1, "a \"b\"\n");
    house.commit(&[change], 1).await;
    house.run(&house.plugin(&PASS), config(OnError::DeadLetter)).await;
    expect_test::expect![[r#"
        [
          {
            "data": {
              "key": {
                "id": 1
              },
              "old_record": null,
              "op": "insert",
              "record": {
                "id": 1,
                "title": "a \"b\"\n"
              },
              "schema": "public",
              "table": "posts",
              "unchanged": []
            },
            "datacontenttype": "application/json",
            "id": "0/100/0",
            "lsn": "0/100",
            "partitionkey": "public.posts/1",
            "source": "/walmill/7/1",
            "specversion": "1.0",
            "stream": "posts",
            "subject": "public.posts/1",
            "time": "1970-01-01T00:00:01.000000Z",
            "txend": true,
            "type": "walmill.row.insert",
            "xid": "9"
          }
        ]"#]]
    .assert_eq(&serde_json::to_string_pretty(&house.events()).expect("JSON"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_that_traps_costs_its_neighbours_nothing() {
    for bad in ["unreachable", FOREVER] {
        let mut house = House::new();
        let mut changes: Vec<_> = (0..300).map(|id| house.insert(id, "x")).collect();
        changes[123] = house.truncate();
        house.commit(&changes, 1000).await;
        house.run(&house.plugin(&failing(bad)), config(OnError::DeadLetter)).await;
        let expected: Vec<_> =
            (0..300).filter(|id| *id != 123).map(|id| format!("0/100/{id}")).collect();
        assert_eq!(house.ids(), expected);
        let letters = house.store.dead_letters(10).expect("dead letters");
        let [(_, letter)] = letters.as_slice() else { panic!("{letters:?}") };
        assert_eq!(letter.event, "0/100/123");
        let By::Plugin { pipeline, plugin, version } = &letter.by else { panic!("{letter:?}") };
        assert_eq!((pipeline.as_str(), plugin.as_str(), version.len()), ("posts", "guest", 12));
        assert!(!letter.reason.is_empty() && letter.payload.get().contains("truncate"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_event_is_skipped_where_the_config_says_so() {
    let mut house = House::new();
    let changes = [house.insert(0, "x"), house.truncate(), house.insert(2, "x")];
    house.commit(&changes, 10).await;
    house.run(&house.plugin(&failing("unreachable")), config(OnError::Skip)).await;
    assert_eq!(house.ids(), ["0/100/0", "0/100/2"]);
    assert!(house.store.dead_letters(10).expect("dead letters").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_pipeline_loses_nothing_and_goes_on_with_a_better_version() {
    let mut house = House::new();
    let changes = [house.insert(0, "x"), house.truncate(), house.insert(2, "x")];
    house.commit(&changes, 10).await;
    let registry = house.plugin(&failing("unreachable"));
    house.run(&registry, config(OnError::Stop)).await;
    assert!(house.ids().is_empty());
    registry.offer("guest", PASS.bytes()).expect("a version that loads");
    house.run(&registry, config(OnError::Stop)).await;
    assert_eq!(house.ids(), ["0/100/0", "0/100/1", "0/100/2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_in_many_batches_is_whole_and_says_where_it_ends() {
    let mut house = House::new();
    let changes: Vec<_> = (0..10_000).map(|id| house.insert(id, "x")).collect();
    house.commit(&changes, 700).await;
    house.run(&house.plugin(&PASS), config(OnError::DeadLetter)).await;
    let expected: Vec<_> = (0..10_000).map(|id| format!("0/100/{id}")).collect();
    assert_eq!(house.ids(), expected);
    let ends: Vec<_> = house.events().iter().map(|event| event["txend"] == true).collect();
    assert_eq!(ends.iter().position(|end| *end), Some(9_999));
    // A pipeline that starts again has nothing left to do.
    house.run(&house.plugin(&PASS), config(OnError::DeadLetter)).await;
    assert_eq!(house.ids().len(), 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_inside_a_transaction_goes_on_with_the_next_change() {
    let mut house = House::new();
    let changes: Vec<_> = (0..10).map(|id| house.insert(id, "x")).collect();
    house.commit(&changes, 3).await;
    for ordinal in 0..10 {
        let outcome = crate::store::Outcome {
            pipeline: format!("posts{ordinal}"),
            cursor: Offset::new(Lsn(0x100), ordinal).end(),
            ..Default::default()
        };
        house.store.commit(outcome).expect("a commit");
        let name = format!("posts{ordinal}");
        let config = Config { name: name.clone(), ..config(OnError::DeadLetter) };
        house.run(&house.plugin(&PASS), config).await;
        let stream = house.store.stream(&name).expect("the stream");
        let count = match stream.read(Offset::START).expect("a read") {
            Read::Events(events) => events.count,
            _ => 0,
        };
        assert_eq!(count, 9 - ordinal);
    }
}
