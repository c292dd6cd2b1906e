//! `walmill secret`: secrets that are long and random enough.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::Failure;
use crate::server::auth::{KEY_PREFIX, KeyHash};

/// Arguments of `walmill secret`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new one.
    New(New),
}

#[derive(Debug, Args)]
struct New {
    /// What it is for.
    #[arg(long = "for", value_enum, default_value_t = Purpose::Webhook)]
    purpose: Purpose,
    /// Whose API key it is.
    #[arg(long, default_value = "NAME")]
    name: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Purpose {
    /// A secret that webhooks are signed with.
    Webhook,
    /// An API key; the config gets its hash.
    ApiKey,
    /// A secret that JWTs are signed with, by HS256 and its kind.
    Jwt,
    /// `server.token`.
    Token,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::New(new) = &arguments.command;
    let (secret, hash) = make(new.purpose);
    match (new.json, &hash) {
        (true, hash) => println!("{}", json!({ "secret": secret, "hash": hash })),
        (false, None) => println!("{secret}"),
        (false, Some(hash)) => {
            println!("{secret}");
            let name = toml::Value::String(new.name.clone());
            eprintln!("\nThe key is shown this once. The config knows it by its hash:\n");
            eprintln!("[[server.auth.keys]]\nname = {name}\nhash = \"{hash}\"\nstreams = []");
        }
    }
    Ok(())
}

/// A new secret, and what the config has of it where that is another thing.
fn make(purpose: Purpose) -> (String, Option<String>) {
    let bytes: [u8; 32] = rand::random();
    match purpose {
        Purpose::Webhook => (format!("whsec_{}", STANDARD.encode(bytes)), None),
        Purpose::Jwt => (URL_SAFE_NO_PAD.encode(rand::random::<[u8; 64]>()), None),
        Purpose::Token => (URL_SAFE_NO_PAD.encode(bytes), None),
        Purpose::ApiKey => {
            let key = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
            let hash = KeyHash(Sha256::digest(&key).into()).to_string();
            (key, Some(hash))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keys_hash_is_what_the_config_takes_and_no_two_secrets_are_the_same() {
        let (key, hash) = make(Purpose::ApiKey);
        let hash = KeyHash::try_from(hash.expect("a hash")).expect("a hash");
        assert_eq!(hash.0, <[u8; 32]>::from(Sha256::digest(&key)));
        for purpose in [Purpose::Webhook, Purpose::Jwt, Purpose::Token] {
            let (one, hash) = make(purpose);
            assert!(one.len() >= 43 && hash.is_none() && one != make(purpose).0);
        }
    }
}
