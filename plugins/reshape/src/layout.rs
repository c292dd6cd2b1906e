//! What becomes of one table: the shape of its rows, and how the computed columns are made.

use std::collections::BTreeSet;

use walmill_plugin::template::{Bound, Rendered, Template};
use walmill_plugin::{
    Cell, Column, Needs, OutColumn, Plan, Relation, Row, RowWriter, Shape, column, tag, text,
};

use crate::mask::Mask;
use crate::settings::Settings;

/// A table's computed columns, in the order of its shape.
#[derive(Debug, Default)]
pub struct Layout {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Null,
    Mask { mask: Mask, index: usize, zoned: bool },
    Template(Bound),
}

/// Room for a value as text, kept from row to row.
pub type Scratch = String;

/// Index of the shape with the computed columns.
pub const COMPUTED: u32 = 0;

/// The plan for a table, and how its computed columns are made.
pub fn layout(settings: &Settings, relation: &Relation) -> Result<(Plan, Layout), String> {
    for name in settings.columns() {
        relation.require(name)?;
    }
    let mut builder = Builder { settings, relation, needs: Needs::default(), steps: Vec::new() };
    let shape = builder.shape()?;
    check_names(&shape, relation)?;
    let Builder { needs, steps, .. } = builder;
    if steps.is_empty() {
        return Ok((Plan::pass().with_pass_shape(shape), Layout { steps }));
    }
    // A truncate has no row to compute from; it passes under the table's new name.
    let bare = Shape { columns: Vec::new(), ..shape.clone() };
    let old = needs.profit_from_old(relation);
    let plan = Plan::call(needs).with_shape(shape).with_pass_shape(bare);
    Ok((if old { plan.with_old() } else { plan }, Layout { steps }))
}

struct Builder<'a> {
    settings: &'a Settings,
    relation: &'a Relation,
    needs: Needs,
    steps: Vec<Step>,
}

impl Builder<'_> {
    fn shape(&mut self) -> Result<Shape, String> {
        let Self { settings, relation, .. } = *self;
        let mut columns = Vec::new();
        for (index, input) in (0..).zip(&relation.columns) {
            let kept = settings.keep.as_ref().is_none_or(|kept| kept.contains(&input.name));
            if !kept || settings.drop.contains(&input.name) {
                continue;
            }
            let name = settings.rename.get(&input.name).unwrap_or(&input.name);
            columns.push(if let Some(&mask) = settings.mask.get(&input.name) {
                self.masked(name, index, input, mask)?
            } else if let Some(template) = settings.set.get(&input.name) {
                self.made(name, template)?
            } else {
                column::input(name, index)
            });
        }
        for (name, template) in &settings.add {
            columns.push(self.made(name, template)?);
        }
        let shape = Shape::new(columns);
        Ok(match &settings.table {
            Some(table) => shape.with_table(table),
            None => shape,
        })
    }

    fn masked(
        &mut self,
        name: &str,
        index: u32,
        input: &Column,
        mask: Mask,
    ) -> Result<OutColumn, String> {
        if input.key {
            return Err(format!(
                "{}: `{}` is part of the key, which an event's subject shows as it is; a mask \
                 would not hide it",
                self.relation.name(),
                input.name
            ));
        }
        self.steps.push(match mask {
            Mask::Null => Step::Null,
            mask => {
                let zoned = text::is_zoned(input);
                Step::Mask { mask, index: self.needs.add(index), zoned }
            }
        });
        Ok(column::computed(name, tag::TEXT))
    }

    fn made(&mut self, name: &str, template: &Template) -> Result<OutColumn, String> {
        if let Some(text) = template.constant() {
            return Ok(column::fixed(name, text));
        }
        let bound = template.bind(self.relation, &mut self.needs)?;
        self.steps.push(Step::Template(bound));
        Ok(column::computed(name, tag::TEXT))
    }
}

fn check_names(shape: &Shape, relation: &Relation) -> Result<(), String> {
    let mut names = BTreeSet::new();
    match shape.columns.iter().find(|column| !names.insert(&column.name)) {
        Some(twice) => Err(format!("{} would have two columns `{}`", relation.name(), twice.name)),
        None => Ok(()),
    }
}

impl Layout {
    /// Writes a row's computed cells.
    pub fn write(&self, row: &Row, salt: &str, scratch: &mut Scratch, out: &mut RowWriter) {
        for step in &self.steps {
            match step {
                Step::Null => out.cell(Cell::Null),
                Step::Mask { mask, index, zoned } => match row.cell(*index) {
                    cell @ (Cell::Null | Cell::Unchanged) => out.cell(cell),
                    Cell::Text(text) => out.text(|out| mask.append(out, text, salt)),
                    cell => {
                        scratch.clear();
                        if text::append(scratch, cell, *zoned) {
                            out.text(|out| mask.append(out, scratch, salt))
                        } else {
                            out.cell(Cell::Absent)
                        }
                    }
                },
                Step::Template(template) => {
                    scratch.clear();
                    match template.render(row, scratch, |_, _| {}) {
                        Rendered::Text => out.cell(scratch.as_str()),
                        Rendered::Null => out.cell(Cell::Null),
                        Rendered::Unchanged => out.cell(Cell::Unchanged),
                        Rendered::Absent => out.cell(Cell::Absent),
                    }
                }
            };
        }
    }
}
