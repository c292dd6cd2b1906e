//! One fault after the other, in one database: found, mended by the SQL that is suggested, gone.

use super::{CONFIG, Patient, text};
use crate::support::execute;

/// A fault that SQL makes and the suggested SQL mends.
struct Fault {
    code: &'static str,
    sql: &'static str,
    /// What makes the database healthy again, behind the remedy.
    after: &'static str,
}

const fn fault(code: &'static str, sql: &'static str, after: &'static str) -> Fault {
    Fault { code, sql, after }
}

const SET: &[Fault] = &[
    fault("keep-size-unlimited", "max_slot_wal_keep_size = -1", ""),
    fault("keep-size-small", "max_slot_wal_keep_size = '100MB'", ""),
    fault("wal-sender-timeout", "wal_sender_timeout = '1s'", ""),
    fault("wal-sender-timeout", "wal_sender_timeout = 0", ""),
    fault("decoding-memory", "logical_decoding_work_mem = '1MB'", ""),
];

const RUN: &[Fault] = &[
    fault("role-replication", "alter role walmill noreplication", ""),
    fault("slot-missing", "select pg_drop_replication_slot('walmill')", ""),
    fault("publication-missing", "drop publication walmill", ""),
    fault("publication-tables", "alter publication walmill drop table b", ""),
    fault(
        "publication-operations",
        "alter publication walmill set (publish = 'insert, update')",
        "",
    ),
    fault(
        "publication-root",
        "create table log (id int primary key) partition by range (id);
         create table log_1 partition of log for values from (0) to (10);
         alter publication walmill add table log;
         alter publication walmill set (publish_via_partition_root = false)",
        "drop table log",
    ),
    fault(
        "publication-filter",
        "alter publication walmill drop table b;
         alter publication walmill add table b where (note <> '')",
        "alter publication walmill drop table b; alter publication walmill add table b;
         alter table b replica identity default",
    ),
    fault(
        "publication-columns",
        "alter publication walmill drop table b;
         alter publication walmill add table b (note)",
        "alter publication walmill drop table b; alter publication walmill add table b",
    ),
    fault(
        "no-identity",
        "create table n (x int); alter publication walmill add table n",
        "drop table n",
    ),
    fault(
        "no-identity",
        "create table n (x int primary key deferrable); alter publication walmill add table n",
        "drop table n",
    ),
    fault(
        "identity-nothing",
        "alter table b replica identity nothing",
        "alter table b replica identity default",
    ),
    fault(
        "identity-index",
        "create unique index b_id on b (id); alter table b replica identity using index b_id;
         drop index b_id",
        "alter table b replica identity default",
    ),
    fault(
        "toast",
        "insert into b select 1, string_agg(md5(n::text), '') from generate_series(1, 2000) n",
        "alter table b replica identity default; truncate b",
    ),
];

#[tokio::test]
async fn each_fault_is_found_and_mended_by_the_sql_that_is_suggested() {
    let patient = Patient::healthy().await;
    let since_18 = fault("idle-slot-timeout", "idle_replication_slot_timeout = '1h'", "");
    let newest = patient.version().await >= 18;
    for Fault { code, sql, .. } in SET.iter().chain(newest.then_some(&since_18)) {
        patient.run(&format!("ALTER SYSTEM SET {sql}; select pg_reload_conf()")).await;
        mends(&patient, code).await;
    }
    for Fault { code, sql, after } in RUN {
        patient.run(&sql.replace('\n', " ")).await;
        mends(&patient, code).await;
        patient.run(&after.replace('\n', " ")).await;
        assert_eq!(patient.codes(), Vec::<String>::new(), "after {code}");
    }
}

/// It is found, and gone when what is suggested was run.
async fn mends(patient: &Patient, code: &str) {
    let finding = patient.finding(code);
    patient.run(&text(&finding, "suggestion")).await;
    let codes = patient.codes();
    assert!(!codes.contains(&code.to_owned()), "{code} is still there after {finding}");
}

#[tokio::test]
async fn what_the_config_names_and_has_no_changes_is_said() {
    let mut patient = Patient::healthy().await;
    let sql = "create view v as select 1 as x; create unlogged table u (id int primary key);
         create extension postgres_fdw; create server s foreign data wrapper postgres_fdw;
         create foreign table f (x int) server s;
         create table log (id int primary key) partition by range (id);
         create table log_1 partition of log for values from (0) to (10);
         create table parent (id int primary key); create table heir () inherits (parent);
         alter table heir replica identity full;
         alter publication walmill add table only log, parent";
    patient.run(&sql.replace('\n', " ")).await;
    let tables = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("\"public.{name}\"")).collect();
        format!("create_slot = false\ntables = [{}]", names.join(", "))
    };
    let healthy = patient.config.clone();
    for (names, code) in [
        (&["a", "bb"][..], "table-missing"),
        (&["a", "c*"], "table-missing"),
        (&["v"], "not-a-table"),
        (&["u"], "unlogged"),
        (&["f"], "foreign-table"),
        (&["log", "log_1"], "partition"),
        (&["parent"], "inherited"),
    ] {
        patient.config = healthy.replace("create_slot = false", &tables(names));
        assert_eq!(patient.codes(), [code], "{names:?}");
    }
    let meant = healthy.replace("create_slot = false", &tables(&["aa", "a", "b"]));
    patient.config = meant;
    assert_eq!(text(&patient.finding("table-missing"), "suggestion"), "did you mean `public.a`?");
    patient.config = healthy.replace("create_slot = false", &tables(&["u"]));
    mends(&patient, "unlogged").await;
}

#[tokio::test]
async fn what_the_role_lacks_to_make_the_publication_is_said() {
    let mut patient = Patient::healthy().await;
    patient.run("drop publication walmill").await;
    patient.config = patient.config.replace("create_publication = false", "");
    assert_eq!(patient.codes(), ["role-create", "role-owner"]);
    mends(&patient, "role-create").await;
    assert_eq!(patient.codes(), ["role-owner"]);
    mends(&patient, "role-owner").await;
    assert_eq!(patient.codes(), Vec::<String>::new());
    // What it will do by itself at its start is no finding.
    patient.run("drop publication walmill; alter table a owner to walmill").await;
    patient.run("alter table b owner to walmill").await;
    assert_eq!(patient.codes(), Vec::<String>::new());
    patient.config = CONFIG.replace("DATABASE", &patient.cluster.url());
    patient.run("create publication walmill for table a, b").await;
    assert_eq!(patient.codes(), ["role-superuser"]);
}

#[tokio::test]
async fn what_holds_up_the_making_of_a_slot_is_said() {
    let options = walmill::cluster::Options::default().set("max_prepared_transactions", "2");
    let mut patient = Patient::with(options).await;
    patient.config = patient.config.replace("create_slot = false", "");
    patient.run("select pg_drop_replication_slot('walmill')").await;
    assert_eq!(patient.codes(), Vec::<String>::new());
    patient.run("begin; insert into a values (1); prepare transaction 'it''s one'").await;
    mends(&patient, "prepared-transaction").await;
    let other = crate::support::connect(&patient.cluster).await;
    execute(&other, "begin; insert into a values (2)").await;
    // Others' transactions are shown to superusers only.
    patient.config = CONFIG.replace("DATABASE", &patient.cluster.url());
    let patience = std::time::Instant::now() + crate::support::process::PATIENCE;
    while !patient.codes().contains(&"old-transaction".into()) {
        assert!(std::time::Instant::now() < patience, "never an old transaction");
    }
    mends(&patient, "old-transaction").await;
}
