//! How events are written, what answers mean, and receivers that do not keep to anything.

use serde_json::{Value, json};

use super::*;

fn header<'a>(request: &'a Request, name: &str) -> &'a str {
    request.headers.get(name).map_or("", String::as_str)
}

fn events_in(request: &Request) -> Vec<Value> {
    serde_json::from_slice(&request.body).expect("an array of events")
}

#[tokio::test]
async fn in_binary_mode_attributes_are_headers_and_the_data_is_the_body_that_is_signed() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Status(204)).await;
    let sent = streams.commit("orders", &["public.orders/é"]);
    let output = Output::start(&streams, &receiver, "mode = 'binary'");
    until("it was taken", || receiver.taken().len() == 1).await;
    output.stop().await;
    let request = &receiver.requests()[0];
    assert_eq!(header(request, "ce-id"), ids(&sent)[0]);
    assert_eq!(header(request, "ce-subject"), "public.orders/%C3%A9");
    assert_eq!(header(request, "ce-type"), "walmill.row.insert");
    assert_eq!((request.id(), header(request, "ce-specversion")), (&*ids(&sent)[0], "1.0"));
    let data: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!((&data["key"]["id"], &data["op"]), (&json!("public.orders/é"), &json!("insert")));
    assert!(signed_with(request, SECRET));
}

#[tokio::test]
async fn in_batch_mode_many_events_come_in_one_body_in_their_order() {
    let mut streams = Streams::new();
    let mut tries = 0;
    let receiver = Receiver::start(move |_| {
        tries += 1;
        Reply::Status(if tries % 3 == 1 { 503 } else { 200 })
    })
    .await;
    let keys: Vec<String> = (0..50).map(|key| format!("public.orders/{}", key % 5)).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let sent = streams.commit("orders", &keys);
    let more = "mode = 'batch'\nbatch = { events = 20, linger = '5ms' }\nconcurrency = 2";
    let output = Output::start(&streams, &receiver, more);
    until("all is delivered", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    let taken = receiver.taken();
    assert!(taken.len() < sent.len(), "some came together");
    let mut by_key: HashMap<String, Vec<String>> = HashMap::new();
    for request in &taken {
        assert_eq!(header(request, "content-type"), "application/cloudevents-batch+json");
        assert!(signed_with(request, SECRET));
        let events = events_in(request);
        assert!((1..=20).contains(&events.len()));
        for event in events {
            let text = |member: &str| event[member].as_str().expect("a text").to_owned();
            by_key.entry(text("subject")).or_default().push(text("id"));
        }
    }
    let ids = ids(&sent);
    for (key, came) in by_key {
        let owed: Vec<_> =
            keys.iter().zip(&ids).filter(|(own, _)| **own == key).map(|(_, id)| id).collect();
        assert_eq!(came.iter().collect::<Vec<_>>(), owed, "{key}");
    }
}

#[tokio::test]
async fn one_event_that_is_refused_in_a_batch_is_set_aside_alone() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|request| {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        Reply::Status(if text.contains("poison") { 422 } else { 200 })
    })
    .await;
    let keys = ["a", "b", "poison", "c", "d"];
    let sent = streams.commit("orders", &keys);
    let more = "mode = 'batch'\nbatch.linger = '5ms'\non_status = { 422 = 'dead-letter' }";
    let output = Output::start(&streams, &receiver, more);
    until("all is done", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    let letters = streams.store.dead_letters(10).unwrap();
    assert_eq!(letters.iter().map(|(_, l)| &l.event).collect::<Vec<_>>(), [&ids(&sent)[2]]);
    let came: HashSet<String> = receiver
        .taken()
        .iter()
        .flat_map(events_in)
        .map(|event| event["subject"].as_str().expect("a text").to_owned())
        .collect();
    assert_eq!(came, ["a", "b", "c", "d"].map(str::to_owned).into());
}

