//! Makes a corpus from what PostgreSQL really sends: every kind of message in all four versions of
//! the protocol, streams and journal blocks of them, and values of many types.
//!
//! `corpus FOLDER` (or `scripts/fuzz --corpus`, which also throws out what adds no coverage).

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use tokio_postgres::{Client, NoTls};
use walmill::cluster::{Cluster, Options};
use walmill::pgoutput::{Message, decode, frame};

/// Every kind of change, also in transactions that are larger than the server's memory.
const WORKLOAD: &str = "
    create publication p for all tables with (publish_via_partition_root = true);
    select pg_create_logical_replication_slot('plain', 'pgoutput');
    select pg_create_logical_replication_slot('prepared', 'pgoutput', false, true);
    create type mood as enum ('sad', 'ok'); create domain cents as bigint;
    create table t (id int primary key, m mood, c cents, n numeric(12,2), v varchar(20)[],
        big text, b bytea, j jsonb, z timestamptz);
    alter table t alter big set storage external;
    create table f (x int, y text); alter table f replica identity full;
    create table p (id int primary key, y text) partition by range (id);
    create table p_1 partition of p for values from (0) to (1000000);
    create table empty ();
    insert into t values (1, 'ok', 7, 1.50, '{a,\"b,c\",NULL}', repeat('0123456789abcdef', 300),
        '\\xdeadbeef', '{\"a\": [1, null]}', '2026-11-24 03:07:13+00');
    insert into f values (1, 'y'), (2, null); insert into p values (1, 'p');
    insert into empty default values;
    update t set n = 2 where id = 1; update t set id = 2 where id = 1;
    update f set y = 'z'; delete from f where x = 1; delete from t;
    begin; insert into t (id) values (3); savepoint a; insert into t (id) values (4);
        rollback to a; insert into t (id) values (5);
        select pg_logical_emit_message(true, 'inside', 'text'); commit;
    select pg_logical_emit_message(false, 'outside', '\\x00ff'::bytea);
    begin; alter table t add extra text; insert into t (id, extra) values (6, 'x'); commit;
    alter table t drop extra; insert into t (id) values (7);
    begin; insert into p select n, 'large' from generate_series(10, 900) n; savepoint a;
        insert into p select n, 'undone' from generate_series(1000, 1900) n; rollback to a;
        select pg_logical_emit_message(true, 'large', 'text'); commit;
    begin; insert into p select n, 'undone' from generate_series(2000, 2900) n; rollback;
    begin; insert into t (id) values (8); prepare transaction 'one'; commit prepared 'one';
    begin; insert into t (id) values (9); prepare transaction 'two'; rollback prepared 'two';
    begin; insert into p select n, 'held' from generate_series(3000, 3900) n;
        prepare transaction 'three'; commit prepared 'three';
    truncate t, f; truncate p restart identity cascade;
    select pg_replication_origin_create('elsewhere');
    select pg_replication_origin_session_setup('elsewhere');
    begin; select pg_replication_origin_xact_setup('0/1234', now());
        insert into f values (3, 'far'); commit;
    select pg_replication_origin_session_reset();";

/// Values by the target's number of their kind.
const VALUES: [(u8, &str); 20] = [
    (0, "select b::text from unnest(array[true, false]) b"),
    (1, "select unnest(array[0, -1, 9223372036854775807])::text"),
    (2, "select unnest(array['NaN', 'Infinity', '-1e300', '0.1']::float8[])::text"),
    (
        3,
        "select unnest(array['infinity', '0044-03-15 BC', '2026-11-24 03:07:13.5']::timestamp[])::text",
    ),
    (
        4,
        "select unnest(array['-infinity', '0044-03-15 BC', '2026-11-24 03:07:13+13']::timestamptz[])::text",
    ),
    (5, "select unnest(array['infinity', '0044-03-15 BC', '2026-11-24']::date[])::text"),
    (6, "select unnest(array['00:00', '24:00', '03:07:13.123456']::time[])::text"),
    (7, "select unnest(array['', 'a\"b\\c', E'\\t\\n\\x01', 'é€😀', '(1,\"x y\")'])"),
    (8, "select unnest(array['NaN', '0.00', '-1e40']::numeric[])::text"),
    (9, "select unnest(array['{\"a\": [1, null]}', '[]', '\"x\"'])"),
    (10, "select unnest(array['\\x', '\\xdeadbeef'])"),
    (11, "select gen_random_uuid()::text"),
    (12, "select '{t,f,NULL}'::bool[]::text"),
    (13, "select unnest(array['{}', '{1,NULL}', '{{1,2},{3,4}}', '[0:1]={1,2}'])"),
    (14, "select '{NaN,1e300,-Infinity}'::float8[]::text"),
    (15, "select '{infinity,2026-11-24 03:07:13}'::timestamp[]::text"),
    (16, "select '{-infinity,2026-11-24 03:07:13+00}'::timestamptz[]::text"),
    (17, "select '{NaN,0.00}'::numeric[]::text"),
    (18, "select array['{\"a\": 1}', '[]']::json[]::text"),
    (19, "select array['a', 'b c', '\"', '\\', '', 'NULL', null, '{}', 'é']::text"),
];

