//! The replication slot: the place that PostgreSQL keeps for us, and whether it is still ours.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::config::{Config, Snapshot};
use super::connection::Identity;
use super::database::Database;
use super::fault::Fault;
use super::options;
use crate::model::Lsn;
use crate::store::Origin;

/// How often we say that the slot's creation still waits.
const WAITING: Duration = Duration::from_secs(10);

/// What the server says about the slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    plugin: Option<String>,
    database: Option<String>,
    /// Why the server gave it up, if it did.
    lost: Option<String>,
    /// Where the server would go on by itself.
    pub(super) confirmed: Lsn,
}

/// What walmill knows of its own past.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) origin: Option<Origin>,
    /// What is on our disk.
    pub(super) durable: Lsn,
    /// How far what was received reaches, on disk or on its way there: all of it will be shown.
    pub(super) received: Lsn,
}

impl Past {
    /// `last_commit`: of the last transaction that was received.
    pub(super) fn new(origin: Option<Origin>, durable: Lsn, last_commit: Lsn) -> Self {
        // A commit's record lies behind its LSN.
        let received = durable.max(Lsn(last_commit.0.saturating_add(1)));
        Self { origin, durable, received }
    }

    /// Nothing was streamed yet.
    pub(super) fn is_empty(&self) -> bool {
        self.origin.is_none() || self.durable == Lsn::ZERO
    }
}

/// Looks the slot up.
pub(super) async fn find(database: &Database, config: &Config) -> Result<Option<Slot>, Fault> {
    // `invalidation_reason` came with version 17, `conflicting` with 16: a row as JSON has what
    // there is.
    let query = "SELECT plugin::text, database::text, \
                 CASE WHEN wal_status = 'lost' THEN coalesce(row->>'invalidation_reason', \
                 CASE WHEN (row->>'conflicting')::bool THEN 'conflicting' END, 'wal_removed') END, \
                 confirmed_flush_lsn::text FROM (SELECT s.*, to_jsonb(s) AS row \
                 FROM pg_replication_slots s) s WHERE slot_name = $1";
    let rows = database.rows("look up the slot", query, &[&config.slot.as_str()]).await?;
    Ok(rows.first().map(|row| Slot {
        plugin: row.get(0),
        database: row.get(1),
        lost: row.get(2),
        confirmed: row
            .get::<_, Option<String>>(3)
            .and_then(|lsn| lsn.parse().ok())
            .unwrap_or(Lsn::ZERO),
    }))
}

/// Creates the slot. PostgreSQL waits here for every transaction that is open now.
pub(super) async fn create(database: &Database, config: &Config) -> Result<(), Fault> {
    let slot = config.slot.as_str();
    // A slot's name needs no quotes: it has none in it.
    let create = format!("SELECT {}", options::create_slot(config));
    if !config.create_slot {
        return Err(not_ours_to_make(config));
    }
    waiting(database.rows("create the slot", &create, &[])).await?;
    tracing::info!(slot, "created");
    Ok(())
}

/// Drops a slot that nobody uses; whether there was one.
pub(super) async fn remove(database: &Database, slot: &str) -> Result<bool, Fault> {
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                WHERE slot_name = $1";
    let dropped = database.rows("drop the slot", drop, &[&slot]).await?;
    if !dropped.is_empty() {
        tracing::info!(slot, "dropped");
    }
    Ok(!dropped.is_empty())
}

/// A slot that begins before the journal's end would be of an older server.
pub(super) fn check_order(begins: Lsn, last_commit: Lsn) -> Result<(), Fault> {
    match begins > last_commit {
        true => Ok(()),
        false => Err(Fault::halt(
            format!("the new slot begins at {begins}, before the journal's end {last_commit}"),
            "the server is older than the data folder: use a new one (`store.path`)",
        )),
    }
}

/// The slot is missing, and the config says that somebody else makes it.
pub(super) fn not_ours_to_make(config: &Config) -> Fault {
    let slot = config.slot.as_str();
    let remedy = match config.snapshot {
        Snapshot::Never => format!("run `SELECT {}`", options::create_slot(config)),
        Snapshot::Initial => {
            "set `create_slot = true`: a slot's snapshot is for the one who makes the slot".into()
        }
    };
    Fault::person(format!("slot `{slot}` is missing"), remedy)
}

