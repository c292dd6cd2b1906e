//! What is about all rows, a TRUNCATE, a changed definition or a gap, comes between the rows where
//! it belongs, also where order is kept per key only.

use std::process::Command;

use super::*;
use crate::support::process::Walmill;
use crate::support::{cluster, connect, execute};

const TRUNCATE: &str = "public.orders\0";

/// The keys of all tries, in the order in which they came; tries of the same key in a row once.
fn tried(receiver: &Receiver) -> Vec<String> {
    let mut keys: Vec<_> = receiver.requests().iter().map(|r| r.event("subject")).collect();
    keys.dedup();
    keys
}

/// Fails the first try of what is about a table.
fn fails_the_first_barrier() -> impl FnMut(&Request) -> Reply + Send + 'static {
    let mut failed = false;
    move |request| match request.event("subject").contains('/') || failed {
        true => Reply::Status(200),
        false => {
            failed = true;
            Reply::Status(503)
        }
    }
}

#[tokio::test]
async fn nothing_passes_a_truncate_that_fails_once() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(fails_the_first_barrier()).await;
    let keys = ["public.orders/1", TRUNCATE, "public.orders/2", "public.orders/3"];
    let sent = streams.commit("orders", &keys);
    let output = Output::start(&streams, &receiver, "");
    until("all is delivered", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    let tried = tried(&receiver);
    assert_eq!(tried[..2], ["public.orders/1", "public.orders"]);
    assert_eq!(HashSet::from([&*tried[2], &*tried[3]]), HashSet::from([keys[2], keys[3]]));
    assert_eq!((tried.len(), receiver.requests().len()), (4, 5));
}

