//! An output delivers again what it has delivered.

use walmill::model::replay::{Part, ReplayState};

use super::*;

fn billing() -> Part {
    Part::Output("billing".into())
}

fn replayed(request: &Request) -> bool {
    let event: serde_json::Value = serde_json::from_slice(&request.body).expect("an event");
    let says = event["replayed"] == true;
    assert_eq!(says, request.headers.contains_key("walmill-replayed"), "event and header agree");
    says
}

fn state(streams: &Streams) -> ReplayState {
    let replay = streams.store.replay(&billing()).expect("read the store");
    replay.expect("a replay").state
}

fn ask(streams: &Streams, from: Offset, to: Offset) {
    let asked = streams.store.ask_for_replay(billing(), (from, to), (None, None));
    assert!(asked.expect("write the store").is_some(), "another replay is open");
}

#[tokio::test]
async fn a_replay_delivers_again_what_was_asked_for_and_then_what_is_new() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let first = streams.commit("orders", &["a", "b"]);
    let second = streams.commit("orders", &["a", "b"]);
    let third = streams.commit("orders", &["a", "b"]);
    let output = Output::start(&streams, &receiver, "ordering = 'strict'");
    until("all is delivered", || streams.checkpoint("orders") == third.last().copied()).await;
    ask(&streams, first[1], second[1]);
    until("it is through", || state(&streams) == ReplayState::Done).await;
    let new = streams.commit("orders", &["a"]);
    until("what is new has come", || streams.checkpoint("orders") == new.last().copied()).await;
    output.stop().await;
    let came = receiver.taken();
    let all = [&first[..], &second, &third, &second, &new].concat();
    assert_eq!(came.iter().map(|r| r.id().to_owned()).collect::<Vec<_>>(), ids(&all));
    let again: Vec<bool> = came.iter().map(replayed).collect();
    assert_eq!(again, [vec![false; 6], vec![true; 2], vec![false]].concat());
    assert!(came.iter().all(|request| signed_with(request, SECRET)));
}

#[tokio::test]
async fn a_replay_that_is_cancelled_leaves_the_output_where_it_was() {
    let mut streams = Streams::new();
    let hung = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = hung.clone();
    let receiver = Receiver::start(move |request| {
        let again = String::from_utf8_lossy(&request.body).contains("\"replayed\":true");
        flag.fetch_or(again, std::sync::atomic::Ordering::SeqCst);
        Reply::Status(if again { 503 } else { 200 })
    })
    .await;
    let sent = streams.commit("orders", &["a", "b", "c"]);
    let output = Output::start(&streams, &receiver, "");
    until("all is delivered", || streams.checkpoint("orders") == sent.last().copied()).await;
    ask(&streams, Offset::START, sent[2]);
    until("it is under way", || hung.load(std::sync::atomic::Ordering::SeqCst)).await;
    assert!(streams.store.cancel_replay(&billing()).unwrap().is_some());
    until("it is back", || streams.checkpoint("orders") == sent.last().copied()).await;
    let new = streams.commit("orders", &["a"]);
    until("what is new has come", || streams.checkpoint("orders") == new.last().copied()).await;
    output.stop().await;
    assert_eq!(state(&streams), ReplayState::Cancelled);
    let taken: Vec<_> = receiver.taken().iter().map(|r| r.id().to_owned()).collect();
    assert_eq!(taken.len(), 4, "nothing was delivered twice");
}

#[tokio::test]
async fn a_replay_goes_on_after_a_restart() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|request| {
        let again = String::from_utf8_lossy(&request.body).contains("\"replayed\":true");
        Reply::Status(if again { 503 } else { 200 })
    })
    .await;
    let sent = streams.commit("orders", &["a", "b", "c"]);
    let output = Output::start(&streams, &receiver, "");
    until("all is delivered", || streams.checkpoint("orders") == sent.last().copied()).await;
    ask(&streams, Offset::START, sent[1]);
    until("it is under way", || state(&streams) == ReplayState::Running).await;
    output.stop().await;
    let streams = streams.reopen();
    let back = Receiver::start(|_| Reply::Status(200)).await;
    let output = Output::start(&streams, &back, "");
    until("it is through", || state(&streams) == ReplayState::Done).await;
    output.stop().await;
    let came = back.taken();
    assert_eq!(came.len(), 2, "and not what lies behind the replay's end");
    assert!(came.iter().all(replayed));
}