#[tokio::test]
async fn the_config_says_what_a_status_means() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|request| match request.event("subject").as_str() {
        "known" => Reply::Status(409),
        "bad" => Reply::Status(400),
        _ => Reply::Status(404),
    })
    .await;
    let sent = streams.commit("orders", &["known", "bad"]);
    let more = "on_status = { 409 = 'taken', 4xx = 'dead-letter', 404 = 'stop' }";
    let output = Output::start(&streams, &receiver, more);
    until("both are done", || streams.checkpoint("orders") == sent.last().copied()).await;
    streams.commit("orders", &["gone"]);
    assert!(output.error().await.contains("400") || output.error().await.contains("404"));
    until("the third has come", || receiver.requests().len() == 3).await;
    output.stop().await;
    assert_eq!(streams.store.dead_letters(10).unwrap().len(), 1);
    assert_eq!(streams.checkpoint("orders"), sent.last().copied());
}

#[tokio::test]
async fn without_order_an_event_that_fails_holds_up_no_other_of_its_key() {
    let mut streams = Streams::new();
    let mut first = None;
    let receiver = Receiver::start(move |request| {
        let first: &String = first.get_or_insert_with(|| request.id().to_owned());
        Reply::Status(if first == request.id() { 500 } else { 200 })
    })
    .await;
    streams.commit("orders", &["a", "a", "a", "a"]);
    let output = Output::start(&streams, &receiver, "ordering = 'none'\nconcurrency = 1");
    until("the others are through", || receiver.taken().len() == 3).await;
    output.stop().await;
    assert_eq!(streams.checkpoint("orders"), None);
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_the_others_nothing() {
    let mut streams = Streams::new();
    let hanging = Receiver::start(|_| Reply::Hang).await;
    let well = Receiver::start(|_| Reply::Status(200)).await;
    let with = |name: &str, receiver: &Receiver| {
        format!(
            "name = '{name}'\nstreams = ['orders']\nurl = '{}'\nsecret = '{SECRET}'\n\
             allow_private = true",
            receiver.url()
        )
    };
    let keys: Vec<String> = (0..500).map(|key| key.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let hung = Output::with(&streams, &with("hanging", &hanging));
    let other = Output::with(&streams, &with("billing", &well));
    let sent = streams.commit("orders", &keys);
    until("it hangs", || !hanging.requests().is_empty()).await;
    until("the other has all", || streams.checkpoint("orders") == sent.last().copied()).await;
    assert_eq!(well.taken().len(), keys.len());
    assert!(hanging.requests().len() <= 8, "no more are under way than may be at a time");
    other.stop().await;
    hung.task.abort();
}

#[tokio::test]
async fn an_answer_that_does_not_begin_in_time_is_a_failure_of_its_own() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Hang).await;
    streams.commit("orders", &["a"]);
    let output = Output::start(&streams, &receiver, "timeout = '1h'\nheader_timeout = '20ms'");
    assert!(output.error().await.contains("no headers within 20ms"));
    output.task.abort();
}

#[tokio::test]
async fn an_answer_that_does_not_end_in_time_is_a_failure_of_its_own() {
    let mut streams = Streams::new();
    let receiver = Receiver::start(|_| Reply::Hang).await;
    streams.commit("orders", &["a"]);
    let output = Output::start(&streams, &receiver, "timeout = '20ms'\nheader_timeout = '1h'");
    let error = output.error().await;
    assert!(error.contains("no answer") && !error.contains("no headers"), "{error}");
    output.task.abort();
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_in_time_is_a_failure_of_its_own() {
    let mut streams = Streams::new();
    // Nobody accepts, and the kernel's queue has room for one: further ones are never answered.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let queued = std::net::TcpStream::connect(address).unwrap();
    streams.commit("orders", &["a"]);
    let config = format!(
        "name = 'billing'\nstreams = ['orders']\nurl = 'http://{address}/'\nsecret = '{SECRET}'\n\
         allow_private = true\nconnect_timeout = '20ms'\ntimeout = '1h'"
    );
    let output = Output::with(&streams, &config);
    let error = output.error().await;
    assert!(error.contains("no answer"), "{error}");
    output.task.abort();
    drop(queued);
}
