//! Kafka: librdkafka's mock cluster, which speaks the real protocol and fails as a test says.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use walmill::output::kafka::{Config, Kafka};

use super::{KEYS, write};
use crate::support::outputs::{Running, Streams, ids};
use crate::support::process::PATIENCE;
use crate::support::until;

type Mock = MockCluster<'static, DefaultProducerContext>;

const TOPIC: &str = "walmill.orders";

fn cluster() -> Mock {
    let cluster = MockCluster::new(3).expect("a mock cluster");
    cluster.create_topic(TOPIC, 4, 3).expect("a topic");
    cluster
}

fn output(streams: &Streams, cluster: &Mock, more: &str) -> Running {
    output_to(streams, &cluster.bootstrap_servers(), more)
}

fn output_to(streams: &Streams, brokers: &str, more: &str) -> Running {
    let brokers: Vec<_> = brokers.split(',').map(|broker| format!("'{broker}'")).collect();
    let which = if more.contains("streams =") { "" } else { "streams = ['orders']" };
    let config = format!(
        "name = 'billing'\n{which}\nbrokers = [{}]\n\
         retry = {{ initial = '5ms', max = '50ms' }}\n\
         properties.'topic.metadata.propagation.max.ms' = '200'\n\
         properties.'reconnect.backoff.max.ms' = '200'\n{more}",
        brokers.join(", ")
    );
    let config: Config = toml::from_str(&config).expect("a config");
    let output = Kafka::new(&config, "shop").expect("an output");
    Running::of(streams, config.delivery.config(), output)
}

/// What a consumer sees of a message.
struct Seen {
    partition: i32,
    key: String,
    body: Option<String>,
    headers: HashMap<String, String>,
}

/// All messages of a topic, of each partition in order, so many different ones at least.
fn consume(cluster: &Mock, topic: &str, count: usize) -> Vec<Seen> {
    consume_from(&cluster.bootstrap_servers(), topic, count)
}

