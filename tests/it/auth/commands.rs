//! `walmill token`: tokens for trying things out.

use std::process::Command;

use serde_json::{Value, json};

use super::{CONFIG, jwt_config};

#[test]
fn tokens_are_made_and_looked_at_by_command() {
    let folder = crate::support::folder();
    let auth = jwt_config("").replace("[auth", "[server.auth");
    let config = CONFIG.replace("AUTH", &auth).replace("DATABASE", "postgres://u@h/d");
    std::fs::write(folder.path().join("walmill.toml"), config.replace("PORT", "4000")).expect("it");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walmill"));
        command.args(arguments).current_dir(folder.path()).output().expect("run walmill")
    };
    let minted = run(&["token", "mint", "--claim", "tenant=7", "--claim", "name=ada"]);
    assert!(minted.status.success(), "{minted:?}");
    let token = String::from_utf8(minted.stdout).expect("text");
    let seen = run(&["token", "inspect", token.trim()]);
    let answer: Value = serde_json::from_slice(&seen.stdout).expect("JSON");
    assert_eq!(answer["taken"], true, "{answer}");
    assert_eq!(
        (&answer["claims"]["tenant"], &answer["claims"]["name"]),
        (&json!(7), &json!("ada"))
    );
    let other = format!("{}x", token.trim());
    let seen = run(&["token", "inspect", &other]);
    assert_eq!(seen.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&seen.stderr).contains("signature is wrong"), "{seen:?}");
    assert_eq!(run(&["token", "inspect", "nonsense"]).status.code(), Some(2));
    let late = run(&["token", "mint", "--claim", "exp=1"]);
    let late = String::from_utf8(late.stdout).expect("text");
    let seen = run(&["token", "inspect", late.trim()]);
    assert!(String::from_utf8_lossy(&seen.stderr).contains("expired"), "{seen:?}");
}
