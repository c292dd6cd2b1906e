//! Hostile plugins in a walmill that runs: each harms its own events and nothing else.

use std::path::Path;

use serde_json::Value;

use crate::support::clients;
use crate::support::process::Walmill;
use crate::support::{cluster, connect, execute};

/// Passes every event, after the code that is given for a place of it.
#[derive(Default, Clone, Copy)]
pub struct Guest {
    pub name: &'static str,
    pub fields: &'static str,
    pub init: &'static str,
    pub on_relation: &'static str,
    pub process: &'static str,
    pub realloc: &'static str,
    /// What the dead letters' reason says.
    pub reason: &'static str,
}

/// Nothing but passing.
pub const ARMED: Guest = Guest {
    name: "",
    fields: "(global $armed (mut i32) (i32.const 0))",
    init: "",
    // A trap before any batch would keep it from being loaded.
    on_relation: "(global.set $armed (i32.const 1))",
    process: "",
    realloc: "",
    reason: "",
};

const FOREVER: &str = "(loop $forever (br $forever))";

const HOSTILE: [Guest; 7] = [
    Guest { name: "loops", process: FOREVER, reason: "limits.deadline", ..ARMED },
    Guest {
        name: "allocator-loops",
        realloc: "(if (global.get $armed) (then (loop $forever (br $forever))))",
        reason: "limits.deadline",
        ..ARMED
    },
    Guest {
        name: "allocator-traps",
        realloc: "(if (global.get $armed) (then unreachable))",
        reason: "unreachable",
        ..ARMED
    },
    Guest {
        name: "eats",
        process: "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 64)) (i32.const -1))))
            unreachable",
        reason: "limits.memory",
        ..ARMED
    },
    Guest {
        name: "dives",
        fields: "(global $armed (mut i32) (i32.const 0))
            (func $down (param i32) (result i32)
              (i32.add (call $down (local.get 0)) (i32.const 1)))",
        process: "(drop (call $down (i32.const 0)))",
        reason: "call stack exhausted",
        ..ARMED
    },
    Guest {
        name: "gushes",
        // An answer of 4,000 reasons of 64 KiB each.
        process: "(local.set $n (i32.const 131072))
            (loop $next
              (i32.store (local.get $n) (i32.const 190000))
              (i32.store offset=4 (local.get $n) (i32.const 65536))
              (local.set $n (i32.add (local.get $n) (i32.const 8)))
              (br_if $next (i32.lt_u (local.get $n) (i32.const 163072))))
            (i32.store (i32.const 1364) (i32.const 131072))
            (i32.store (i32.const 1368) (i32.const 4000))",
        reason: "limits.output",
        ..ARMED
    },
    Guest {
        name: "lies",
        process: "(i32.store (i32.const 1288) (i32.const 77))",
        reason: "77 verdicts",
        ..ARMED
    },
];

