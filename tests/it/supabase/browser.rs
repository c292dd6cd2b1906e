//! The example's programs: the article's in Node, and the page in Chromium.

use std::path::Path;
use std::process::Stdio;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{CONFIG, Stand, client};
use crate::support::browser::Browser;

/// A file of the example.
pub fn example(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/reddit-clone");
    std::fs::read_to_string(folder.join(file)).expect("the example")
}

/// Serves the example's folder as a user would; its address.
async fn pages() -> String {
    let typed = |kind: &'static str, text: String| {
        get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
    };
    let supabase = client::module("supabase-2/dist/umd/supabase.js");
    let script = "text/javascript";
    let routes = Router::new()
        .route("/", typed("text/html", example("index.html")))
        .route("/resumable.js", typed(script, example("resumable.js")))
        .route("/node_modules/@supabase/supabase-js/dist/umd/supabase.js", typed(script, supabase));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_s_page_follows_the_database() {
    if client::skipped() {
        return;
    }
    let Some(mut browser) = Browser::start().await else {
        return eprintln!("skipped: no Chromium on the PATH; ./test installs it");
    };
    let pages = pages().await;
    let config = CONFIG.replace("[server]\n", &format!("[server]\norigins = [\"{pages}\"]\n"));
    let stand = Stand::with(&config).await;
    browser.open(&format!("{pages}/?walmill={}", stand.walmill.url(""))).await;
    browser.wait_for("#state", &["SUBSCRIBED"]).await;
    stand.sql("insert into posts (community, title) values ('rust', 'Hello'), ('go', 'Bye')").await;
    browser.wait_for("#posts", &["Hello", "Bye"]).await;
    stand.sql("update posts set score = 41 where title = 'Bye'").await;
    browser.wait_for("#posts li", &["41", "Bye"]).await;
    stand.sql("delete from posts where title = 'Bye'").await;
    browser.wait_for("#posts li", &["0", "Hello"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_article_s_program_runs_as_it_stands() {
    if client::skipped() {
        return;
    }
    let stand = Stand::start().await;
    for version in ["realtime-0.1.8", "realtime-0.9.0"] {
        // As if it had been installed beside the program.
        let folder = tempfile::tempdir().expect("a folder");
        let scope = folder.path().join("node_modules/@supabase");
        std::fs::create_dir_all(&scope).expect("a folder");
        let package = client::modules().expect("the clients").join("node_modules").join(version);
        std::os::unix::fs::symlink(package, scope.join("realtime-js")).expect("a link");
        std::fs::write(folder.path().join("index.js"), example("index.js")).expect("the program");
        let mut program = tokio::process::Command::new("node")
            .arg(folder.path().join("index.js"))
            .env("REALTIME_URL", stand.walmill.url("/socket"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("start node");
        let mut lines = BufReader::new(program.stdout.take().expect("its stdout")).lines();
        assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("Connected"));
        stand.sql("insert into posts (community, title) values ('rust', 'Hello')").await;
        let mut printed = String::new();
        while !printed.contains("Hello") {
            printed += &lines.next_line().await.expect("a line").expect("a record");
        }
        assert!(printed.contains("community: 'rust'"), "{printed}");
    }
}
