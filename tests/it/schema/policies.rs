//! What a pipeline's policy makes of a table that is defined otherwise: it waits, or sets rows
//! aside, until a person accepts it.

use std::process::{Command, Output};

use expect_test::expect;
use serde_json::Value;

use super::{SOURCE, events, lines, pipeline, shown};
use crate::support::process::Walmill;
use crate::support::{cluster, connect, execute};

/// `walmill pipeline accept-schema`
fn accept(walmill: &Walmill, name: &str) -> Output {
    let config = walmill.folder().join("walmill.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_walmill"));
    command.args(["pipeline", "accept-schema", name, "--config"]).arg(config);
    command.output().expect("run walmill")
}

/// Kills walmill and starts it again, until it answers: a pipeline that waits is not ready.
async fn restart(walmill: &mut Walmill) {
    walmill.kill();
    walmill.launch();
    let answers = async {
        while reqwest::get(walmill.url("/livez")).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let answered = tokio::time::timeout(crate::support::process::PATIENCE, answers).await;
    assert!(answered.is_ok(), "{}", walmill.log());
}

fn stopped(status: &Value, name: &str) -> Option<String> {
    let pipelines = status["pipelines"].as_array().expect("pipelines");
    let pipeline =
        pipelines.iter().find(|pipeline| pipeline["name"] == name).expect("the pipeline");
    pipeline["stopped"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_halts_waits_before_the_change_until_it_is_accepted() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key)").await;
    let config = SOURCE.to_owned()
        + &pipeline("careful", "on_schema_change = \"halt\"")
        + &pipeline("easy", "");
    let mut walmill = Walmill::start(&config, &cluster.url()).await;
    execute(
        &client,
        "begin; insert into t values (1); alter table t add note text;
         insert into t values (2, 'x'); alter table t add more text;
         insert into t values (3, 'y', 'z'); commit",
    )
    .await;
    assert_eq!(events(&walmill, "easy", 5).await.len(), 5);
    for _ in 0..2 {
        let halted = |status: &Value| stopped(status, "careful").is_some();
        walmill.wait_for("/api/v1/status", halted).await;
        let status = walmill.json("/api/v1/status").await;
        let reason = stopped(&status, "careful").expect("a reason");
        assert!(reason.contains("the definition of public.t changed at"), "{reason}");
        assert!(reason.contains("column `note` text is new"), "{reason}");
        assert!(reason.contains("`walmill pipeline accept-schema careful`"), "{reason}");
        assert_eq!(stopped(&status, "easy"), None);
        assert_eq!(walmill.json("/readyz").await["status"], "not ready");
        let metrics = walmill.text("/metrics").await;
        for line in [
            "walmill_pipeline_running{name=\"careful\"} 0",
            "walmill_pipeline_running{name=\"easy\"} 1",
            "walmill_pipeline_schema_changes{name=\"careful\"} 1",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
        }
        assert_eq!(events(&walmill, "careful", 1).await.len(), 1);
        // A restart changes nothing of it.
        restart(&mut walmill).await;
    }
    let waiting = |status: &Value| stopped(status, "careful").is_some();
    walmill.wait_for("/api/v1/status", waiting).await;
    let accepted = accept(&walmill, "careful");
    assert!(accepted.status.success(), "{accepted:?}");
    let said = String::from_utf8(accepted.stdout).expect("text");
    assert!(said.starts_with("public.t: column `note` text is new (at "), "{said}");
    // What was accepted is one change, not the ones behind it.
    let next = |status: &Value| {
        stopped(status, "careful").is_some_and(|reason| reason.contains("column `more`"))
    };
    walmill.wait_for("/api/v1/status", next).await;
    restart(&mut walmill).await;
    walmill.wait_for("/api/v1/status", next).await;
    assert!(accept(&walmill, "careful").status.success());
    walmill.ready().await;
    let ids = |events: &[Value]| -> Vec<Value> {
        events.iter().map(|event| event["id"].clone()).collect()
    };
    let (careful, easy) = (events(&walmill, "careful", 5).await, events(&walmill, "easy", 5).await);
    assert_eq!(ids(&careful), ids(&easy));
    assert_eq!(lines(&careful), lines(&easy));
    let nothing = accept(&walmill, "careful");
    assert_eq!(nothing.status.code(), Some(1));
    let said = String::from_utf8(nothing.stderr).expect("text");
    assert!(said.contains("no changed definition waits in pipeline `careful`"), "{said}");
    let slip = String::from_utf8(accept(&walmill, "carefull").stderr).expect("text");
    assert!(slip.contains("did you mean `careful`?"), "{slip}");
    walmill.kill();
    assert_eq!(accept(&walmill, "careful").status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_behind_a_change_go_to_the_dead_letters_until_it_is_accepted() {
    let cluster = cluster();
    let client = connect(&cluster).await;
    execute(&client, "create table t (id int primary key); create table u (id int primary key)")
        .await;
    let config = SOURCE.to_owned() + &pipeline("strict", "on_schema_change = \"dead-letter\"");
    let mut walmill = Walmill::start(&config, &cluster.url()).await;
    execute(&client, "insert into t values (1); alter table t add note text").await;
    execute(&client, "insert into t values (2, 'x')").await;
    execute(&client, "insert into u values (1)").await;
    events(&walmill, "strict", 3).await;
    walmill.kill();
    walmill.launch();
    walmill.ready().await;
    execute(
        &client,
        "begin; truncate t; alter table t drop note; insert into t values (3); commit",
    )
    .await;
    execute(&client, "insert into u values (2)").await;
    expect![[r#"
        t insert {"id":1}
        public.t: column-added note null → "text"
        u insert {"id":1}
        public.t: column-dropped note "text" → null
        u insert {"id":2}
    "#]]
    .assert_eq(&lines(&events(&walmill, "strict", 5).await));
    let letters = walmill.json("/api/v1/dlq").await;
    let letters = letters["dead_letters"].as_array().expect("letters");
    let shown: Vec<String> = letters
        .iter()
        .map(|letter| {
            let reason = letter["reason"].as_str().expect("a reason");
            let (place, change) = reason.split_once(": ").expect("a place and a change");
            assert!(place.starts_with("the definition of public.t changed at "), "{reason}");
            assert_eq!(letter["by"]["kind"], "schema");
            format!("{} {}: {change}", letter["payload"]["op"], letter["payload"]["record"])
        })
        .collect();
    assert_eq!(
        shown,
        [
            "\"insert\" {\"id\":3}: column `note` text is new; column `note` is gone",
            "\"truncate\" null: column `note` text is new",
            "\"insert\" {\"id\":2,\"note\":\"x\"}: column `note` text is new",
        ]
    );
    let accept_url = walmill.url("/api/v1/pipelines/strict/accept-schema");
    let answer = reqwest::Client::new().post(accept_url).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
    let accepted =
        |status: &Value| status["pipelines"][0]["schema_changes"] == serde_json::json!([]);
    walmill.wait_for("/api/v1/status", accepted).await;
    walmill.kill();
    walmill.launch();
    walmill.ready().await;
    execute(&client, "insert into t values (4)").await;
    let last = events(&walmill, "strict", 6).await;
    assert_eq!(shown_last(&last), "t insert {\"id\":4}");
}

fn shown_last(events: &[Value]) -> String {
    shown(events.last().expect("an event"))
}