pub fn wasm(guest: Guest) -> Vec<u8> {
    let Guest { fields, init, on_relation, process, realloc, .. } = guest;
    let text = format!(
        r#"(module
          (memory (export "memory") 4)
          (global $top (mut i32) (i32.const 170000))
          (data (i32.const 16) "guest1.0")
          {fields}
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
            {realloc}
            (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
            (global.set $top (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
          (func (export "walmill:plugin/lifecycle@0.1.0#describe") (result i32)
            (i32.store (i32.const 1024) (i32.const 16)) (i32.store (i32.const 1028) (i32.const 5))
            (i32.store (i32.const 1032) (i32.const 21)) (i32.store (i32.const 1036) (i32.const 3))
            (i32.const 1024))
          (func (export "walmill:plugin/lifecycle@0.1.0#init")
            (param i32 i32 i32 i32 i32) (result i32) {init} (i32.const 1088))
          (func (export "walmill:plugin/transform@0.1.0#on-relation")
            (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            {on_relation} (i32.const 1152))
          (func (export "walmill:plugin/transform@0.1.0#process") (param i32) (result i32)
            (local $n i32)
            (i32.store (i32.const 1284) (i32.const 2048))
            (i32.store (i32.const 1288) (i32.load (local.get 0)))
            {process}
            (i32.const 1280))
          (func (export "cabi_post_walmill:plugin/transform@0.1.0#process") (param i32)
            (global.set $top (i32.const 170000))))"#
    );
    wat::parse_str(text).expect("valid text")
}

const HEAD: &str = r#"
[source]
url = "DATABASE"
tables = ["public.ticks"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"
"#;

fn pipeline(name: &str) -> String {
    format!(
        r#"
[plugins.{name}]
path = "{name}.wasm"
limits = {{ memory = "16MiB", deadline = "20ms" }}

[[pipeline]]
name = "{name}"
tables = ["public.ticks"]
plugins = ["{name}"]
"#
    )
}

fn save(folder: &Path, guest: Guest) {
    std::fs::write(folder.join(guest.name).with_extension("wasm"), wasm(guest)).expect("write");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_plugins_fail_on_their_own_events_and_the_others_flow() {
    const ROWS: usize = 12;
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE ticks (id bigint PRIMARY KEY)").await;
    let good = Guest { name: "good", ..ARMED };
    let all = HOSTILE.iter().chain([&good]);
    let config: String = all.clone().map(|guest| pipeline(guest.name)).collect();
    let mut walmill = Walmill::prepare(&format!("{HEAD}{config}"), &cluster.url());
    all.for_each(|guest| save(walmill.folder(), *guest));
    walmill.launch();
    walmill.ready().await;
    execute(&database, &format!("INSERT INTO ticks SELECT generate_series(1, {ROWS})")).await;

    let events = clients::sse(walmill.port(), "good", |events| events.len() == ROWS).await;
    let ids: Vec<_> = events.iter().map(|event| event["data"]["key"]["id"].as_i64()).collect();
    assert_eq!(ids, (1..=ROWS as i64).map(Some).collect::<Vec<_>>());

    let expected = HOSTILE.len() * ROWS;
    walmill.wait_for("/api/v1/status", |status| status["dead_letters"] == expected).await;
    let letters = walmill.json("/api/v1/dlq?limit=1000").await;
    let letters = letters["dead_letters"].as_array().or(letters.as_array()).expect("letters");
    for guest in HOSTILE {
        let of_guest =
            |letter: &&Value| letter.to_string().contains(&format!("\"{}\"", guest.name));
        let mut reasons =
            letters.iter().filter(of_guest).map(|letter| letter["reason"].to_string());
        assert_eq!(reasons.clone().count(), ROWS, "{}", guest.name);
        assert!(reasons.all(|reason| reason.contains(guest.reason)), "{}", guest.name);
    }
    // A better version of one of them goes on from here.
    save(walmill.folder(), Guest { name: "loops", ..good });
    let swapped = |status: &Value| {
        let plugins = status["plugins"].as_array().expect("plugins");
        plugins
            .iter()
            .any(|p| p["name"] == "loops" && p["history"].as_array().is_some_and(|h| h.len() == 2))
    };
    walmill.wait_for("/api/v1/status", swapped).await;
    execute(&database, "INSERT INTO ticks VALUES (1000)").await;
    let events = clients::sse(walmill.port(), "loops", |events| !events.is_empty()).await;
    assert_eq!(events[0]["data"]["key"]["id"], 1000);
    assert!(walmill.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_new_version_is_refused_and_the_one_in_force_flows_on() {
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE ticks (id bigint PRIMARY KEY)").await;
    let good = Guest { name: "good", ..ARMED };
    let mut walmill = Walmill::prepare(&format!("{HEAD}{}", pipeline("good")), &cluster.url());
    save(walmill.folder(), good);
    walmill.launch();
    walmill.ready().await;
    let start =
        "(global $armed (mut i32) (i32.const 0)) (func $main (loop $l (br $l))) (start $main)";
    let versions = [
        Guest { init: FOREVER, ..good },
        Guest { realloc: FOREVER, ..good },
        Guest { fields: start, ..good },
        Guest { realloc: "unreachable", ..good },
    ];
    for (at, version) in versions.into_iter().enumerate() {
        save(walmill.folder(), version);
        let refused = |status: &Value| {
            let history = status["plugins"][0]["history"].as_array().expect("a history");
            history.len() == at + 2 && !history[0]["error"].is_null()
        };
        walmill.wait_for("/api/v1/status", refused).await;
        execute(&database, &format!("INSERT INTO ticks VALUES ({at})")).await;
        let count = |events: &[Value]| events.len() == at + 1;
        clients::sse(walmill.port(), "good", count).await;
    }
    assert!(walmill.terminate().success());
}