/// Waits for a slot to be created, and says what that may wait for.
pub(super) async fn waiting<T>(created: impl Future<Output = T>) -> T {
    let mut waiting = interval(WAITING);
    waiting.set_missed_tick_behavior(MissedTickBehavior::Delay);
    waiting.reset();
    tokio::pin!(created);
    loop {
        tokio::select! {
            made = &mut created => return made,
            _ = waiting.tick() => tracing::warn!(
                "the slot's creation waits for open transactions to end: `SELECT pid, query FROM \
                 pg_stat_activity WHERE xact_start IS NOT NULL ORDER BY xact_start`"
            ),
        }
    }
}

/// Whether the server is the one that our journal came from. `history` is that of its timeline,
/// where that is not the one we know.
pub(super) fn check_origin(
    past: &Past,
    identity: &Identity,
    history: Option<&str>,
    config: &Config,
) -> Result<(), Fault> {
    let Some(origin) = past.origin.as_ref().filter(|_| !past.is_empty()) else { return Ok(()) };
    let now = origin_of(identity, config);
    let differs = |what: &str, before: &str, now: &str| {
        Err(Fault::halt(
            format!("the data folder belongs to {what} `{before}`, and this is `{now}`"),
            "connect to the former one, or use a new data folder (`store.path`)",
        ))
    };
    if origin.system_identifier != now.system_identifier {
        return differs("the server", &origin.system_identifier, &now.system_identifier);
    }
    if origin.database != now.database {
        return differs("the database", &origin.database, &now.database);
    }
    if origin.slot != now.slot {
        return differs("the slot", &origin.slot, &now.slot);
    }
    if let Some(end) = history.map(|history| end_of(origin.timeline, history))
        && past.received > end
    {
        return Err(Fault::halt(
            format!(
                "another server was promoted at {end}, before walmill's position {}: what was \
                 received of the lost part never was on this one",
                past.received
            ),
            "use a new data folder (`store.path`) and a new slot to go on from here",
        ));
    }
    if past.received > identity.flushed {
        return Err(Fault::halt(
            format!(
                "the server's log ends at {}, before walmill's position {}: it was restored from a \
                 backup, or promoted without its last changes",
                identity.flushed, past.received
            ),
            "what was received of the lost part has been delivered; use a new data folder \
             (`store.path`) and a new slot to go on from here",
        ));
    }
    Ok(())
}

/// Whether the slot can serve us, from where we are.
pub(super) fn check(
    slot: &Slot,
    past: &Past,
    identity: &Identity,
    config: &Config,
) -> Result<(), Fault> {
    let name = config.slot.as_str();
    if slot.plugin.as_deref() != Some("pgoutput") {
        let found = slot.plugin.as_deref().unwrap_or("none: it is a physical slot");
        return Err(Fault::person(
            format!("slot `{name}` is there with another plugin ({found})"),
            "choose another `source.slot`, or drop that one if nobody uses it",
        ));
    }
    if slot.database.as_deref() != Some(config.url.database()) {
        let found = slot.database.as_deref().unwrap_or_default();
        return Err(Fault::person(
            format!("slot `{name}` belongs to database `{found}`"),
            "slot names are shared by all databases of a server: choose another `source.slot`",
        ));
    }
    if let Some(reason) = &slot.lost {
        let cure = match reason.as_str() {
            "idle_timeout" => "raise `idle_replication_slot_timeout` for the next time; ",
            "wal_removed" => "raise `max_slot_wal_keep_size` for the next time; ",
            _ => "",
        };
        let error =
            format!("slot `{name}` was invalidated ({reason}): {}", lost(past, slot, identity));
        return Err(Fault::lost(error, name, cure));
    }
    check_place(slot, past.durable, config)
}

/// Whether the slot is no further than we are. A store that is empty takes it where it is.
pub(super) fn check_place(slot: &Slot, from: Lsn, config: &Config) -> Result<(), Fault> {
    let name = config.slot.as_str();
    if from > Lsn::ZERO && slot.confirmed > from {
        let error = format!(
            "slot `{name}` is at {}, past walmill's position {from}: another reader took the \
             changes between, or the slot was made anew",
            slot.confirmed
        );
        return Err(Fault::lost(error, name, ""));
    }
    Ok(())
}

/// The slot of a stream that we have a part of is not there.
pub(super) fn missing(past: &Past, identity: &Identity, config: &Config) -> Fault {
    let name = config.slot.as_str();
    let lost = lost_from(past.durable, identity);
    Fault::lost(format!("slot `{name}` is gone: {lost}"), name, "")
}

