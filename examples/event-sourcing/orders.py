"""The order service: people place orders, pay most of them and want some of the money back.

    python orders.py EVENTS

writes so many events to the database that DATABASE_URL names. It knows nothing of walmill, of a
broker, or of who else is interested."""

import os
import random
import sys
import uuid

import psycopg

CUSTOMERS = [("ada", "nz"), ("grace", "us"), ("linus", "fi"), ("ken", "us"), ("barbara", "nz")]


def story():
    """The events of one order."""
    order, (customer, region) = uuid.uuid4(), random.choice(CUSTOMERS)
    cents = random.randrange(100, 50_000)
    yield order, "placed", customer, region, cents
    if random.random() < 0.8:
        yield order, "paid", customer, region, cents
        if random.random() < 0.2:
            yield order, "refunded", customer, region, random.randrange(cents + 1)


def main(events):
    insert = (
        "insert into order_events (order_id, kind, customer, region, cents)"
        " values (%s, %s, %s, %s, %s)"
    )
    with psycopg.connect(os.environ["DATABASE_URL"]) as database:
        while events > 0:
            # An order's events are committed together, or not at all.
            with database.transaction():
                for event in list(story())[:events]:
                    database.execute(insert, event)
                    events -= 1


main(int(sys.argv[1]))
