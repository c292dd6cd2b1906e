//! Drops what has come already within a window of commit time: see README.md.

mod seen;
mod settings;

use seen::Seen;
use settings::Settings;
use walmill_plugin::{
    Batch, Config, Event, Finding, Needs, Op, PerRelation, Plan, Relation, Transform, Verdicts,
    text,
};

struct Deduplicate {
    settings: Settings,
    tables: PerRelation<Table>,
}

/// A table's name, and which of its key's columns are zoned.
struct Table {
    name: String,
    zoned: Vec<bool>,
}

walmill_plugin::export!(Deduplicate);

impl Transform for Deduplicate {
    const WANTS: &[&str] = &["kv"];

    fn new(config: Config) -> Result<Self, Vec<Finding>> {
        Ok(Self { settings: Settings::read(&config)?, tables: PerRelation::new() })
    }

    fn on_relation(&mut self, relation: &Relation) -> Result<Plan, String> {
        if !self.settings.tables.contains(relation) {
            return Ok(Plan::pass());
        }
        let mut needs = Needs::default();
        for column in &self.settings.by {
            needs.add(relation.require(column)?);
        }
        let zoned = needs.iter().map(|index| text::is_zoned(relation.column(index))).collect();
        self.tables.insert(relation.id, Table { name: relation.name(), zoned });
        let old = needs.profit_from_old(relation);
        let plan = Plan::call(needs).with_envelope();
        Ok(if old { plan.with_old() } else { plan })
    }

    fn process(&mut self, batch: &Batch, verdicts: &mut Verdicts) -> Result<(), String> {
        // Read anew for each batch: what a failed one has seen is forgotten with it.
        let mut seen = Seen::within(self.settings.window.micros());
        for event in batch.events() {
            let Some(table) = self.tables.get(event.relation()) else { continue };
            let is_row = matches!(event.op(), Op::Insert | Op::Update | Op::Snapshot);
            let (true, Some(key)) = (is_row, table.key(&event)) else { continue };
            let time = event.time().ok_or("walmill did not send the commit time")?;
            if seen.is_repeat(&key, time)? {
                verdicts.drop(&event);
            }
        }
        seen.write()
    }
}

impl Table {
    /// What makes two rows one; none when a value is null or was not sent. A value is led by its
    /// length, so that no two rows are taken for one.
    fn key(&self, event: &Event) -> Option<String> {
        let (mut key, mut value) = (self.name.clone(), String::new());
        for (cell, &zoned) in event.row().cells().zip(&self.zoned) {
            value.clear();
            text::append(&mut value, cell, zoned).then_some(())?;
            key.push_str(&format!("/{}:{value}", value.len()));
        }
        Some(key)
    }
}
