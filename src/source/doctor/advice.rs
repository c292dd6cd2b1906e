//! A finding with what mends it.

use super::code::Code;
use crate::model::{Finding, Severity};

/// What is wrong, and the SQL that mends it, where it is safe to run while the server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// For the one who reads it. The suggestion is SQL that can be run as it is (what must be known
    /// beside it stands behind `--`), or a sentence where no SQL helps.
    pub finding: Finding,
    /// What `--fix` runs, each statement by itself.
    pub fix: Vec<String>,
    code: Code,
}

impl Advice {
    pub(super) fn error(code: Code, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { finding: Finding::error(code.word(), path, message), fix: Vec::new(), code }
    }

    pub(super) fn warning(code: Code, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { finding: Finding::warning(code.word(), path, message), fix: Vec::new(), code }
    }

    /// What helps, in words or in SQL that a person has to run.
    pub(super) fn suggest(self, suggestion: impl Into<String>) -> Self {
        Self { finding: self.finding.suggest(suggestion), ..self }
    }

    /// SQL that helps and does no harm.
    pub(super) fn fix<S: Into<String>>(self, statements: impl IntoIterator<Item = S>) -> Self {
        let fix: Vec<String> = statements.into_iter().map(Into::into).collect();
        let text: Vec<String> = fix.iter().map(|statement| format!("{statement};")).collect();
        Self { fix, ..self.suggest(text.join(" ")) }
    }

    /// A setting that is in force after a reload.
    pub(super) fn set(self, name: &str, value: &str) -> Self {
        self.fix([format!("ALTER SYSTEM SET {name} = '{value}'"), "SELECT pg_reload_conf()".into()])
    }

    /// Whether there cannot be a replication connection because of this.
    pub(super) fn stops_replication(&self) -> bool {
        let stops =
            matches!(self.code, Code::WalLevel | Code::MaxWalSenders | Code::RoleReplication);
        stops && self.finding.severity == Severity::Error
    }
}