#[tokio::main]
async fn main() {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).expect("corpus FOLDER");
    let options = Options::default()
        .set("logical_decoding_work_mem", "64kB")
        .set("max_prepared_transactions", "5");
    let cluster = Cluster::start(&options).expect("a throw-away PostgreSQL");
    let (client, connection) =
        tokio_postgres::connect(&cluster.url(), NoTls).await.expect("connect");
    tokio::spawn(connection);
    for statement in WORKLOAD.split(';') {
        client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{e:?} in {statement}"));
    }
    for (slot, version, options) in [
        ("plain", 1, ""),
        ("plain", 2, ", 'streaming', 'on'"),
        ("prepared", 3, ", 'streaming', 'on'"),
        ("prepared", 3, ""),
    ] {
        save(&folder, &messages(&client, slot, version, options).await);
    }
    for (kind, sql) in VALUES {
        for row in client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"))
        {
            let mut input = vec![kind];
            input.extend(row.get::<_, String>(0).bytes());
            write(&folder.join("value"), &input);
        }
    }
}

/// What a slot sends, message by message. It stays there.
async fn messages(client: &Client, slot: &str, version: u32, options: &str) -> Vec<Vec<u8>> {
    let sql = format!(
        "select data from pg_logical_slot_peek_binary_changes('{slot}', null, null, \
         'proto_version', '{version}', 'publication_names', 'p', 'messages', 'true'{options})"
    );
    let rows = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// Of many rows in a row a few are enough.
fn save(folder: &Path, messages: &[Vec<u8>]) {
    let (mut kinds, mut stream, mut inserts) = (BTreeSet::new(), Vec::new(), 0);
    for message in messages {
        if kinds.insert((message[0], message.len())) {
            write(&folder.join("message"), message);
        }
        inserts = if message[0] == b'I' { inserts + 1 } else { 0 };
        if inserts > 3 {
            continue;
        }
        stream.push(message.as_slice());
        if matches!(message[0], b'C' | b'c' | b'K' | b'r') {
            save_transaction(folder, &stream);
            stream.retain(|message| matches!(message[0], b'R' | b'Y'));
        }
    }
}

/// Messages as the server frames them, and those of a plain transaction as the journal does.
fn save_transaction(folder: &Path, messages: &[&[u8]]) {
    let mut wire = Vec::new();
    for message in messages {
        let len = u32::try_from(4 + 1 + 24 + message.len()).expect("a short message");
        wire.push(b'd');
        wire.extend(len.to_be_bytes());
        wire.push(b'w');
        wire.extend([0; 24]);
        wire.extend(*message);
    }
    write(&folder.join("stream"), &wire);
    let mut frames = vec![0];
    for message in messages {
        let mut message = message.to_vec();
        // A table with as many columns, or nearly.
        match message[..] {
            [b'I' | b'U' | b'D', ..] => {
                let wide =
                    matches!(decode(&message), Ok(Message::Insert { new, .. }) if new.len() > 3);
                frame::set_row_relation(&mut message, if wide { 2 } else { 1 });
            }
            [b'T', ..] => frame::set_truncate_relation(&mut message, 0, 1),
            [b'B' | b'C' | b'M', ..] => {}
            _ => continue,
        }
        frames.extend(u32::try_from(message.len()).expect("a short message").to_be_bytes());
        frames.extend(message);
    }
    write(&folder.join("block"), &frames);
}

fn write(folder: &Path, input: &[u8]) {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join(format!("{:016x}", hasher.finish())), input).expect("an input");
}
