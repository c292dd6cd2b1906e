//! The console in a real browser.

use walmill::model::Secret;
use walmill::model::plugin::{Outcome, ReloadStatus, Why};
use walmill::model::status::{PluginStatus, SourceState};
use walmill::server::Config;
use walmill::store;

use crate::support::browser::Browser;
use crate::support::serving::Serving;

fn plugin() -> PluginStatus {
    let reload = |version: &str, error: Option<&str>| ReloadStatus {
        time: 1_795_490_000_000_000,
        version: version.into(),
        digest: version.repeat(6)[..64].into(),
        why: Why::File,
        outcome: if error.is_some() { Outcome::Refused } else { Outcome::InForce },
        error: error.map(str::to_owned),
        reason: None,
        replaced: None,
        shadow: None,
    };
    PluginStatus {
        name: "redact".into(),
        version: "0a1b2c3d4e5f".into(),
        describes: "redact 1.2.0".into(),
        language: Some("Rust".into()),
        size: 81_920,
        path: "plugins/redact.wasm".into(),
        since: 1_795_490_000_000_000,
        generation: 1,
        waiting: None,
        note: None,
        max_size: 32 << 20,
        history: vec![
            reload("ffffffffffff", Some("the file is no WebAssembly module")),
            reload("0a1b2c3d4e5f", None),
        ],
    }
}

async fn browser() -> Option<Browser> {
    let browser = Browser::start().await;
    if browser.is_none() {
        eprintln!("skipped: no Chromium on the PATH; ./test installs it");
    }
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_shows_the_source_a_plugin_and_events_as_they_are_committed() {
    let Some(mut browser) = browser().await else { return };
    let server = Serving::start().await;
    server.plugins.send_replace(vec![plugin()]);
    browser.open(&server.url("/console")).await;
    browser.wait_for("#source-state", &["source streaming"]).await;
    browser.wait_for("#source", &["PostgreSQL 15.14", "1/0"]).await;
    browser.wait_for("#plugins", &["redact 1.2.0", "0a1b2c3d4e5f", "Rust"]).await;
    browser.wait_for("#plugins", &["ffffffffffff", "refused", "no WebAssembly module"]).await;
    browser.wait_for("#pipelines", &["main"]).await;

    // The first stream by name is shown; the page says when it is subscribed.
    browser.wait_for("#live [data-state=live]", &["Waiting"]).await;
    server.commit_with("comments", 1, "hello from the log");
    browser.wait_for("#live .events", &["insert", "public.comments/8000000", "hello"]).await;

    server.source.send_modify(|source| {
        let (error, remedy) = ("connection refused".into(), "start PostgreSQL".into());
        source.state = SourceState::Waiting { error, remedy, retry_ms: 100 };
    });
    browser.wait_for("#source", &["connection refused", "start PostgreSQL"]).await;
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_paused_events_are_held_and_then_shown() {
    let Some(mut browser) = browser().await else { return };
    let server = Serving::start().await;
    browser.open(&server.url("/console")).await;
    browser.wait_for("#live [data-state=live]", &["Waiting"]).await;
    browser.evaluate("document.querySelector('#live button').click()").await;
    browser.wait_for("#live h2", &["Resume"]).await;
    server.commit("comments", 3);
    browser.wait_for("#live h2", &["Resume (3 new)"]).await;
    assert_eq!(browser.evaluate("document.querySelectorAll('.event').length").await, 0);
    browser.evaluate("document.querySelector('#live button').click()").await;
    browser.wait_for("#live .events", &["public.comments/8000002"]).await;
    assert_eq!(browser.evaluate("document.querySelectorAll('.event').length").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_asks_for_the_token_and_goes_on_with_it() {
    let Some(mut browser) = browser().await else { return };
    let config = Config { token: Some(Secret::new("s3cret")), ..Config::default() };
    let server = Serving::configured(config, store::Config::default()).await;
    browser.open(&server.url("/console")).await;
    browser.wait_for("main", &["asks for its token"]).await;
    let enter = |token| {
        format!(
            "document.querySelector('#token').value = '{token}';
             document.querySelector('form').requestSubmit()"
        )
    };
    browser.evaluate(&enter("wrong")).await;
    browser.wait_for("[role=alert]", &["That was not it"]).await;
    browser.evaluate(&enter("s3cret")).await;
    browser.wait_for("#source-state", &["source streaming"]).await;
    browser.wait_for("#live [data-state=live]", &["Waiting"]).await;
    server.commit("comments", 1);
    browser.wait_for("#live .events", &["public.comments/8000000"]).await;
}