/// What nobody will send any more.
fn lost(past: &Past, slot: &Slot, identity: &Identity) -> String {
    lost_from(if past.is_empty() { slot.confirmed } else { past.durable }, identity)
}

fn lost_from(from: Lsn, identity: &Identity) -> String {
    format!(
        "what was committed from {from} on is lost, up to where a new slot begins (the log ends at \
         {} now)",
        identity.flushed
    )
}

/// Where a stream from here comes from.
pub(super) fn origin_of(identity: &Identity, config: &Config) -> Origin {
    Origin {
        system_identifier: identity.system_identifier.clone(),
        slot: config.slot.as_str().into(),
        database: config.url.database().into(),
        timeline: identity.timeline,
    }
}

/// Where a timeline ended, by the history of a later one: lines of timeline, position and reason.
/// Zero for one that the history does not know: then nothing of it is here.
fn end_of(timeline: u32, history: &str) -> Lsn {
    let mut ends = history.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let number: u32 = fields.next()?.parse().ok()?;
        (number == timeline).then(|| fields.next()?.parse().ok())?
    });
    ends.next_back().unwrap_or(Lsn::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("postgres://u@localhost/shop".parse().unwrap())
    }

    fn identity() -> Identity {
        Identity { system_identifier: "7".into(), timeline: 1, flushed: Lsn(1000) }
    }

    fn past(durable: u64) -> Past {
        {
            let (durable, received) = (Lsn(durable), Lsn(durable));
            Past { origin: Some(origin_of(&identity(), &config())), durable, received }
        }
    }

    fn slot(confirmed: u64) -> Slot {
        Slot {
            plugin: Some("pgoutput".into()),
            database: Some("shop".into()),
            lost: None,
            confirmed: Lsn(confirmed),
        }
    }

    fn is_halt(result: Result<(), Fault>) -> bool {
        matches!(result, Err(Fault::Halt(_) | Fault::Lost(_)))
    }

    #[test]
    fn a_slot_at_or_before_our_position_is_ours() {
        assert!(check(&slot(400), &past(500), &identity(), &config()).is_ok());
        assert!(check(&slot(500), &past(500), &identity(), &config()).is_ok());
        assert!(check_origin(&past(1000), &identity(), None, &config()).is_ok());
    }

    #[test]
    fn what_would_lose_changes_halts() {
        assert!(is_halt(check(&slot(501), &past(500), &identity(), &config())));
        assert!(is_halt(check(
            &Slot { lost: Some("wal_removed".into()), ..slot(1) },
            &past(500),
            &identity(),
            &config()
        )));
        assert!(is_halt(check_origin(&past(1001), &identity(), None, &config())));
        let other = Identity { system_identifier: "8".into(), ..identity() };
        assert!(is_halt(check_origin(&past(500), &other, None, &config())));
    }

    #[test]
    fn a_promoted_server_goes_on_unless_we_are_ahead_of_it() {
        let history = "1\t0/1F4\tno recovery target specified\n\n2\t0/320\tno reason\n";
        let promoted = Identity { timeline: 3, ..identity() };
        let check = |durable| check_origin(&past(durable), &promoted, Some(history), &config());
        assert!(check(500).is_ok());
        assert!(is_halt(check(501)));
        // What was received counts, though it is not on our disk yet: it will be shown.
        let waiting = Past { durable: Lsn(400), ..past(501) };
        assert!(is_halt(check_origin(&waiting, &promoted, Some(history), &config())));
        assert_eq!(end_of(2, history), Lsn(0x320));
        assert_eq!(end_of(9, history), Lsn::ZERO);
    }

    #[test]
    fn an_empty_store_takes_any_slot_of_its_own_kind() {
        let nothing = Past { origin: None, durable: Lsn::ZERO, received: Lsn::ZERO };
        assert!(check(&slot(501), &nothing, &identity(), &config()).is_ok());
        assert!(check_origin(&nothing, &identity(), None, &config()).is_ok());
        let physical = Slot { plugin: None, ..slot(1) };
        assert!(matches!(
            check(&physical, &nothing, &identity(), &config()),
            Err(Fault::Person(_))
        ));
        let elsewhere = Slot { database: Some("other".into()), ..slot(1) };
        assert!(matches!(
            check(&elsewhere, &nothing, &identity(), &config()),
            Err(Fault::Person(_))
        ));
    }
}
