use std::collections::BTreeMap;
use std::fs;

use super::super::guests::{FOREVER, Folder, Guest, MEMORY_BOMB, PASS, config, open};
use super::super::{Allow, Config, Engine, Reason};
use super::*;
use crate::metrics::Metrics;
use crate::model::access::RowKey;

/// Grants rows whose `region` is the first byte of the claims, hides `email`, and is to be asked
/// again in 60 seconds.
const REGION: Guest = Guest {
    fields: r#"(data (i32.const 512) "regionemailno ticket")
        ;; one row key: column, and a list of one value, whose text is at 700
        (data (i32.const 600) "\00\02\00\00\06\00\00\00\80\02\00\00\01\00\00\00")
        (data (i32.const 640) "\bc\02\00\00\01\00\00\00")
        (data (i32.const 660) "\06\02\00\00\05\00\00\00")"#,
    open: Some(
        "(i32.store8 (i32.const 700) (i32.load8_u (local.get 2)))
        (i32.store (i32.const 1284) (i32.const 600)) (i32.store (i32.const 1288) (i32.const 1))
        (i32.store (i32.const 1292) (i32.const 660)) (i32.store (i32.const 1296) (i32.const 1))
        (i32.store (i32.const 1300) (i32.const 60))",
    ),
    ..PASS
};

/// Refuses everybody: `no ticket`.
const REFUSES: Guest = Guest {
    open: Some(
        "(i32.store8 (i32.const 1280) (i32.const 1))
        (i32.store (i32.const 1284) (i32.const 523)) (i32.store (i32.const 1288) (i32.const 9))",
    ),
    ..REGION
};

const fn opens(open: &'static str) -> Guest {
    Guest { open: Some(open), ..PASS }
}

fn subscriber(claims: &str) -> Subscriber {
    Subscriber {
        stream: "orders".into(),
        claims: claims.into(),
        params: "{}".into(),
        remote: "192.0.2.1:9".into(),
    }
}

fn authorizer(folder: &Folder, guest: Guest) -> (Registry, Authorizer) {
    let path = folder.join("guest.wasm");
    fs::write(&path, guest.bytes()).unwrap();
    let registry = open("guest", Config { path, ..config() });
    let authorizer = Authorizer::new(&registry, "guest").unwrap();
    (registry, authorizer)
}

#[tokio::test]
async fn a_subscriber_is_granted_rows_and_columns_by_its_claims() {
    let folder = Folder::new();
    let (_registry, authorizer) = authorizer(&folder, REGION);
    for region in ["N", "S"] {
        let grant = authorizer.open(subscriber(region)).await.unwrap();
        let key = RowKey { column: "region".into(), values: vec![region.into()] };
        assert_eq!(grant.rows, [key]);
        assert_eq!(grant.hidden, ["email"]);
        assert_eq!(grant.ask_again, Some(Duration::from_secs(60)));
    }
}

#[tokio::test]
async fn a_new_version_decides_the_next_question_and_everyone_hears_of_it() {
    let folder = Folder::new();
    let (registry, authorizer) = authorizer(&folder, REGION);
    let changes = Authorize::changes(&authorizer);
    assert!(authorizer.open(subscriber("N")).await.is_ok());
    registry.offer("guest", REFUSES.bytes()).unwrap();
    assert!(changes.has_changed().unwrap());
    let refused = authorizer.open(subscriber("N")).await.unwrap_err();
    assert_eq!(refused, Refusal::Refused("no ticket".into()));
}

#[tokio::test]
async fn whatever_goes_wrong_is_a_refusal_and_the_next_question_is_answered() {
    // On a question whose claims begin with `N` alone.
    let breaks = "(if (i32.eq (i32.load8_u (local.get 2)) (i32.const 78)) (then unreachable))";
    let folder = Folder::new();
    let (_registry, authorizer) = authorizer(&folder, opens(breaks));
    for _ in 0..3 {
        assert!(authorizer.open(subscriber("S")).await.is_ok());
        let refused = authorizer.open(subscriber("N")).await.unwrap_err();
        assert_eq!(refused, Refusal::Undecided);
    }
}

