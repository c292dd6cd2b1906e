//! `walmill slot`: the replication slot that the config names.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::client::Client;
use super::{ConfigArguments, Failure, wait};
use crate::config::Config;
use crate::config::finding::Finding;
use crate::metrics::Metrics;
use crate::source::slots::{self, SlotStatus};
use crate::store::renewal::Renewal;
use crate::store::{OpenError, Store};

/// `walmill slot`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    config: ConfigArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the server's slots, and what each keeps of its log.
    Ls {
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make publication and slot now, so that nothing from here on is missed.
    Create,
    /// Drop the slot. What it holds for walmill is lost.
    Drop {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Make a slot anew that was lost, and go on from it behind a gap that readers are told of.
    Recreate {
        /// Bring what the tables hold then into the stream, too.
        #[arg(long)]
        snapshot: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.config.load()?.config;
    match arguments.command {
        Command::Ls { json } => list(&config, json),
        Command::Create => create(&config),
        Command::Drop { yes } => drop_slot(&config, yes),
        Command::Recreate { snapshot, yes } => recreate(&config, snapshot, yes),
    }
}

fn list(config: &Config, json: bool) -> Result<(), Failure> {
    let slots = ask(slots::list(&config.source))?;
    let mut out = std::io::stdout().lock();
    let written = match json {
        true => serde_json::to_writer_pretty(&mut out, &slots)
            .map_err(Into::into)
            .and_then(|()| writeln!(out)),
        false => write_table(&mut out, &slots),
    };
    written.map_err(|error| Failure::run_time(Finding::error("stdout", "", error.to_string())))
}

fn write_table(out: &mut impl std::io::Write, slots: &[SlotStatus]) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<24}{:<12}{:<8}{:<12}{:>14}  confirmed",
        "slot", "plugin", "in use", "log", "keeps"
    )?;
    for slot in slots {
        writeln!(
            out,
            "{:<24}{:<12}{:<8}{:<12}{:>10} MiB  {}",
            slot.name,
            slot.plugin.as_deref().unwrap_or("physical"),
            if slot.active { "yes" } else { "no" },
            slot.wal_status.as_deref().unwrap_or("-"),
            slot.retained_bytes.unwrap_or(0) >> 20,
            slot.confirmed.as_deref().unwrap_or("-"),
        )?;
    }
    Ok(())
}

fn create(config: &Config) -> Result<(), Failure> {
    ask(slots::create(&config.source))?;
    println!("slot `{}` is there", config.source.slot);
    Ok(())
}

fn drop_slot(config: &Config, yes: bool) -> Result<(), Failure> {
    let slot = &config.source.slot;
    confirm(yes, &format!("Drop slot `{slot}` and lose what it holds?"))?;
    match ask(slots::remove(&config.source))? {
        true => println!("dropped slot `{slot}`"),
        false => println!("there is no slot `{slot}`"),
    }
    Ok(())
}

fn recreate(config: &Config, snapshot: bool, yes: bool) -> Result<(), Failure> {
    let slot = &config.source.slot;
    let then = if snapshot { ", and then bring in what the tables hold" } else { "" };
    confirm(yes, &format!("Make slot `{slot}` anew, give up what it lost{then}?"))?;
    match Store::open(&config.store, Arc::new(Metrics::new())) {
        Ok(store) => {
            let asked = store
                .ask_renewal(Renewal { snapshot, lost: false, point: None })
                .and_then(|()| store.close());
            asked.map_err(|error| {
                let message = format!("{:#}", anyhow::Error::new(error));
                Failure::run_time(Finding::error("store", "store.path", message))
            })?;
            println!("walmill will make slot `{slot}` anew when it starts: `walmill run`");
        }
        // It runs, and is the one to ask.
        Err(OpenError::Locked(_)) => {
            let snapshot = if snapshot { "true" } else { "false" };
            let (client, asked) = (Client::new(config)?, [("snapshot", snapshot)]);
            wait(client.post(&["api", "v1", "slot", "recreate"], &asked))?;
            println!("walmill makes slot `{slot}` anew now; see `/api/v1/status`");
        }
        Err(error) => {
            let message = format!("{:#}", anyhow::Error::new(error));
            let finding = Finding::error("store", "store.path", message);
            return Err(Failure::environment(finding));
        }
    }
    Ok(())
}

/// Asks a person, where there is one.
fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    let mut answer = String::new();
    if stdin.is_terminal() {
        eprint!("{question} [y/N] ");
        // No answer is a no.
        let _ = stdin.read_line(&mut answer);
    }
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => {
            let finding = Finding::error("not-confirmed", "", "nothing was done");
            Err(Failure::usage(vec![finding.suggest("say `y`, or give `--yes`")]))
        }
    }
}

fn ask<T>(asked: impl Future<Output = Result<T, Finding>>) -> Result<T, Failure> {
    wait(async { asked.await.map_err(Failure::environment) })
}
