"""The accounting service: what each customer has paid, from the stream of order events alone.

    python accounting.py redis|kafka|nats BOOKS [EVENTS]

keeps its books in the SQLite file BOOKS, goes on where it was when it is started again, and builds
everything anew from the stream when the file is gone. With EVENTS it prints the books and ends once
it has that many; without, it goes on for ever."""

import json
import os
import sqlite3
import sys


class Books:
    """Balances, the ids of events that are in them, and the place in the stream: changed together,
    so that a crash between any two steps loses and doubles nothing."""

    def __init__(self, path):
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.executescript(
            """
            create table if not exists balance (customer text primary key, cents integer not null);
            create table if not exists seen (id text primary key);
            create table if not exists place (part text primary key, at text not null);
            """
        )

    def places(self):
        return dict(self.db.execute("select part, at from place"))

    def count(self):
        return self.db.execute("select count(*) from seen").fetchone()[0]

    def take(self, part, at, event_id, data):
        self.db.execute("begin")
        # walmill delivers at least once, and an event that comes again has the same id.
        new = self.db.execute("insert or ignore into seen values (?)", [event_id]).rowcount
        if new:
            self.book(data["record"])
        self.db.execute("insert or replace into place values (?, ?)", [part, at])
        self.db.execute("commit")

    def book(self, event):
        sign = {"placed": 0, "paid": 1, "refunded": -1}[event["kind"]]
        self.db.execute(
            "insert into balance values (?, ?)"
            " on conflict (customer) do update set cents = cents + excluded.cents",
            [event["customer"], sign * event["cents"]],
        )

    def show(self):
        balances = self.db.execute("select customer, cents from balance order by customer")
        return {customer: cents for customer, cents in balances}


def from_redis(places):
    import redis

    server = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
    key = "orders:events"
    at = places.get(key, "0")
    while True:
        for _, entries in server.xread({key: at}, count=500, block=1000) or []:
            for at, fields in entries:
                at = at.decode()
                yield key, at, fields[b"id"].decode(), json.loads(fields[b"data"])


def from_kafka(places):
    from confluent_kafka import Consumer, TopicPartition

    topic = "orders.events"
    consumer = Consumer(
        {"bootstrap.servers": os.environ["KAFKA_BROKERS"], "group.id": "accounting",
         "enable.auto.commit": False}
    )
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    # The place is in the books, not at the broker.
    consumer.assign([TopicPartition(topic, p, int(places.get(str(p), "0"))) for p in partitions])
    while True:
        message = consumer.poll(1)
        if message is None or message.error():
            continue
        headers = dict(message.headers())
        part, behind = str(message.partition()), str(message.offset() + 1)
        yield part, behind, headers["ce_id"].decode(), json.loads(message.value())


def from_nats(places):
    import asyncio

    import nats
    from nats.js.api import ConsumerConfig, DeliverPolicy

    loop = asyncio.new_event_loop()

    async def subscribe():
        client = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
        start = int(places.get("ORDERS", "0")) + 1
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=start)
        return await client.jetstream().subscribe(
            "orders.>", stream="ORDERS", ordered_consumer=True, config=config
        )

    subscription = loop.run_until_complete(subscribe())
    while True:
        message = loop.run_until_complete(subscription.next_msg(timeout=None))
        at = str(message.metadata.sequence.stream)
        yield "ORDERS", at, message.headers["Nats-Msg-Id"], json.loads(message.data)


def main(broker, path, events=None):
    books = Books(path)
    stream = {"redis": from_redis, "kafka": from_kafka, "nats": from_nats}[broker]
    if events is None or books.count() < int(events):
        for part, at, event_id, data in stream(books.places()):
            books.take(part, at, event_id, data)
            if events is not None and books.count() >= int(events):
                break
    print(json.dumps(books.show()))


main(*sys.argv[1:])
