//! Ways to break a promise on purpose, so that the soak can show that it notices (`tests/soak`).
//!
//! They are for tests alone. Without the feature `mutations`, which is in no build that anybody
//! runs, [`is_on`] is the constant `false` and nothing of them is compiled. With it, all is as
//! usual unless `WALMILL_MUTATION` names one.

/// A promise that is broken, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// PostgreSQL may forget what has arrived, before the journal has it on disk.
    ConfirmEarly,
    /// What is written is said to be on disk without a sync.
    SkipSync,
    /// An output's checkpoint is not written.
    ForgetCheckpoint,
    /// A pipeline's cursor is written first, and what belongs to it later.
    SplitCommit,
    /// A key's next event is sent before the one that failed is tried again.
    Overtake,
    /// What failed counts as delivered.
    DropFailed,
    /// Memory is never given back.
    Hoard,
}

/// Whether this promise is broken.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
#[must_use]
pub const fn is_on(_mutation: Mutation) -> bool {
    false
}

/// Whether this promise is broken.
#[cfg(feature = "mutations")]
#[must_use]
pub fn is_on(mutation: Mutation) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Mutation>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(chosen) == Some(mutation)
}

#[cfg(feature = "mutations")]
fn chosen() -> Option<Mutation> {
    let name = std::env::var("WALMILL_MUTATION").ok()?;
    let mutation = match name.as_str() {
        "confirm-early" => Mutation::ConfirmEarly,
        "skip-sync" => Mutation::SkipSync,
        "forget-checkpoint" => Mutation::ForgetCheckpoint,
        "split-commit" => Mutation::SplitCommit,
        "overtake" => Mutation::Overtake,
        "drop-failed" => Mutation::DropFailed,
        "hoard" => Mutation::Hoard,
        _ => return None,
    };
    tracing::warn!("this walmill breaks a promise on purpose: {mutation:?}");
    Some(mutation)
}
