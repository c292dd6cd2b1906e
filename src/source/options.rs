//! What a server of its version can be asked for: the options of the stream, of the slot and of the
//! publication.

use super::config::{Config, Origins};
use super::fault::{Fault, quote};

/// Logical messages and open transactions come since then.
const STREAMING: u32 = 14;
const TWO_PHASE: u32 = 15;
const ORIGIN: u32 = 16;
const FAILOVER: u32 = 17;
const GENERATED_COLUMNS: u32 = 18;

/// Whether the server can do all that the config asks of it.
pub(super) fn check(config: &Config, version: u32) -> Result<(), Fault> {
    let wishes = [
        (config.two_phase, "two_phase = true", TWO_PHASE),
        (config.origin == Origins::None, "origin = \"none\"", ORIGIN),
        (config.failover, "failover = true", FAILOVER),
        (config.publish_generated_columns, "publish_generated_columns = true", GENERATED_COLUMNS),
    ];
    let missing = wishes.into_iter().find(|(asked, _, since)| *asked && version < *since);
    let Some((_, wish, since)) = missing else { return Ok(()) };
    Err(Fault::person(
        format!("`{wish}` in [source] needs PostgreSQL {since}, and this is {version}"),
        format!("remove it from the config, or use PostgreSQL {since} or later"),
    ))
}

/// How transactions come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transactions {
    /// As the config says.
    AsConfigured,
    /// When they have committed, whatever the config says.
    Whole,
}

/// What stands in parentheses behind START_REPLICATION.
pub(super) fn stream(config: &Config, version: u32, transactions: Transactions) -> String {
    let streaming =
        config.streaming && transactions == Transactions::AsConfigured && version >= STREAMING;
    let protocol = match version {
        _ if !streaming && !config.two_phase => 1,
        ..STREAMING => 1,
        STREAMING..TWO_PHASE => 2,
        TWO_PHASE..ORIGIN => 3,
        _ => 4,
    };
    // The list of names is itself text with identifiers in it.
    let publication = quote(config.publication.as_str()).replace('\'', "''");
    let mut options = format!("proto_version '{protocol}', publication_names '{publication}'");
    for (asked, option) in [
        (version >= STREAMING, ", messages 'true'"),
        (streaming, ", streaming 'on'"),
        (config.two_phase, ", two_phase 'on'"),
        (config.origin == Origins::None, ", origin 'none'"),
    ] {
        options.push_str(if asked { option } else { "" });
    }
    options
}

/// The call that creates the slot.
pub(super) fn create_slot(config: &Config) -> String {
    let slot = config.slot.as_str();
    let named = [(config.two_phase, ", twophase => true"), (config.failover, ", failover => true")];
    let named: String = named.iter().filter(|(asked, _)| *asked).map(|(_, name)| *name).collect();
    format!("pg_create_logical_replication_slot('{slot}', 'pgoutput'{named})")
}

/// What stands behind CREATE_REPLICATION_SLOT … LOGICAL pgoutput, for a slot that exports its
/// snapshot.
pub(super) fn exporting_slot(config: &Config, version: u32) -> String {
    // Before there were parentheses, there was nothing else to ask for.
    if version < TWO_PHASE {
        return "EXPORT_SNAPSHOT".into();
    }
    let asked = [(config.two_phase, ", TWO_PHASE"), (config.failover, ", FAILOVER")];
    let asked: String = asked.iter().filter(|(asked, _)| *asked).map(|(_, name)| *name).collect();
    format!("(SNAPSHOT 'export'{asked})")
}

/// What stands in parentheses behind CREATE PUBLICATION.
pub(super) fn publication(config: &Config) -> String {
    // The root's name is what people know; a partition is a detail of storage.
    let root = config.publish_via_partition_root;
    let generated = match config.publish_generated_columns {
        true => ", publish_generated_columns = stored",
        false => "",
    };
    format!("publish_via_partition_root = {root}{generated}")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn config() -> Config {
        Config::new("postgres://u@localhost/shop".parse().unwrap())
    }

    #[track_caller]
    fn streams(config: &Config, version: u32, options: Expect) {
        options.assert_eq(&stream(config, version, Transactions::AsConfigured));
    }

    #[test]
    fn the_protocol_is_the_newest_that_the_server_has_and_the_config_needs() {
        streams(&config(), 13, expect![[r#"proto_version '1', publication_names '"walmill"'"#]]);
        streams(
            &config(),
            14,
            expect![[
                r#"proto_version '2', publication_names '"walmill"', messages 'true', streaming 'on'"#
            ]],
        );
        streams(
            &config(),
            15,
            expect![[
                r#"proto_version '3', publication_names '"walmill"', messages 'true', streaming 'on'"#
            ]],
        );
        streams(
            &config(),
            18,
            expect![[
                r#"proto_version '4', publication_names '"walmill"', messages 'true', streaming 'on'"#
            ]],
        );
        expect![[r#"proto_version '1', publication_names '"walmill"', messages 'true'"#]]
            .assert_eq(&stream(&config(), 18, Transactions::Whole));
        streams(
            &Config { streaming: false, ..config() },
            18,
            expect![[r#"proto_version '1', publication_names '"walmill"', messages 'true'"#]],
        );
        let prepared = Config { streaming: false, two_phase: true, ..config() };
        streams(
            &prepared,
            15,
            expect![[
                r#"proto_version '3', publication_names '"walmill"', messages 'true', two_phase 'on'"#
            ]],
        );
        streams(
            &Config { origin: Origins::None, ..config() },
            16,
            expect![[
                r#"proto_version '4', publication_names '"walmill"', messages 'true', streaming 'on', origin 'none'"#
            ]],
        );
    }

    #[test]
    fn slot_and_publication_are_made_with_what_the_config_asks_for() {
        expect!["pg_create_logical_replication_slot('walmill', 'pgoutput')"]
            .assert_eq(&create_slot(&config()));
        let all =
            Config { two_phase: true, failover: true, publish_generated_columns: true, ..config() };
        expect!["pg_create_logical_replication_slot('walmill', 'pgoutput', twophase => true, failover => true)"].assert_eq(&create_slot(&all));
        expect!["EXPORT_SNAPSHOT"].assert_eq(&exporting_slot(&config(), 14));
        expect!["(SNAPSHOT 'export')"].assert_eq(&exporting_slot(&config(), 15));
        expect!["(SNAPSHOT 'export', TWO_PHASE, FAILOVER)"].assert_eq(&exporting_slot(&all, 17));
        expect!["publish_via_partition_root = true"].assert_eq(&publication(&config()));
        let leaves = Config { publish_via_partition_root: false, ..all };
        expect!["publish_via_partition_root = false, publish_generated_columns = stored"]
            .assert_eq(&publication(&leaves));
    }

    #[test]
    fn what_the_server_is_too_old_for_is_named_with_the_version_that_has_it() {
        let fault = |config: &Config, version| match check(config, version) {
            Err(Fault::Person(report)) => report.error,
            other => format!("{other:?}"),
        };
        let origin = Config { origin: Origins::None, ..config() };
        expect![[r#"`origin = "none"` in [source] needs PostgreSQL 16, and this is 15"#]]
            .assert_eq(&fault(&origin, 15));
        let failover = Config { failover: true, ..config() };
        expect!["`failover = true` in [source] needs PostgreSQL 17, and this is 16"]
            .assert_eq(&fault(&failover, 16));
        assert!(check(&Config { failover: true, ..origin }, 17).is_ok());
        assert!(check(&config(), 13).is_ok());
    }
}
