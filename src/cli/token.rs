//! `walmill token`: JSON Web Tokens for trying things out, and what walmill thinks of one.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{ConfigArguments, Failure};
use crate::config::finding::Finding;
use crate::model::Period;
use crate::server::auth::{Jwt, Verifier, decode_unchecked, mint};

/// Arguments of `walmill token`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make one that the config's `[server.auth.jwt]` takes: for development.
    Mint(Mint),
    /// Show what is in one, and whether the config takes it.
    Inspect(Inspect),
}

#[derive(Debug, Args)]
struct Mint {
    /// A claim, as in `--claim tenant=7`; what is JSON is taken as such.
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
    /// How long it is good.
    #[arg(long, default_value = "1h")]
    expires: Period,
    /// The private key in PEM, where the config has the public one.
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// The key's name, where the config has a set of keys.
    #[arg(long, value_name = "NAME")]
    kid: Option<String>,
}

#[derive(Debug, Args)]
struct Inspect {
    /// The token; `-` to read it from standard input.
    token: String,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.config.load()?.config;
    let jwt = config.server.auth.jwt.ok_or_else(|| {
        let finding = Finding::error("no-jwt", "server.auth", "the config takes no JWTs");
        Failure::usage(vec![finding.suggest("add a section `[server.auth.jwt]`")])
    })?;
    match &arguments.command {
        Command::Mint(arguments) => {
            println!("{}", make(arguments, &jwt)?);
            Ok(())
        }
        Command::Inspect(arguments) => inspect(arguments, jwt),
    }
}

fn make(arguments: &Mint, jwt: &Jwt) -> Result<String, Failure> {
    let mut claims = Map::new();
    for claim in &arguments.claims {
        let (name, value) = claim.split_once('=').ok_or_else(|| {
            usage("claim", &format!("`{claim}` is no claim: write --claim NAME=VALUE"))
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()));
        claims.insert(name.to_owned(), value);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires = now + arguments.expires.duration();
    claims.entry("iss").or_insert_with(|| jwt.issuer.clone().into());
    claims.entry("aud").or_insert_with(|| jwt.audience.clone().into());
    claims.entry("iat").or_insert_with(|| now.as_secs().into());
    claims.entry("exp").or_insert_with(|| expires.as_secs().into());
    let pem = arguments.private_key.as_ref().map(std::fs::read).transpose();
    let pem = pem.map_err(|error| usage("private-key", &format!("read --private-key: {error}")))?;
    mint(jwt, &claims, pem.as_deref(), arguments.kid.clone())
        .map_err(|message| usage("private-key", &message))
}

fn inspect(arguments: &Inspect, jwt: Jwt) -> Result<(), Failure> {
    let mut token = arguments.token.clone();
    if token == "-" {
        token.clear();
        let read = std::io::stdin().read_to_string(&mut token);
        read.map_err(|error| usage("token", &format!("read standard input: {error}")))?;
    }
    let token = token.trim();
    let (header, claims) = decode_unchecked(token).ok_or_else(|| {
        usage("token", "this is no JSON Web Token: three parts with dots between")
    })?;
    let verdict = super::wait(async { Ok(Verifier::new(jwt).verify(token).await) })?;
    let taken = verdict.is_ok();
    let reason = verdict.err().map(|refused| refused.to_string());
    let answer = json!({ "header": header, "claims": claims, "taken": taken, "reason": reason });
    println!("{answer:#}");
    match reason {
        None => Ok(()),
        Some(reason) => Err(Failure::run_time(Finding::error("refused", "token", reason))),
    }
}

fn usage(path: &str, message: &str) -> Failure {
    Failure::usage(vec![Finding::error("bad-argument", path, message)])
}
