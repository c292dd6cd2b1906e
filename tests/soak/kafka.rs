//! Kafka: librdkafka's mock cluster, whose brokers go and come back.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{Offset, TopicPartitionList};

use crate::ledger::Book;
use crate::promise::Promise;

/// A cluster.
pub type Mock = MockCluster<'static, DefaultProducerContext>;

const TOPIC: &str = "walmill.stamped";
const PARTITIONS: i32 = 3;
const BROKERS: std::ops::RangeInclusive<i32> = 1..=3;

/// Three brokers and a topic.
pub fn start() -> Mock {
    let cluster = MockCluster::new(3).expect("a mock cluster");
    cluster.create_topic(TOPIC, PARTITIONS, 3).expect("a topic");
    cluster
}

/// Their addresses as in the config.
pub fn brokers(cluster: &Mock) -> String {
    cluster.bootstrap_servers().replace(',', "\", \"")
}

/// All brokers are gone.
pub fn stop(cluster: &Mock) {
    BROKERS.for_each(|broker| cluster.broker_down(broker).expect("a broker that goes"));
}

/// They are back.
pub fn go_on(cluster: &Mock) {
    BROKERS.for_each(|broker| cluster.broker_up(broker).expect("a broker that comes"));
}

/// Reads the topic as long as the program runs, on a thread of its own.
pub fn consume(cluster: &Mock, book: Book) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "soak")
        .set("auto.offset.reset", "error")
        // A broker that goes while it is asked is asked again soon.
        .set("socket.timeout.ms", "2000")
        .set("reconnect.backoff.max.ms", "200")
        .set("topic.metadata.refresh.interval.ms", "500")
        .set_log_level(RDKafkaLogLevel::Emerg)
        .create()
        .expect("a consumer");
    let mut places = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        places.add_partition_offset(TOPIC, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&places).expect("its partitions");
    std::thread::spawn(move || {
        loop {
            let message = match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => message,
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                    let what = "the mock broker has forgotten events that were not read yet";
                    book.breaks(Promise::NothingLost, what);
                    return;
                }
                // While brokers are away there are errors, which pass.
                Some(Err(_)) | None => continue,
            };
            let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            let id = headers.filter(|header| header.key == "ce_id").find_map(|id| id.value);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let body = message.payload().map(text).unwrap_or_default();
            book.arrived(&id.map(text).unwrap_or_default(), &body);
        }
    });
}
