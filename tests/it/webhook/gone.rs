//! A receiver that says that it is gone: nothing is sent until a person wants it.

use std::process::Command;

use super::*;
use crate::support::process::Walmill;
use crate::support::{cluster, connect, execute};

const CONFIG: &str = r#"
[source]
url = "DATABASE"
tables = ["public.orders"]

[store]
path = "data"

[server]
listen = "127.0.0.1:PORT"

[[pipeline]]
name = "orders"
tables = ["public.orders"]

[[output.webhook]]
name = "billing"
streams = ["orders"]
url = "HOOK"
secret = "SECRET"
allow_private = true
"#;

/// `walmill output …`: its exit code and what it says.
fn output(of: &Walmill, arguments: &[&str]) -> (i32, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_walmill"))
        .arg("output")
        .args(arguments)
        .arg("--config")
        .arg(of.folder().join("walmill.toml"))
        .output()
        .expect("run walmill");
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.code().unwrap_or(-1), String::from_utf8(said).expect("UTF-8"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_stays_disabled_through_restarts_until_a_person_enables_it() {
    let (receiver, back) = Receiver::away(410).await;
    let cluster = cluster();
    let database = connect(&cluster).await;
    execute(&database, "CREATE TABLE orders (id bigint PRIMARY KEY)").await;
    let config = CONFIG.replace("HOOK", &receiver.url()).replace("SECRET", SECRET);
    let mut walmill = Walmill::start(&config, &cluster.url()).await;
    execute(&database, "INSERT INTO orders VALUES (1)").await;
    let is_disabled = |answer: &serde_json::Value| answer["outputs"][0]["disabled"].is_object();
    walmill.wait_for("/api/v1/outputs", is_disabled).await;
    back.store(true, SeqCst);
    // Whatever ends it, and whatever comes meanwhile.
    for row in 2..=3 {
        if row == 2 {
            walmill.kill();
        } else {
            walmill.terminate();
        }
        walmill.launch();
        walmill.ready().await;
        execute(&database, &format!("INSERT INTO orders VALUES ({row})")).await;
        walmill.wait_for("/api/v1/outputs", is_disabled).await;
    }
    let status = walmill.json("/api/v1/outputs").await["outputs"][0].clone();
    let disabled = &status["disabled"];
    assert!(disabled["why"].as_str().is_some_and(|why| why.contains("410 Gone")), "{status}");
    assert_eq!(disabled["target"], status["target"]);
    assert!(disabled["since"].as_i64().is_some_and(|since| since > 0));
    let gauge = "walmill_output_disabled{name=\"billing\"}";
    assert!(walmill.text("/metrics").await.contains(&format!("{gauge} 1")));
    let (code, said) = output(&walmill, &["ls"]);
    assert!(code == 0 && said.contains("disabled until `walmill output enable billing`"), "{said}");
    assert_eq!(receiver.requests().len(), 1, "it was left alone");

    let (code, said) = output(&walmill, &["enable", "billing"]);
    assert_eq!((code, said.as_str()), (0, "output billing is enabled\n"));
    until("all has come", || receiver.taken().len() == 3).await;
    assert!(walmill.text("/metrics").await.contains(&format!("{gauge} 0")));
    let status = walmill.json("/api/v1/outputs").await["outputs"][0].clone();
    assert_eq!(
        (&status["disabled"], &status["error"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    let (code, said) = output(&walmill, &["enable", "billing"]);
    assert!(code == 1 && said.contains("is not disabled"), "{said}");
    let (code, said) = output(&walmill, &["enable", "biling"]);
    assert!(code == 1 && said.contains("did you mean `billing`?"), "{said}");
}

#[tokio::test]
async fn another_receiver_has_not_said_that_it_is_gone() {
    let mut streams = Streams::new();
    let gone = Receiver::start(|_| Reply::Status(410)).await;
    streams.commit("orders", &["a"]);
    let output = Output::start(&streams, &gone, "");
    until("it is disabled", || streams.store.disabled("billing").unwrap().is_some()).await;
    output.stop().await;
    let output = Output::start(&streams, &gone, "");
    until("it says so", || output.status.borrow().disabled.is_some()).await;
    output.stop().await;
    assert_eq!(gone.requests().len(), 1);
    let other = Receiver::start(|_| Reply::Status(200)).await;
    let output = Output::start(&streams, &other, "");
    until("it has come", || other.taken().len() == 1).await;
    output.stop().await;
    assert_eq!(streams.store.disabled("billing").unwrap(), None);
}
