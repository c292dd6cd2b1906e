//! The short fixed words for what a check finds. Each is in docs/doctor.md with cause and remedy.

/// Writes the enum and its words, so that neither can lack one of the other's.
macro_rules! codes {
    ($($variant:ident = $word:literal,)*) => {
        /// What a check found.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Code {
            $(
                #[doc = $word]
                $variant,
            )*
        }

        impl Code {
            pub(super) fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        const WORDS: &[&str] = &[$($word,)*];
    };
}

codes! {
    Unreachable = "unreachable",
    QueryFailed = "query-failed",
    NoReplication = "no-replication",
    ServerVersion = "server-version",
    WalLevel = "wal-level",
    MaxReplicationSlots = "max-replication-slots",
    MaxWalSenders = "max-wal-senders",
    KeepSizeUnlimited = "keep-size-unlimited",
    KeepSizeSmall = "keep-size-small",
    WalSenderTimeout = "wal-sender-timeout",
    IdleSlotTimeout = "idle-slot-timeout",
    DecodingMemory = "decoding-memory",
    SqlAscii = "sql-ascii",
    Clock = "clock",
    Standby = "standby",
    SynchronousStandby = "synchronous-standby",
    PreparedTransaction = "prepared-transaction",
    OldTransaction = "old-transaction",
    TlsOff = "tls-off",
    TlsUnverified = "tls-unverified",
    RoleReplication = "role-replication",
    RoleSuperuser = "role-superuser",
    RoleSelect = "role-select",
    RoleCreate = "role-create",
    RoleOwner = "role-owner",
    SlotMissing = "slot-missing",
    SlotPlugin = "slot-plugin",
    SlotDatabase = "slot-database",
    SlotActive = "slot-active",
    SlotLost = "slot-lost",
    SlotUnreserved = "slot-unreserved",
    SlotBehind = "slot-behind",
    SlotAhead = "slot-ahead",
    SlotFound = "slot-found",
    PublicationMissing = "publication-missing",
    PublicationTables = "publication-tables",
    PublicationOperations = "publication-operations",
    PublicationRoot = "publication-root",
    PublicationFilter = "publication-filter",
    PublicationColumns = "publication-columns",
    TableMissing = "table-missing",
    NotATable = "not-a-table",
    ForeignTable = "foreign-table",
    Unlogged = "unlogged",
    Partition = "partition",
    Inherited = "inherited",
    NoIdentity = "no-identity",
    IdentityNothing = "identity-nothing",
    IdentityIndex = "identity-index",
    Toast = "toast",
    DataFolder = "data-folder",
    DiskFull = "disk-full",
    DiskSmall = "disk-small",
    Origin = "origin",
}

/// Every code.
#[must_use]
pub fn codes() -> &'static [&'static str] {
    WORDS
}
