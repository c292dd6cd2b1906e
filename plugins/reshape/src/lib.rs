//! Gives rows another shape: see README.md.

mod layout;
mod mask;
mod settings;

use layout::{COMPUTED, Layout, Scratch, layout};
use settings::Settings;
use walmill_plugin::{
    Batch, Config, Finding, Op, PerRelation, Plan, Relation, Transform, Verdicts,
};

struct Reshape {
    settings: Settings,
    layouts: PerRelation<Layout>,
    scratch: Scratch,
}

walmill_plugin::export!(Reshape);

impl Transform for Reshape {
    fn new(config: Config) -> Result<Self, Vec<Finding>> {
        let settings = Settings::read(&config)?;
        Ok(Self { settings, layouts: PerRelation::new(), scratch: Scratch::default() })
    }

    fn on_relation(&mut self, relation: &Relation) -> Result<Plan, String> {
        if !self.settings.tables.contains(relation) {
            return Ok(Plan::pass());
        }
        let (plan, layout) = layout(&self.settings, relation)?;
        self.layouts.insert(relation.id, layout);
        Ok(plan)
    }

    fn process(&mut self, batch: &Batch, verdicts: &mut Verdicts) -> Result<(), String> {
        for event in batch.events() {
            let Some(layout) = self.layouts.get(event.relation()) else { continue };
            if matches!(event.op(), Op::Insert | Op::Update | Op::Delete | Op::Snapshot) {
                let mut out = verdicts.emit(&event, COMPUTED);
                layout.write(&event.row(), &self.settings.salt, &mut self.scratch, &mut out);
            }
        }
        Ok(())
    }
}
