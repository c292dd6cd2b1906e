//! The slot: whether it is there, ours, whole, and keeps up.

use super::advice::Advice;
use super::code::Code;
use super::server::Server;
use super::{Config, Database, Facts, Fault, Report, report};
use crate::model::{ByteSize, Lsn};
use crate::source::fault::start_anew;
use crate::source::{options, snapshot};

/// More than that held back is worth a word.
const BEHIND: i64 = 1 << 30;

/// What the server says about it.
#[derive(Debug)]
pub(super) struct Slot {
    plugin: Option<String>,
    database: Option<String>,
    /// The process that reads it.
    pub(super) active: Option<i32>,
    status: Option<String>,
    /// Why it cannot be used any more.
    reason: Option<String>,
    retained: Option<i64>,
    safe: Option<i64>,
    confirmed: Option<Lsn>,
}

impl Slot {
    pub(super) async fn look(
        database: &Database,
        config: &Config,
        server: &Server,
    ) -> Result<Option<Self>, Fault> {
        let reason = match server.version {
            17.. => "coalesce(invalidation_reason, CASE WHEN conflicting THEN 'conflict' END)",
            16 => "CASE WHEN conflicting THEN 'conflict' END",
            _ => "NULL::text",
        };
        let end = if server.standby { "pg_last_wal_replay_lsn()" } else { "pg_current_wal_lsn()" };
        let query = format!(
            "SELECT plugin::text, database::text, active_pid, wal_status, {reason}, \
             pg_wal_lsn_diff({end}, restart_lsn)::int8, safe_wal_size, confirmed_flush_lsn::text \
             FROM pg_replication_slots WHERE slot_name = $1"
        );
        let rows = database.rows("look at the slot", &query, &[&config.slot.as_str()]).await?;
        Ok(rows.first().map(|row| Self {
            plugin: row.get(0),
            database: row.get(1),
            active: row.get(2),
            status: row.get(3),
            reason: row.get(4),
            retained: row.get(5),
            safe: row.get(6),
            confirmed: row.get::<_, Option<String>>(7).and_then(|lsn| lsn.parse().ok()),
        }))
    }

    fn is_lost(&self) -> bool {
        self.status.as_deref() == Some("lost") || self.reason.is_some()
    }
}

pub(super) fn check(facts: &Facts<'_>) -> Vec<Advice> {
    let name = facts.config.slot.as_str();
    let path = format!("slot.{name}");
    let Some(slot) = facts.slot else { return missing(facts, &path).into_iter().collect() };
    let drop = format!("SELECT pg_drop_replication_slot('{name}');");
    if slot.plugin.as_deref() != Some("pgoutput") {
        let plugin = slot.plugin.as_deref().unwrap_or("none: it is a physical slot");
        let message = format!("slot `{name}` has another plugin ({plugin})");
        let remedy = format!("{drop} -- if nobody uses it, or set another `source.slot`");
        return vec![Advice::error(Code::SlotPlugin, path, message).suggest(remedy)];
    }
    if slot.database.as_deref() != Some(facts.config.url.database()) {
        let database = slot.database.as_deref().unwrap_or_default();
        let message = format!("slot `{name}` belongs to database `{database}`");
        let remedy = format!(
            "set another `source.slot` (slot names are shared by all databases of a server), or, \
             if nobody uses it: {drop}"
        );
        return vec![Advice::error(Code::SlotDatabase, path, message).suggest(remedy)];
    }
    if slot.is_lost() {
        let reason = slot.reason.as_deref().unwrap_or("the server removed the log behind it");
        let message = format!("slot `{name}` is invalid: {reason}");
        let remedy =
            format!("{drop} -- its changes are gone: start anew with another `store.path`");
        return vec![Advice::error(Code::SlotLost, path, message).suggest(remedy)];
    }
    [
        found(facts, &path),
        ahead(slot, facts, &path),
        active(slot, facts, &path),
        unreserved(slot, name, &path),
        behind(slot, facts, &path),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn missing(facts: &Facts<'_>, path: &str) -> Option<Advice> {
    let name = facts.config.slot.as_str();
    let create = format!("SELECT {};", options::create_slot(facts.config));
    match facts.local.position() {
        Some(position) => {
            let message = format!("slot `{name}` is gone, and walmill was at {position}");
            Some(
                Advice::error(Code::SlotMissing, path, message).suggest(
                    "what changed since then is lost: start anew with another `store.path`",
                ),
            )
        }
        None if !facts.config.create_slot => {
            let message = format!("slot `{name}` is missing, and `create_slot` is off");
            Some(Advice::error(Code::SlotMissing, path, message).suggest(create))
        }
        // walmill makes it.
        None => None,
    }
}

/// Whether the config asks for a snapshot that only a new slot has.
fn found(facts: &Facts<'_>, path: &str) -> Option<Advice> {
    let past = Some(&facts.local.past).filter(|_| !facts.local.in_use)?;
    let Report { error, remedy } = report(snapshot::check_found(past, facts.config).err()?);
    Some(Advice::error(Code::SlotFound, path, error).suggest(remedy))
}

/// Whether another reader took changes that walmill has not had.
fn ahead(slot: &Slot, facts: &Facts<'_>, path: &str) -> Option<Advice> {
    let (confirmed, position) = (slot.confirmed?, facts.local.position()?);
    (confirmed > position).then(|| {
        let name = facts.config.slot.as_str();
        let message =
            format!("slot `{name}` is at {confirmed}, past walmill's position {position}");
        Advice::error(Code::SlotAhead, path, message).suggest(start_anew(name))
    })
}

fn active(slot: &Slot, facts: &Facts<'_>, path: &str) -> Option<Advice> {
    let pid = slot.active.filter(|_| !facts.local.in_use)?;
    let name = facts.config.slot.as_str();
    let message =
        format!("process {pid} reads slot `{name}`, and it is not a walmill on this data folder");
    let remedy = format!("SELECT pg_terminate_backend({pid}); -- or set another `source.slot`");
    Some(Advice::warning(Code::SlotActive, path, message).suggest(remedy))
}

fn unreserved(slot: &Slot, name: &str, path: &str) -> Option<Advice> {
    (slot.status.as_deref() == Some("unreserved")).then(|| {
        let message = format!("slot `{name}` is about to be lost: the next checkpoint may do it");
        Advice::error(Code::SlotUnreserved, path, message).set("max_slot_wal_keep_size", "100GB")
    })
}

fn behind(slot: &Slot, facts: &Facts<'_>, path: &str) -> Option<Advice> {
    let retained = slot.retained?;
    // Of what it may hold back, less than a quarter is left.
    let tight = match (slot.safe, facts.server.keep_size()) {
        (Some(safe), Some(keep)) => safe < (keep << 20) / 4,
        _ => false,
    };
    let status = slot.status.as_deref();
    if status == Some("unreserved") || (retained < BEHIND && !tight) {
        return None;
    }
    let size = |bytes: i64| ByteSize::new(bytes.max(0).unsigned_abs()).about();
    let left = slot
        .safe
        .map_or(String::new(), |safe| format!(", and is lost when it is {} more", size(safe)));
    let name = facts.config.slot.as_str();
    let message = format!("slot `{name}` holds back {} of log{left}", size(retained));
    Some(Advice::warning(Code::SlotBehind, path, message).suggest(
        "start walmill, or see in its status what holds it up: a full journal, a full disk, an \
         open transaction",
    ))
}
