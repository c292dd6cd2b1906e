//! What the role may do.

use super::advice::Advice;
use super::code::Code;
use super::{Database, Facts, Fault};
use crate::source::config::Snapshot;
use crate::source::fault::quote;
use crate::source::publication::create_statement;

/// Who we are to the server.
pub(super) struct Role {
    name: String,
    superuser: bool,
    replication: bool,
    /// May create in the database.
    create: bool,
    database: String,
}

impl Role {
    pub(super) async fn look(database: &Database) -> Result<Self, Fault> {
        // On RDS the right to replicate is a role's and not an attribute.
        let query = "SELECT r.rolname::text, r.rolsuper, r.rolreplication OR EXISTS \
                     (SELECT 1 FROM pg_roles g WHERE g.rolname = 'rds_replication' \
                     AND pg_has_role(r.oid, g.oid, 'MEMBER')), \
                     has_database_privilege(current_database(), 'CREATE'), \
                     current_database()::text FROM pg_roles r WHERE r.rolname = current_user";
        let row = database.row("look at the role", query, &[]).await?;
        Ok(Self {
            name: row.get(0),
            superuser: row.get(1),
            replication: row.get(2),
            create: row.get(3),
            database: row.get(4),
        })
    }

    pub(super) fn check(&self, facts: &Facts<'_>) -> Vec<Advice> {
        let mut advice = Vec::new();
        let (path, name) = (format!("role.{}", self.name), quote(&self.name));
        if self.superuser {
            let message = format!("`{}` is a superuser, and walmill needs far less", self.name);
            advice.push(Advice::warning(Code::RoleSuperuser, &path, message).suggest(
                "CREATE ROLE walmill LOGIN REPLICATION PASSWORD '…'; -- and connect as that one",
            ));
        } else if !self.replication {
            let message = format!("`{}` may not read the log", self.name);
            advice.push(Advice::error(Code::RoleReplication, &path, message).suggest(format!(
                "ALTER ROLE {name} REPLICATION; -- as a superuser (on RDS: GRANT rds_replication \
                 TO {name})"
            )));
        }
        if facts.config.snapshot != Snapshot::Never {
            advice.extend(facts.tables.iter().filter(|table| !table.readable).map(|table| {
                let message = format!(
                    "`{}` may not read {}, which the snapshot copies",
                    self.name,
                    table.name()
                );
                Advice::error(Code::RoleSelect, table.path(), message)
                    .fix([format!("GRANT SELECT ON {} TO {name}", table.quoted())])
            }));
        }
        if facts.publication.is_none() && facts.config.create_publication {
            advice.extend(self.may_publish(facts, &path));
        }
        advice
    }

    /// What keeps the role from making the publication.
    fn may_publish(&self, facts: &Facts<'_>, path: &str) -> Vec<Advice> {
        let mut advice = Vec::new();
        let publication = &facts.config.publication;
        if !self.create {
            let message = format!("`{}` may not make the publication `{publication}`", self.name);
            let database = quote(&self.database);
            let grant = format!("GRANT CREATE ON DATABASE {database} TO {}", quote(&self.name));
            advice.push(Advice::error(Code::RoleCreate, path, message).fix([grant]));
        }
        let others: Vec<&str> =
            facts.tables.iter().filter(|table| !table.owned).map(|table| table.name()).collect();
        if !others.is_empty() {
            let message = format!(
                "`{}` does not own {}, so it cannot publish them",
                self.name,
                others.join(", ")
            );
            let tables: Vec<_> = facts.tables.iter().map(|table| &table.table).collect();
            advice.push(
                Advice::error(Code::RoleOwner, path, message)
                    .fix([create_statement(facts.config, &tables)]),
            );
        }
        advice
    }
}
