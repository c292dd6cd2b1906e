//! What [`export!`](crate::export) puts between the world's functions and a
//! [`Transform`](crate::Transform), and [`filter!`](crate::filter) into one.

use crate::batch::Announced;
use crate::bindings::exports::walmill::plugin::lifecycle::Setup;
use crate::bindings::walmill::plugin::types;
use crate::{
    Batch, Cell, Config, Finding, Needs, Op, PerRelation, Plan, Relation, Row, Transform, Verdicts,
};

/// The instance's plugin, from `init` on.
pub struct Running<T> {
    plugin: Option<T>,
    announced: PerRelation<Announced>,
}

impl<T: Transform> Running<T> {
    /// Nothing yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "made in one place, in a const")]
    pub const fn new() -> Self {
        Self { plugin: None, announced: PerRelation::new() }
    }

    /// The world's `init`.
    ///
    /// # Errors
    /// What the plugin finds wrong with its configuration.
    pub fn init(&mut self, setup: Setup) -> Result<(), Vec<Finding>> {
        self.plugin = Some(T::new(Config::new(setup))?);
        Ok(())
    }

    /// The world's `on-relation`.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn on_relation(&mut self, relation: &types::Relation) -> Result<types::Plan, String> {
        let plan = self.plugin.as_mut().ok_or(NO_INIT)?.on_relation(relation)?;
        self.announced.insert(relation.id, Announced::new(relation, &plan));
        Ok(plan)
    }

    /// The world's `process`.
    ///
    /// # Errors
    /// The plugin's own, and answers that do not follow the order of the events.
    pub fn process(&mut self, batch: &types::Batch) -> Result<types::Outcome, String> {
        let plugin = self.plugin.as_mut().ok_or(NO_INIT)?;
        let mut verdicts = Verdicts::new(batch.count as usize);
        plugin.process(&Batch::new(batch, &self.announced), &mut verdicts)?;
        verdicts.finish()
    }
}

const NO_INIT: &str = "the plugin has no configuration yet: `init` comes first";

/// The plan of a filter that looks at these columns.
///
/// # Errors
/// The table lacks one.
pub fn need(relation: &Relation, columns: &[&str]) -> Result<Plan, String> {
    let mut needs = Needs::default();
    for column in columns {
        needs.add(relation.require(column)?);
    }
    let old = needs.profit_from_old(relation);
    let plan = Plan::call(needs);
    Ok(if old { plan.with_old() } else { plan })
}

/// Drops the rows that are not to be kept.
pub fn filter(batch: &Batch, verdicts: &mut Verdicts, keep: impl Fn(Row<'_>) -> bool) {
    for event in batch.events() {
        let is_row = matches!(event.op(), Op::Insert | Op::Update | Op::Delete | Op::Snapshot);
        let row = event.row();
        let known = |cell: Cell| !matches!(cell, Cell::Absent | Cell::Unchanged);
        if is_row && row.cells().all(known) && !keep(row) {
            verdicts.drop(&event);
        }
    }
}
