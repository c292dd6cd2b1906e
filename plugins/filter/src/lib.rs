//! Keeps the rows that meet a condition: see README.md.

mod bind;
mod condition;
mod decimal;
mod lexer;
mod parser;
mod pattern;
mod time;

use condition::Condition;
use parser::Expr;
use serde::Deserialize;
use walmill_plugin::{
    Batch, Cell, Config, Event, Finding, Needs, Op, PerRelation, Plan, Relation, Tables, Transform,
    Verdicts,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    r#where: Option<String>,
    #[serde(default)]
    tables: Tables,
    ops: Option<Vec<Kept>>,
    #[serde(default)]
    on_delete: OnDelete,
    #[serde(default)]
    on_missing: OnMissing,
    #[serde(default)]
    leaving: Leaving,
}

/// An operation to keep.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kept {
    Insert,
    Update,
    Delete,
    Truncate,
    Snapshot,
}

/// What becomes of a delete.
#[derive(Debug, Default, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnDelete {
    /// The condition decides on the old row. Where that has only the key and the condition needs
    /// more, the delete passes: one too many hurts nobody, one too few leaves a dead row behind.
    #[default]
    Match,
    Pass,
    Drop,
}

/// What becomes of a row when the condition needs a value that PostgreSQL did not send.
#[derive(Debug, Default, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnMissing {
    #[default]
    Reject,
    Pass,
    Drop,
}

/// What becomes of an update whose old row met the condition and whose new row doesn't.
#[derive(Debug, Default, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Leaving {
    #[default]
    Drop,
    Pass,
}

struct Filter {
    settings: Settings,
    condition: Option<Expr>,
    tables: PerRelation<Table>,
}

/// The condition as it applies to one table.
struct Table {
    condition: Option<Condition>,
    /// The columns that it needs, for messages.
    columns: Vec<String>,
}

/// What the condition says about a row.
enum Judgement {
    Pass,
    Drop,
    Open,
}

walmill_plugin::export!(Filter);

impl Transform for Filter {
    fn new(config: Config) -> Result<Self, Vec<Finding>> {
        let settings: Settings = config.parse()?;
        let condition = settings.r#where.as_deref().map(parser::parse).transpose();
        let condition = condition.map_err(|error| {
            vec![finding("where", format!("at character {}: {}", error.at, error.message))]
        })?;
        let findings = settings.findings();
        if !findings.is_empty() {
            return Err(findings);
        }
        Ok(Self { settings, condition, tables: PerRelation::new() })
    }

    fn on_relation(&mut self, relation: &Relation) -> Result<Plan, String> {
        if !self.settings.tables.contains(relation) {
            return Ok(Plan::pass());
        }
        let bound = self.condition.as_ref().map(|expr| bind::bind(expr, relation)).transpose()?;
        let (condition, needs) = bound.map_or_else(Default::default, |(c, needs)| (Some(c), needs));
        self.check_old_rows(relation, &needs)?;
        let columns = needs.iter().map(|index| relation.column(index).name.clone()).collect();
        let old = self.settings.leaving == Leaving::Pass || needs.profit_from_old(relation);
        self.tables.insert(relation.id, Table { condition, columns });
        let plan = Plan::call(needs);
        Ok(if old { plan.with_old() } else { plan })
    }

    fn process(&mut self, batch: &Batch, verdicts: &mut Verdicts) -> Result<(), String> {
        for event in batch.events() {
            let Some(table) = self.tables.get(event.relation()) else { continue };
            match self.judge(&event, table) {
                Judgement::Pass => {}
                Judgement::Drop => verdicts.drop(&event),
                Judgement::Open => self.decide_open(&event, table, verdicts),
            }
        }
        Ok(())
    }
}

impl Filter {
    fn judge(&self, event: &Event, table: &Table) -> Judgement {
        if !self.settings.keeps(event.op()) {
            return Judgement::Drop;
        }
        let Some(condition) = &table.condition else { return Judgement::Pass };
        let truth = |row| condition.truth(&row).decided();
        match event.op() {
            Op::Insert | Op::Snapshot => judgement(truth(event.row())),
            Op::Update => match truth(event.row()) {
                Some(false) if self.settings.leaving == Leaving::Pass => {
                    // Without an old row no key column changed, so that it didn't match either.
                    let matched = event.old().is_some_and(|old| truth(old) != Some(false));
                    judgement(Some(matched))
                }
                decided => judgement(decided),
            },
            Op::Delete => match self.settings.on_delete {
                OnDelete::Match => judgement(truth(event.row()).or(Some(true))),
                OnDelete::Pass => Judgement::Pass,
                OnDelete::Drop => Judgement::Drop,
            },
            Op::Truncate | Op::Message | Op::Other(_) => Judgement::Pass,
        }
    }

    fn decide_open(&self, event: &Event, table: &Table, verdicts: &mut Verdicts) {
        match self.settings.on_missing {
            OnMissing::Pass => {}
            OnMissing::Drop => verdicts.drop(event),
            OnMissing::Reject => verdicts.reject(event, table.missing(event)),
        }
    }

    fn check_old_rows(&self, relation: &Relation, needs: &Needs) -> Result<(), String> {
        let unseen = needs.iter().map(|index| relation.column(index)).find(|column| !column.key);
        match unseen {
            Some(column) if self.settings.leaving == Leaving::Pass && !relation.full_old_rows => {
                Err(format!(
                    "`leaving = \"pass\"` needs the old values of `{}`: \
                     alter table {} replica identity full",
                    column.name,
                    relation.name()
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Settings {
    fn keeps(&self, op: Op) -> bool {
        let Some(kept) = &self.ops else { return true };
        match op {
            Op::Insert => kept.contains(&Kept::Insert),
            Op::Update => kept.contains(&Kept::Update),
            Op::Delete => kept.contains(&Kept::Delete),
            Op::Truncate => kept.contains(&Kept::Truncate),
            Op::Snapshot => kept.contains(&Kept::Snapshot),
            Op::Message | Op::Other(_) => true,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.r#where.is_none() && self.ops.is_none() {
            let message = "missing: the condition that rows must meet, as in \"total >= 100\"";
            findings.push(finding("where", message));
        }
        if self.ops.as_ref().is_some_and(Vec::is_empty) {
            findings.push(finding("ops", "keeps nothing; leave it out to keep every operation"));
        }
        findings
    }
}

impl Table {
    fn missing(&self, event: &Event) -> String {
        let row = event.row();
        let columns = self.columns.iter().enumerate();
        let missing: Vec<_> = columns
            .filter(|(index, _)| matches!(row.cell(*index), Cell::Unchanged | Cell::Other(_)))
            .map(|(_, name)| format!("`{name}`"))
            .collect();
        format!(
            "the condition needs {}, which the update left unchanged and PostgreSQL did not send \
             (a large value); use replica identity full, or set `on_missing`",
            missing.join(", ")
        )
    }
}

fn judgement(decided: Option<bool>) -> Judgement {
    match decided {
        Some(true) => Judgement::Pass,
        Some(false) => Judgement::Drop,
        None => Judgement::Open,
    }
}

fn finding(path: &str, message: impl Into<String>) -> Finding {
    Finding { path: path.into(), message: message.into() }
}
