//! A restart does not forget which try is next, and when.

use walmill::model::Offset;
use walmill::store::failing::Failing;

use super::*;

fn failing(streams: &Streams) -> Vec<(Offset, Failing)> {
    streams.store.failing("billing", "orders", Offset::START).expect("read the store")
}

#[tokio::test]
async fn after_a_restart_an_event_that_is_due_in_an_hour_still_is() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|request| match request.event("subject").as_str() {
        "dead" => Reply::Status(500),
        _ => Reply::Status(200),
    })
    .await;
    streams.commit("orders", &["dead", "dead"]);
    let output = Output::start(&streams, &receiver, "retry.schedule = ['1h', '5h']");
    until("its failure is noted", || !failing(&streams).is_empty()).await;
    output.stop().await;
    let noted = failing(&streams);
    assert_eq!((noted.len(), noted[0].1.attempts), (1, 1));
    let wait = (noted[0].1.due - noted[0].1.first) / 1_000_000;
    assert!((3_600..=4_400).contains(&wait), "{wait} s");

    let mut streams = streams.reopen();
    let back = Receiver::start(|_| Reply::Status(200)).await;
    let output = Output::start(&streams, &back, "retry.schedule = ['1h', '5h']");
    streams.commit("orders", &["a", "b"]);
    until("the others are through", || back.taken().len() == 2).await;
    output.stop().await;
    assert!(back.requests().iter().all(|request| request.event("subject") != "dead"));
    assert_eq!(failing(&streams)[0].1.due, noted[0].1.due);
}

#[tokio::test]
async fn tries_before_and_after_a_restart_count_together_and_stand_in_the_letter() {
    let mut streams = Streams::new();
    let refusing = |_: &Request| Reply::Full(500, String::new(), "not today".into());
    let receiver = Receiver::start(refusing).await;
    let sent = streams.commit("orders", &["dead"]);
    let schedule = "retry.schedule = ['100ms', '100ms', '100ms']";
    let output = Output::start(&streams, &receiver, schedule);
    until("its failure is noted", || !failing(&streams).is_empty()).await;
    output.stop().await;
    let before = receiver.requests().len();

    let streams = streams.reopen();
    let receiver = Receiver::start(refusing).await;
    let output = Output::start(&streams, &receiver, schedule);
    until("it is given up", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    let letters = streams.store.dead_letters(10).unwrap();
    let letter = &letters[0].1;
    assert_eq!((letter.attempts, letter.tries.len()), (4, 4), "{before} before the restart");
    assert_eq!(before + receiver.requests().len(), 4);
    assert!(letter.tries.iter().all(|attempt| {
        attempt.response.as_ref().is_some_and(|response| response.body == "not today")
    }));
    assert!(letter.tries.is_sorted_by_key(|attempt| attempt.time));
    assert!(failing(&streams).is_empty(), "nothing is left of what is done");
}
