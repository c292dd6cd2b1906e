//! The server's settings, and what holds it back.

use std::collections::HashMap;

use super::advice::Advice;
use super::code::Code;
use super::{Database, Facts, Fault, Report, report};
use crate::model::clock;
use crate::source::database::OLDEST;
use crate::source::options;

/// The first version whose standbys decode.
const DECODING_STANDBY: i32 = 16;
/// Seconds that two clocks may differ.
const CLOCK: f64 = 2.0;
/// MiB of log that an outage of some length needs.
const KEEP_SMALL: i64 = 1024;
/// Milliseconds below which a busy network looks like a dead one.
const TIMEOUT_SHORT: i64 = 5_000;
/// KiB below which transactions of some size go through the server's disk.
const DECODING_SMALL: i64 = 16 << 10;
/// Seconds after which a transaction holds things up: the making of a slot, and its progress.
const OPEN_FOR_CREATION: f64 = 5.0;
const OPEN_FOR_PROGRESS: f64 = 3_600.0;

/// What the server says about itself.
pub(super) struct Server {
    pub(super) version: i32,
    pub(super) standby: bool,
    settings: HashMap<String, String>,
    encoding: String,
    slots: i64,
    senders: i64,
    /// Seconds that its clock is before ours.
    ahead: f64,
}

const SETTINGS: [&str; 8] = [
    "wal_level",
    "max_replication_slots",
    "max_wal_senders",
    "max_slot_wal_keep_size",
    "wal_sender_timeout",
    "idle_replication_slot_timeout",
    "logical_decoding_work_mem",
    "synchronous_standby_names",
];

impl Server {
    pub(super) async fn look(database: &Database) -> Result<Self, Fault> {
        let query = "SELECT current_setting('server_version_num')::int / 10000, \
                     pg_is_in_recovery(), pg_encoding_to_char(encoding)::text, \
                     (SELECT count(*) FROM pg_replication_slots), \
                     (SELECT count(*) FROM pg_stat_replication), \
                     extract(epoch FROM clock_timestamp())::float8 \
                     FROM pg_database WHERE datname = current_database()";
        let before = clock::now();
        let row = database.row("look at the server", query, &[]).await?;
        let ours = before.midpoint(clock::now());
        let query = "SELECT name, setting FROM pg_settings WHERE name = ANY ($1)";
        let settings = database.rows("look at the settings", query, &[&&SETTINGS[..]]).await?;
        Ok(Self {
            version: row.get(0),
            standby: row.get(1),
            encoding: row.get(2),
            slots: row.get(3),
            senders: row.get(4),
            ahead: row.get::<_, f64>(5) - ours as f64 / 1e6,
            settings: settings.iter().map(|row| (row.get(0), row.get(1))).collect(),
        })
    }

    pub(super) fn too_old(&self) -> Option<Advice> {
        let message = format!("the server is PostgreSQL {}", self.version);
        (self.version < OLDEST).then(|| {
            Advice::error(Code::ServerVersion, "server.version", message)
                .suggest(format!("use PostgreSQL {OLDEST} or later"))
        })
    }

    /// What the config asks for and a server of this version does not have.
    fn wishes(&self, facts: &Facts<'_>) -> Option<Advice> {
        let version = u32::try_from(self.version).ok()?;
        let Report { error, remedy } = report(options::check(facts.config, version).err()?);
        Some(Advice::error(Code::ServerVersion, "server.version", error).suggest(remedy))
    }

    fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.setting(name).parse().ok()
    }

    /// MiB of log that a slot may hold back, if that has a bound.
    pub(super) fn keep_size(&self) -> Option<i64> {
        self.number("max_slot_wal_keep_size").filter(|size| *size >= 0)
    }

    pub(super) fn check(&self, facts: &Facts<'_>) -> Vec<Advice> {
        [
            self.wishes(facts),
            self.wal_level(),
            self.slots(facts),
            self.senders(facts),
            self.keep(),
            self.timeout(),
            self.idle(),
            self.memory(),
            self.encoding(),
            clock(self.ahead),
            self.standby(),
            synchronous(
                self.setting("synchronous_standby_names"),
                &facts.config.url.application_name,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn wal_level(&self) -> Option<Advice> {
        let level = self.setting("wal_level");
        (level != "logical").then(|| {
            let message = format!("wal_level is `{level}`: the log does not say what rows hold");
            Advice::error(Code::WalLevel, "server.wal_level", message).suggest(
                "ALTER SYSTEM SET wal_level = 'logical'; -- then restart PostgreSQL (on RDS: \
                 rds.logical_replication = 1)",
            )
        })
    }

    fn slots(&self, facts: &Facts<'_>) -> Option<Advice> {
        let most = self.number("max_replication_slots")?;
        (facts.slot.is_none() && self.slots >= most).then(|| {
            let message = format!("all {most} replication slots are taken, and walmill needs one");
            Advice::error(Code::MaxReplicationSlots, "server.max_replication_slots", message)
                .suggest(format!(
                    "ALTER SYSTEM SET max_replication_slots = {}; -- then restart PostgreSQL",
                    self.slots + 4
                ))
        })
    }

    fn senders(&self, facts: &Facts<'_>) -> Option<Advice> {
        let most = self.number("max_wal_senders")?;
        // A running walmill has one of them.
        let ours = i64::from(facts.slot.is_some_and(|slot| slot.active.is_some()));
        let (path, left) = ("server.max_wal_senders", most - self.senders + ours);
        let message =
            format!("{most} readers of the log are allowed, and {} are there", self.senders);
        let remedy = format!(
            "ALTER SYSTEM SET max_wal_senders = {}; -- then restart PostgreSQL",
            self.senders + 6
        );
        match left {
            ..=0 => Some(Advice::error(Code::MaxWalSenders, path, message).suggest(remedy)),
            1 => {
                let message = format!("{message}: none is left beside walmill's");
                Some(Advice::warning(Code::MaxWalSenders, path, message).suggest(remedy))
            }
            _ => None,
        }
    }

    fn keep(&self) -> Option<Advice> {
        let (name, path) = ("max_slot_wal_keep_size", "server.max_slot_wal_keep_size");
        match self.keep_size() {
            None => {
                let message = "a slot may hold back log without end: while walmill is away, the \
                               server's disk can fill";
                Some(Advice::warning(Code::KeepSizeUnlimited, path, message).set(name, "10GB"))
            }
            Some(size) if size < KEEP_SMALL => {
                let message = format!(
                    "a slot may hold back {size} MB of log only: it is lost after a short outage"
                );
                Some(Advice::warning(Code::KeepSizeSmall, path, message).set(name, "10GB"))
            }
            Some(_) => None,
        }
    }

    fn timeout(&self) -> Option<Advice> {
        let message = match self.number("wal_sender_timeout")? {
            0 => "the server waits for a dead reader for ever, and its slot stays taken".to_owned(),
            millis if millis < TIMEOUT_SHORT => {
                format!(
                    "the server gives up on a reader after {millis} ms: a short pause is enough"
                )
            }
            _ => return None,
        };
        let advice = Advice::warning(Code::WalSenderTimeout, "server.wal_sender_timeout", message);
        Some(advice.set("wal_sender_timeout", "1min"))
    }

    fn idle(&self) -> Option<Advice> {
        let name = "idle_replication_slot_timeout";
        self.number(name).filter(|limit| *limit > 0)?;
        let message = "the server gives up a slot that nobody reads for a while: after a longer \
                       outage its changes are lost";
        let advice = Advice::warning(Code::IdleSlotTimeout, format!("server.{name}"), message);
        Some(advice.set(name, "0"))
    }

    fn memory(&self) -> Option<Advice> {
        let name = "logical_decoding_work_mem";
        let size = self.number(name).filter(|size| *size < DECODING_SMALL)?;
        let message = format!("transactions of more than {size} kB go through the server's disk");
        let advice = Advice::warning(Code::DecodingMemory, format!("server.{name}"), message);
        Some(advice.set(name, "64MB"))
    }

    fn encoding(&self) -> Option<Advice> {
        (self.encoding == "SQL_ASCII").then(|| {
            let message = "the database's encoding is SQL_ASCII: nothing says what its bytes mean";
            Advice::warning(Code::SqlAscii, "server.encoding", message).suggest(
                "CREATE DATABASE \"new\" ENCODING 'UTF8' TEMPLATE template0; -- and move the data \
                 there with pg_dump",
            )
        })
    }

    fn standby(&self) -> Option<Advice> {
        if !self.standby {
            return None;
        }
        let path = "source.url";
        let remedy = "name the primary in `source.url`, or name all servers with \
                      `target_session_attrs=primary`";
        Some(match self.version >= DECODING_STANDBY {
            true => {
                let message = "the server is a standby: a slot's creation waits for the primary, \
                               and the publication must be made there";
                Advice::warning(Code::Standby, path, message).suggest(remedy)
            }
            false => {
                let message = format!(
                    "the server is a standby, and those of PostgreSQL {} cannot decode",
                    self.version
                );
                Advice::error(Code::Standby, path, message).suggest(remedy)
            }
        })
    }
}

fn clock(ahead: f64) -> Option<Advice> {
    (ahead.abs() > CLOCK).then(|| {
        let message = format!(
            "the server's clock is {:.0} s {} ours: lags and ages are off by that",
            ahead.abs(),
            if ahead > 0.0 { "ahead of" } else { "behind" }
        );
        Advice::warning(Code::Clock, "server.clock", message)
            .suggest("set both clocks by NTP (`timedatectl set-ntp true`)")
    })
}

/// Whether commits would wait for walmill, as if it were a standby.
fn synchronous(names: &str, own: &str) -> Option<Advice> {
    let mut words = names
        .split(|c: char| c == ',' || c == '(' || c == ')' || c.is_whitespace())
        .map(|word| word.trim_matches('"'));
    let named = words.find(|word| *word == "*" || word.eq_ignore_ascii_case(own))?;
    let remedy = match named {
        "*" => {
            "ALTER SYSTEM SET synchronous_standby_names = '…'; -- the standbys by their names, \
                not `*`, and SELECT pg_reload_conf()"
        }
        _ => "give walmill another `application_name` in `source.url`",
    };
    let message = format!(
        "synchronous_standby_names has `{named}`, which fits walmill: commits may wait for it as \
         for a standby"
    );
    let path = "server.synchronous_standby_names";
    Some(Advice::warning(Code::SynchronousStandby, path, message).suggest(remedy))
}

/// What the making of the slot, or its progress, waits for.
pub(super) async fn waiting(database: &Database, facts: &Facts<'_>) -> Result<Vec<Advice>, Fault> {
    let (limit, what) = match facts.slot {
        None => (OPEN_FOR_CREATION, "the slot's creation waits for it"),
        Some(_) => (OPEN_FOR_PROGRESS, "the server keeps its log since then"),
    };
    let prepared_limit = if facts.slot.is_none() { 0.0 } else { limit };
    let query = "SELECT gid, database::text, quote_literal(gid) FROM pg_prepared_xacts \
                 WHERE extract(epoch FROM clock_timestamp() - prepared)::float8 > $1 ORDER BY 1";
    let prepared =
        database.rows("look for prepared transactions", query, &[&prepared_limit]).await?;
    let prepared = prepared.iter().map(|row| {
        let (gid, database, quoted): (String, String, String) =
            (row.get(0), row.get(1), row.get(2));
        let message = format!("transaction `{gid}` is prepared in `{database}`; {what}");
        Advice::warning(Code::PreparedTransaction, "server.transactions", message).suggest(format!(
            "ROLLBACK PREPARED {quoted}; -- or COMMIT PREPARED, in database {database}"
        ))
    });
    let query = "SELECT pid, (extract(epoch FROM clock_timestamp() - xact_start))::int8 \
                 FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() \
                 AND extract(epoch FROM clock_timestamp() - xact_start)::float8 > $1 ORDER BY 1";
    let open = database.rows("look for open transactions", query, &[&limit]).await?;
    let open = open.iter().map(|row| {
        let (pid, age): (i32, i64) = (row.get(0), row.get(1));
        let message = format!("a transaction of process {pid} is open for {age} s; {what}");
        Advice::warning(Code::OldTransaction, "server.transactions", message)
            .suggest(format!("SELECT pg_terminate_backend({pid}); -- if nobody needs it"))
    });
    Ok(prepared.chain(open).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_told() {
        assert_eq!(clock(1.5), None);
        let told = |ahead| clock(ahead).map(|advice| advice.finding.message).unwrap_or_default();
        assert!(told(60.2).contains("60 s ahead of"));
        assert!(told(-3.0).contains("3 s behind"));
    }

    #[test]
    fn names_of_synchronous_standbys_are_found_in_every_form() {
        let fits = |names| synchronous(names, "walmill").is_some();
        for names in ["*", "walmill", "FIRST 1 (a, WALMILL)", "ANY 2 (\"walmill\",b)", "2 (a, *)"] {
            assert!(fits(names), "{names}");
        }
        for names in ["", "a, b", "ANY 1 (walmill2)"] {
            assert!(!fits(names), "{names}");
        }
    }
}
