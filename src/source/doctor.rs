//! What stands in the way of a stream, or will: looked up in the database and on our disk before it
//! happens, each with the SQL that mends it.
//!
//! Nothing is changed here but by [`apply`]. A check says nothing about what is well.

mod advice;
mod code;
mod local;
mod names;
mod publication;
mod role;
mod server;
mod slot;
mod tables;
mod transport;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::config::Config;
use super::connection::{Connection, Identity};
use super::database::Database;
use super::entry::{self, Place};
use super::fault::{Fault, Report};
use super::login::Purpose;
use crate::store;
pub use advice::Advice;
use code::Code;
pub use code::codes;
use local::Local;
use publication::Publication;
use role::Role;
use server::Server;
use slot::Slot;
use tables::Table;

/// For a changed setting to be in force.
const RELOAD: Duration = Duration::from_secs(5);
/// Between two looks whether it is.
const GLANCE: Duration = Duration::from_millis(10);

/// What was found.
#[derive(Debug)]
pub struct Examination {
    /// What is wrong, in the order of the checks.
    pub advice: Vec<Advice>,
    /// Whether the database could be asked at all.
    pub reached: bool,
}

/// Looks at everything. `tables` in the config are those of pipelines, too.
pub async fn examine(config: &Config, store: &store::Config) -> Examination {
    let local = Local::look(store).await;
    let mut advice = local.check(store);
    match enter(config).await {
        Ok(patient) => {
            if let Err(fault) =
                (Visit { config, local: &local, patient, advice: &mut advice }).run().await
            {
                advice.push(of_fault(Code::QueryFailed, "source.url", fault));
            }
            Examination { advice, reached: true }
        }
        Err(fault) => {
            advice.push(of_fault(Code::Unreachable, "source.url", fault));
            Examination { advice, reached: false }
        }
    }
}

/// Runs one statement of an [`Advice`]'s fix.
///
/// # Errors
/// What the server said, for a person.
pub async fn apply(config: &Config, statement: &str) -> Result<(), String> {
    let run = async {
        let Patient { database, .. } = enter(config).await?;
        let loaded = "SELECT extract(epoch FROM pg_conf_load_time())::float8";
        let load_time = async || -> Result<f64, Fault> {
            Ok(database.row("ask for the last reload", loaded, &[]).await?.get(0))
        };
        let before = load_time().await?;
        database.run("run it", statement).await?;
        if statement.contains("pg_reload_conf") {
            // It is asked for, and comes to pass a moment later.
            let deadline = Instant::now() + RELOAD;
            while load_time().await? <= before && Instant::now() < deadline {
                sleep(GLANCE).await;
            }
        }
        Ok(())
    };
    run.await.map_err(|fault: Fault| report(fault).error)
}

/// The database, and how we came there.
struct Patient {
    database: Database,
    place: Place,
    secured: bool,
}

async fn enter(config: &Config) -> Result<Patient, Fault> {
    let (session, place) = entry::enter(&config.url, Purpose::Queries, 0).await?;
    let secured = session.secured;
    let database = Database::of(session, &config.url).await?;
    Ok(Patient { database, place, secured })
}

fn report(fault: Fault) -> Report {
    match fault {
        Fault::Away(report)
        | Fault::Taken(report)
        | Fault::Person(report)
        | Fault::Lost(report)
        | Fault::Halt(report) => report,
        Fault::Store(error) => {
            Report { error: error.to_string(), remedy: "see the disk of `store.path`".into() }
        }
    }
}

fn of_fault(code: Code, path: &str, fault: Fault) -> Advice {
    let Report { error, remedy } = report(fault);
    Advice::error(code, path, error).suggest(remedy)
}

/// One examination, from a database that answers.
struct Visit<'a> {
    config: &'a Config,
    local: &'a Local,
    patient: Patient,
    advice: &'a mut Vec<Advice>,
}

/// All that the checks look at.
struct Facts<'a> {
    config: &'a Config,
    local: &'a Local,
    server: &'a Server,
    slot: Option<&'a Slot>,
    publication: Option<&'a Publication>,
    tables: &'a [Table],
}

impl Visit<'_> {
    async fn run(self) -> Result<(), Fault> {
        let Patient { database, place, secured } = &self.patient;
        let server = Server::look(database).await?;
        if let Some(too_old) = server.too_old() {
            self.advice.push(too_old);
            return Ok(());
        }
        let role = Role::look(database).await?;
        let slot = Slot::look(database, self.config, &server).await?;
        let publication = Publication::look(database, self.config, &server).await?;
        let tables = tables::look(database, self.config).await?;
        let facts = Facts {
            config: self.config,
            local: self.local,
            server: &server,
            slot: slot.as_ref(),
            publication: publication.as_ref(),
            tables: &tables,
        };
        let advice = self.advice;
        advice.extend(transport::check(&self.config.url, place, *secured));
        advice.extend(server.check(&facts));
        advice.extend(server::waiting(database, &facts).await?);
        advice.extend(role.check(&facts));
        advice.extend(slot::check(&facts));
        advice.extend(publication::check(&facts));
        advice.extend(names::check(database, &facts).await?);
        advice.extend(tables::check(&facts));
        let broken = advice.iter().any(Advice::stops_replication);
        match replication(self.config).await {
            Ok((mut connection, identity)) => {
                let history = history(&mut connection, &facts, &identity).await?;
                advice.extend(self.local.origin(&facts, &identity, history.as_deref()));
            }
            // What was found already says why.
            Err(_) if broken => {}
            Err(fault) => advice.push(of_fault(Code::NoReplication, "source.url", fault)),
        }
        Ok(())
    }
}

async fn replication(config: &Config) -> Result<(Connection<'_>, Identity), Fault> {
    let mut connection = Connection::open(config, 0).await?;
    let identity = connection.identify().await?;
    Ok((connection, identity))
}

/// How this server came to its timeline, where that is not the one we know.
async fn history(
    connection: &mut Connection<'_>,
    facts: &Facts<'_>,
    identity: &Identity,
) -> Result<Option<String>, Fault> {
    match facts.local.timeline() {
        Some(known) if known != identity.timeline => {
            connection.history(identity.timeline).await.map(Some)
        }
        _ => Ok(None),
    }
}