fn consume_from(brokers: &str, topic: &str, count: usize) -> Vec<Seen> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("test-{topic}"))
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "false")
        .set_log_level(RDKafkaLogLevel::Error)
        .create()
        .expect("a consumer");
    consumer.subscribe(&[topic]).expect("subscribe");
    let (mut seen, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    let mut different = HashSet::new();
    loop {
        let next = consumer.poll(Duration::from_millis(200));
        let Some(Ok(message)) = next else {
            if different.len() >= count {
                return seen;
            }
            assert!(Instant::now() < deadline, "{} of {count} messages came", different.len());
            continue;
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let message = Seen {
            partition: message.partition(),
            key: message.key().map(text).unwrap_or_default(),
            body: message.payload().map(text),
            headers: headers
                .map(|header| (header.key.to_owned(), header.value.map(text).unwrap_or_default()))
                .collect(),
        };
        different.insert(message.headers.get("ce_id").cloned());
        seen.push(message);
    }
}

fn arrived(seen: &[Seen]) -> Vec<(String, String)> {
    seen.iter().map(|message| (message.key.clone(), message.headers["ce_id"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_a_message_with_its_attributes_and_its_key_decides_the_partition() {
    let cluster = cluster();
    let mut streams = Streams::new();
    let rows: Vec<_> = KEYS.iter().chain(&KEYS).map(|key| (*key, json!({ "r": "é" }))).collect();
    let sent = streams.commit_rows("orders", &rows);
    let output = output(&streams, &cluster, "");
    until("all are stored", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    let seen = consume(&cluster, TOPIC, rows.len());
    let mut partitions: HashMap<&str, i32> = HashMap::new();
    for message in &seen {
        let partition = *partitions.entry(&message.key).or_insert(message.partition);
        assert_eq!(partition, message.partition);
        assert_eq!(message.headers["ce_specversion"], "1.0");
        assert_eq!(message.headers["ce_subject"], message.key);
        assert_eq!(message.headers["content-type"], "application/json");
        let body = message.body.as_deref().expect("a body");
        let data: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(data["record"], json!({ "r": "é" }));
    }
    assert_eq!(partitions.len(), KEYS.len());
    let mut came: Vec<_> = arrived(&seen).into_iter().map(|(_, id)| id).collect();
    came.sort();
    let mut owed = ids(&sent);
    owed.sort();
    assert_eq!(came, owed);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_two_pipelines_made_of_one_change_are_both_produced() {
    let cluster = cluster();
    let mut streams = Streams::new();
    let keys = ["public.orders/1", "public.orders/2"];
    let last = streams.commit("orders", &keys).last().copied();
    streams.commit_twins("audit", &keys);
    let more = format!("streams = ['orders', 'audit']\ntopic = '{TOPIC}'");
    let output = output(&streams, &cluster, &more);
    for stream in ["orders", "audit"] {
        until("both streams are there", || streams.checkpoint(stream) == last).await;
    }
    output.stop().await;
    let seen = consume(&cluster, TOPIC, keys.len());
    let of = |stream: &str| seen.iter().filter(|one| one.headers["ce_stream"] == stream).count();
    assert_eq!((of("orders"), of("audit")), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_go_and_come_back_get_every_event_once_and_each_key_in_order() {
    let cluster = cluster();
    let mut streams = Streams::new();
    let output = output(&streams, &cluster, "timeout = '300ms'");
    let mut sent = write(&mut streams, 200);
    until("all are stored", || streams.checkpoint("orders") == sent.last).await;
    for _ in 0..3 {
        for broker in 1..=3 {
            cluster.broker_down(broker).expect("a broker that goes");
        }
        sent.extend(write(&mut streams, 200));
        let error = output.error().await;
        assert!(error.contains("no answer within 300ms"), "{error}");
        for broker in 1..=3 {
            cluster.broker_up(broker).expect("a broker that comes");
        }
        until("all are stored", || streams.checkpoint("orders") == sent.last).await;
        until("nothing is wrong", || output.status.borrow().error.is_none()).await;
    }
    output.stop().await;
    let arrived = arrived(&consume(&cluster, TOPIC, sent.count()));
    sent.check(&arrived);
    assert_eq!(arrived.len(), sent.count(), "an outage makes no duplicates");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_cannot_do_for_a_moment_is_tried_again_in_order() {
    let cluster = cluster();
    let mut streams = Streams::new();
    let output = output(&streams, &cluster, "");
    let mut sent = super::Sent::default();
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ] {
        cluster.request_errors(RDKafkaApiKey::Produce, &[error; 3]);
        sent.extend(write(&mut streams, 100));
        until("all are stored", || streams.checkpoint("orders") == sent.last).await;
    }
    assert_eq!(output.status.borrow().dead_letters, 0);
    output.stop().await;
    sent.check(&arrived(&consume(&cluster, TOPIC, sent.count())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_is_fenced_makes_room_for_another_and_nothing_is_lost() {
    let cluster = cluster();
    let mut streams = Streams::new();
    let output = output(&streams, &cluster, "");
    let mut sent = write(&mut streams, 100);
    until("all are stored", || streams.checkpoint("orders") == sent.last).await;
    let fenced = RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[fenced]);
    sent.extend(write(&mut streams, 100));
    until("it failed", || output.status.borrow().failed > 0).await;
    until("all are stored", || streams.checkpoint("orders") == sent.last).await;
    assert_eq!(output.status.borrow().dead_letters, 0);
    output.stop().await;
    sent.check(&arrived(&consume(&cluster, TOPIC, sent.count())));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_large_becomes_a_dead_letter_and_the_rest_goes_on() {
    let cluster = cluster();
    let mut streams = Streams::new();
    let large = json!({ "text": "x".repeat(20_000) });
    let rows = [(KEYS[0], json!({})), (KEYS[0], large), (KEYS[0], json!({})), (KEYS[1], json!({}))];
    let sent = streams.commit_rows("orders", &rows);
    let output = output(&streams, &cluster, "properties.'message.max.bytes' = '10000'");
    until("the rest is stored", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    let letters = streams.store.dead_letters(10).unwrap();
    let [(_, letter)] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(letter.event, ids(&sent)[1]);
    assert!(letter.reason.contains("too large"), "{}", letter.reason);
    let mut came: Vec<_> =
        consume(&cluster, TOPIC, 3).iter().map(|m| m.headers["ce_id"].clone()).collect();
    came.sort();
    let owed = ids(&sent);
    assert_eq!(came, [&owed[0], &owed[2], &owed[3]].map(String::clone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_large_for_a_broker_goes_in_pieces() {
    let cluster = cluster();
    let mut streams = Streams::new();
    let sent = write(&mut streams, 3);
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[too_large]);
    let output = output(&streams, &cluster, "");
    until("all are stored", || streams.checkpoint("orders") == sent.last).await;
    assert_eq!(output.status.borrow().dead_letters, 0);
    output.stop().await;
    let seen = consume(&cluster, TOPIC, sent.count());
    sent.check(&arrived(&seen));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_gone_is_said_and_waited_for() {
    let cluster = cluster();
    let gone = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.topic_error(TOPIC, gone).expect("an error");
    let mut streams = Streams::new();
    let sent = write(&mut streams, 50);
    let output = output(&streams, &cluster, "timeout = '2s'");
    let error = output.error().await;
    assert!(error.contains("no such topic"), "{error}");
    let healed = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    cluster.topic_error(TOPIC, healed).expect("no error");
    until("all are stored", || streams.checkpoint("orders") == sent.last).await;
    output.stop().await;
    sent.check(&arrived(&consume(&cluster, TOPIC, sent.count())));
}

#[tokio::test(flavor = "multi_thread")]
async fn debezium_s_format_has_the_row_s_key_and_no_headers() {
    let cluster = cluster();
    let mut streams = Streams::new();
    let sent = streams.commit_rows("orders", &[(KEYS[0], json!({ "id": 1 }))]);
    let output = output(&streams, &cluster, "format = 'debezium'");
    until("it is stored", || streams.checkpoint("orders") == sent.last().copied()).await;
    output.stop().await;
    let seen = &consume(&cluster, TOPIC, 1)[0];
    let key = json!({ "id": KEYS[0] }).to_string();
    assert_eq!((seen.key.as_str(), seen.headers.len()), (key.as_str(), 0));
    let body: serde_json::Value = serde_json::from_str(seen.body.as_deref().unwrap()).unwrap();
    assert_eq!((&body["op"], &body["after"]), (&json!("c"), &json!({ "id": 1 })));
    assert_eq!(body["source"]["db"], "shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_broker_than_librdkafka_s_own_gets_every_event_and_each_key_in_order() {
    let Some(server) = super::server::kafka().map(|server| server.with(&[])) else { return };
    let brokers = format!("127.0.0.1:{}", server.port);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().expect("a client");
    let topic = NewTopic::new(TOPIC, 3, TopicReplication::Fixed(1));
    let made = admin.create_topics([&topic], &AdminOptions::new()).await.expect("an answer");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let mut streams = Streams::new();
    let output = output_to(&streams, &brokers, "");
    let sent = write(&mut streams, 500);
    until("all are stored", || streams.checkpoint("orders") == sent.last).await;
    output.stop().await;
    let seen = consume_from(&brokers, TOPIC, sent.count());
    assert_eq!(seen[0].headers["ce_specversion"], "1.0");
    sent.check(&arrived(&seen));
}