#[tokio::test]
async fn a_truncate_waits_for_an_update_that_hangs_and_other_keys_before_it_do_not() {
    let mut streams = Streams::new();
    let mut hung = false;
    let receiver = Receiver::start(move |request| match request.event("subject").as_str() {
        "public.orders/1" if !std::mem::replace(&mut hung, true) => Reply::Hang,
        _ => Reply::Status(200),
    })
    .await;
    let keys = ["public.orders/1", "public.orders/2", TRUNCATE, "public.orders/3"];
    let sent = streams.commit("orders", &keys);
    let output = Output::start(&streams, &receiver, "timeout = '150ms'");
    until("all is delivered", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    let taken: Vec<String> = receiver.taken().iter().map(|r| r.event("subject")).collect();
    assert_eq!(taken, ["public.orders/2", "public.orders/1", "public.orders", "public.orders/3"]);
    assert_eq!(receiver.requests().len(), 5, "only the one that hung was tried twice");
}

#[tokio::test]
async fn each_barrier_stands_where_it_belongs_whatever_the_receiver_does() {
    const ROUNDS: usize = 20;
    let mut streams = Streams::new();
    let faults = [Reply::Status(500), Reply::Reset, Reply::ResetInAnswer, Reply::Garbage];
    let mut tries = 0;
    let receiver = Receiver::start(move |_| {
        tries += 1;
        if tries % 3 == 0 { faults[tries / 3 % faults.len()].clone() } else { Reply::Status(200) }
    })
    .await;
    let keys: Vec<String> = (0..8).map(|key| format!("public.orders/{key}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).chain([TRUNCATE]).collect();
    let output = Output::start(&streams, &receiver, "");
    let sent: Vec<Vec<Offset>> = (0..ROUNDS).map(|_| streams.commit("orders", &keys)).collect();
    let last = sent.last().and_then(|round| round.last()).copied();
    until("all is delivered", || streams.checkpoint("orders") == last).await;
    output.stop().await;
    let taken: Vec<String> = receiver.taken().iter().map(|r| r.id().to_owned()).collect();
    assert_eq!(taken.len(), ROUNDS * keys.len());
    for (round, sent) in sent.iter().enumerate() {
        let came = &taken[round * keys.len()..][..keys.len()];
        assert_eq!(came.last(), ids(sent).last());
        assert_eq!(came.iter().cloned().collect::<HashSet<_>>(), ids(sent).into_iter().collect());
    }
}

#[tokio::test]
async fn a_truncate_that_is_given_up_lets_the_rest_go_and_no_other_stream_waits_for_it() {
    let mut streams = Streams::new();
    let refuses = |request: &Request| match request.event("subject").as_str() {
        "public.orders" => Reply::Status(422),
        _ => Reply::Status(200),
    };
    let receiver = Receiver::start(refuses).await;
    let before = streams.commit("orders", &["public.orders/1"]);
    let sent = streams.commit("orders", &[TRUNCATE, "public.orders/2"]);
    let other = streams.commit("posts", &["public.posts/1"]);
    let both = "name = 'billing'\nstreams = ['orders', 'posts']\nallow_private = true\n\
                retry = { initial = '2ms', max = '20ms' }";
    let config = format!("{both}\nsecret = '{SECRET}'\nurl = '{}'", receiver.url());
    let output = Output::with(&streams, &config);
    until("the other is through", || streams.checkpoint("posts") == other.last().copied()).await;
    output.error().await;
    output.stop().await;
    assert_eq!(streams.checkpoint("orders"), before.last().copied());
    assert!(taken_of(&receiver, "public.orders/2").is_empty());

    let mut streams = streams.reopen();
    let more = streams.commit("orders", &["public.orders/3"]);
    let config = config.replace("max =", "max_attempts = 3, max =");
    let output = Output::with(&streams, &config);
    until("it is given up", || streams.checkpoint("orders") == more.last().copied()).await;
    output.stop().await;
    let letters = streams.store.dead_letters(10).unwrap();
    assert_eq!(letters.iter().map(|(_, l)| l.event.clone()).collect::<Vec<_>>(), ids(&sent[..1]));
    assert_eq!(taken_of(&receiver, "public.orders/2"), ids(&sent[1..]));
    assert_eq!(receiver.taken().len(), 4, "what was before the TRUNCATE came once");
}

#[tokio::test]
async fn where_no_order_is_kept_a_truncate_holds_nothing_back() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|request| match request.event("subject").as_str() {
        "public.orders" => Reply::Status(500),
        _ => Reply::Status(200),
    })
    .await;
    streams.commit("orders", &[TRUNCATE, "public.orders/1", "public.orders/1"]);
    let output = Output::start(&streams, &receiver, "ordering = 'none'");
    until("the rows are through", || receiver.taken().len() == 2).await;
    output.stop().await;
    assert_eq!(streams.checkpoint("orders"), None);
}

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.*"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"
token = "let me in, please, it is only a test"

[[pipeline]]
name = "all"
tables = ["public.*"]

[[output.webhook]]
name = "hook"
streams = ["all"]
secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
allow_private = true
concurrency = 16
retry = { initial = "100ms", max = "100ms" }
"#;

/// The kinds of requests in the order in which they came, a row of the same kind once.
fn kinds(requests: &[Request]) -> Vec<String> {
    let mut kinds: Vec<String> = requests.iter().map(|request| request.event("type")).collect();
    kinds.dedup();
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_about_all_rows_comes_between_them_from_the_database_to_the_receiver() {
    let mut seen = HashSet::new();
    let receiver = Receiver::start(move |request| {
        let kind = request.event("type");
        let about_all = !kind.starts_with("walmill.row.") || kind == "walmill.row.truncate";
        // The first try of each of them fails, and that of a few rows.
        let fails = about_all || request.event("subject").ends_with('7');
        Reply::Status(if fails && seen.insert(request.id().to_owned()) { 500 } else { 200 })
    })
    .await;
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key, n int)").await;
    let config = format!("{CONFIG}url = '{}'\n", receiver.url());
    let mut walmill = Walmill::start(&config, &cluster.url()).await;
    let taken = |count| {
        let receiver = &receiver;
        async move { until("all has come", || receiver.taken().len() >= count).await }
    };
    execute(
        &client,
        "insert into t select n, n from generate_series(1, 20) n;
         truncate t;
         insert into t select n, n from generate_series(1, 20) n;
         alter table t add note text;
         update t set n = 0",
    )
    .await;
    taken(20 + 1 + 20 + 1 + 20).await;
    walmill.terminate();
    execute(&client, "select pg_drop_replication_slot('walmill'); delete from t where id > 10")
        .await;
    walmill.launch();
    walmill.alive().await;
    walmill.wait_for("/readyz", |ready| ready.to_string().contains("walmill slot recreate")).await;
    let recreate = Command::new(env!("CARGO_BIN_EXE_walmill"))
        .args(["slot", "recreate", "--snapshot", "--yes", "--config"])
        .arg(walmill.folder().join("walmill.toml"))
        .output()
        .expect("run walmill slot");
    assert!(recreate.status.success(), "{recreate:?}");
    taken(62 + 1 + 10).await;
    let order = [
        "walmill.row.insert",
        "walmill.row.truncate",
        "walmill.row.insert",
        "walmill.schema.changed",
        "walmill.row.update",
        "walmill.gap",
        "walmill.row.snapshot",
    ];
    // Whatever was tried, so that nothing went past a barrier that was yet to be tried again.
    assert_eq!(kinds(&receiver.requests()), order);
    assert_eq!(kinds(&receiver.taken()), order);
    assert_eq!(receiver.taken().len(), 73);
}