#[tokio::test]
async fn a_hostile_authorizer_is_a_refusal() {
    for hostile in [
        FOREVER,
        MEMORY_BOMB,
        // A text that is no UTF-8, a list beyond memory, a thousand keys without names.
        "(i32.store8 (i32.const 1280) (i32.const 1)) (i32.store8 (i32.const 900) (i32.const 255))
         (i32.store (i32.const 1284) (i32.const 900)) (i32.store (i32.const 1288) (i32.const 1))",
        "(i32.store (i32.const 1292) (i32.const -8)) (i32.store (i32.const 1296) (i32.const 9))",
        "(i32.store (i32.const 1284) (i32.const 131072)) (i32.store (i32.const 1288) (i32.const 1000))",
    ] {
        let folder = Folder::new();
        let (_registry, authorizer) = authorizer(&folder, opens(hostile));
        let refused = authorizer.open(subscriber("N")).await.unwrap_err();
        assert_eq!(refused, Refusal::Undecided, "{hostile}");
    }
}

#[tokio::test]
async fn many_subscribers_ask_at_once() {
    let folder = Folder::new();
    let (_registry, authorizer) = authorizer(&folder, REGION);
    let ask = |_| {
        let authorizer = authorizer.clone();
        tokio::spawn(async move { authorizer.open(subscriber("N")).await })
    };
    for asked in (0..200).map(ask).collect::<Vec<_>>() {
        assert!(asked.await.unwrap().is_ok());
    }
    let seats = authorizer.0.seats.lock().unwrap();
    assert_eq!(seats.len(), authorizer.0.seat_count as usize);
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_any_more_gives_its_turn_back() {
    let folder = Folder::new();
    let (_registry, authorizer) = authorizer(&folder, opens(FOREVER));
    for _ in 0..authorizer.0.seat_count + 1 {
        let mut asked = Box::pin(authorizer.open(subscriber("N")));
        // Begun, and let go of.
        assert!(futures_util::poll!(&mut asked).is_pending());
    }
    assert_eq!(authorizer.open(subscriber("N")).await, Err(Refusal::Undecided));
    let all = authorizer.0.turns.acquire_many(authorizer.0.seat_count).await;
    assert!(all.is_ok());
}

#[test]
fn a_plugin_of_pipelines_is_no_authorizer_and_does_not_become_one() {
    let folder = Folder::new();
    let path = folder.join("guest.wasm");
    fs::write(&path, PASS.bytes()).unwrap();
    let registry = open("guest", Config { path, ..config() });
    let error = |name: &str| Authorizer::new(&registry, name).err().unwrap();
    assert_eq!(error("guest"), NoAuthorizer::Transform("guest".into()));
    assert_eq!(error("other"), NoAuthorizer::Unknown("other".into()));
    let refused = registry.offer("guest", REGION.bytes()).unwrap_err().reason;
    assert_eq!(
        refused.to_string(),
        "is of the world `authorizer`, but the version in force is of `plugin`, and is used as such"
    );
}

#[test]
fn an_authorizer_that_wants_state_or_is_a_plugin_of_pipelines_too_is_refused() {
    let load = |text: String| {
        let folder = Folder::new();
        let path = folder.join("guest.wasm");
        fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
        let config = Config { path, allow: Allow { kv: true }, ..config() };
        let configs = BTreeMap::from([("guest".to_owned(), config)]);
        let opened = Registry::open(&Engine::new(None).unwrap(), configs, Arc::new(Metrics::new()));
        opened.err().unwrap().remove(0).1.reason
    };
    let imports = r#"(import "walmill:plugin/kv@0.1.0" "get" (func (param i32 i32 i32)))"#;
    assert!(matches!(load(Guest { imports, ..REGION }.text()), Reason::NoState));
    let both = r#"(component (instance $nothing)
        (export "walmill:plugin/lifecycle@0.1.0" (instance $nothing))
        (export "walmill:plugin/transform@0.1.0" (instance $nothing))
        (export "walmill:plugin/authorize@0.1.0" (instance $nothing)))"#;
    assert!(matches!(load(both.into()), Reason::TwoRoles));
}
