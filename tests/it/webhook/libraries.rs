//! Signatures, checked by the official Standard Webhooks libraries. `scripts/webhook-libraries`
//! fetches them; where they are missing, their test says that it is skipped.

use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::support::process::built_plugins;

const NODE: &str = r#"
const { Webhook } = require("standardwebhooks");
const { requests, good, bad } = JSON.parse(require("fs").readFileSync(0));
for (const { headers, body } of requests) {
  const payload = Buffer.from(body, "base64").toString();
  for (const secret of good) new Webhook(secret).verify(payload, headers);
  for (const [secret, text] of [[bad, payload], [good[0], payload + " "]]) {
    let refused = false;
    try { new Webhook(secret).verify(text, headers); } catch { refused = true; }
    if (!refused) throw new Error("verified what it should not");
  }
}
console.log(`verified ${requests.length}`);
"#;

const PYTHON: &str = r#"
import base64, json, sys
from standardwebhooks import Webhook, WebhookVerificationError
given = json.load(sys.stdin)
for request in given["requests"]:
    payload, headers = base64.b64decode(request["body"]).decode(), request["headers"]
    for secret in given["good"]:
        Webhook(secret).verify(payload, headers)
    for secret, text in [(given["bad"], payload), (given["good"][0], payload + " ")]:
        try:
            Webhook(secret).verify(text, headers)
        except WebhookVerificationError:
            continue
        sys.exit("verified what it should not")
print("verified", len(given["requests"]))
"#;

/// Where the libraries are.
fn libraries() -> PathBuf {
    built_plugins().with_file_name("webhook-libraries")
}

/// Requests of every mode, signed with two secrets, as one of which each must verify.
async fn requests() -> String {
    let mut requests = Vec::new();
    for mode in ["structured", "binary", "batch"] {
        let mut streams = Streams::new();
        let receiver = Receiver::start(|_| Reply::Status(200)).await;
        let sent = streams.commit("orders", &["public.orders/1", "public.orders/é \"%"]);
        let more = format!("mode = '{mode}'\nsecrets = ['{OLD_SECRET}']");
        let output = Output::start(&streams, &receiver, &more);
        until("all is taken", || streams.checkpoint("orders") == sent.last().copied()).await;
        output.stop().await;
        requests.extend(receiver.taken().into_iter().filter(|taken| !taken.body.is_empty()));
    }
    let shown = requests.iter().map(|request| {
        serde_json::json!({ "headers": request.headers, "body": STANDARD.encode(&request.body) })
    });
    let bad = "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldCBhbHRvZ2V0aGVy";
    let all: Vec<_> = shown.collect();
    serde_json::json!({ "requests": all, "good": [SECRET, OLD_SECRET], "bad": bad }).to_string()
}

/// Runs a program over the requests, unless its library is missing.
async fn verify(library: &str, mut command: Command) {
    if !libraries().join(library).exists() {
        return eprintln!("skipped: no {library}; run scripts/webhook-libraries");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("requests");
    std::fs::write(&file, requests().await).expect("write the requests");
    let input = std::fs::File::open(&file).expect("open the requests");
    let ran = command.stdin(input).output().expect("run the library");
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{out}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(out.starts_with("verified ") && !out.starts_with("verified 0"), "{out}");
}

#[tokio::test]
async fn the_official_library_for_javascript_verifies_every_mode() {
    let mut node = Command::new("node");
    node.args(["-e", NODE]).env("NODE_PATH", libraries().join("node_modules"));
    verify("node_modules/standardwebhooks", node).await;
}

#[tokio::test]
async fn the_official_library_for_python_verifies_every_mode() {
    let mut python = Command::new("python3");
    python.args(["-c", PYTHON]).env("PYTHONPATH", libraries().join("python"));
    verify("python/standardwebhooks", python).await;
}
