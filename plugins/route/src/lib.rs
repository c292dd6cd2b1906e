//! Chooses the stream from a column's value: see README.md.

mod settings;
mod stream;

use settings::{OnMissing, Settings};
use walmill_plugin::template::{Bound, Rendered};
use walmill_plugin::{
    Batch, Config, Event, Finding, Needs, Op, PerRelation, Plan, Relation, Row, Transform,
    Verdicts, log, text,
};

struct Route {
    settings: Settings,
    tables: PerRelation<Table>,
    /// A value or a stream's name, kept from row to row.
    scratch: String,
}

/// Where in a table's rows the choice is made.
struct Table {
    /// The column that `map` is about.
    column: Option<(usize, bool)>,
    template: Option<Bound>,
}

/// What a row says about its stream.
enum Choice<'a> {
    Mapped(&'a str),
    /// In the scratch.
    Made,
    /// A value is null or empty, or no setting is for it.
    Default,
    /// PostgreSQL did not send the value.
    Missing,
}

walmill_plugin::export!(Route);

impl Transform for Route {
    fn new(config: Config) -> Result<Self, Vec<Finding>> {
        let settings = Settings::read(&config)?;
        Ok(Self { settings, tables: PerRelation::new(), scratch: String::new() })
    }

    fn on_relation(&mut self, relation: &Relation) -> Result<Plan, String> {
        if !self.settings.tables.contains(relation) {
            return Ok(Plan::pass());
        }
        let mut needs = Needs::default();
        let template = self.settings.template.as_ref();
        let template = template.map(|template| template.bind(relation, &mut needs)).transpose()?;
        let column = match &self.settings.column {
            Some(name) => {
                let index = relation.require(name)?;
                Some((needs.add(index), text::is_zoned(relation.column(index))))
            }
            None => None,
        };
        warn_about_deletes(relation, &needs);
        self.tables.insert(relation.id, Table { column, template });
        let old = needs.profit_from_old(relation);
        let plan = Plan::call(needs);
        Ok(if old { plan.with_old() } else { plan })
    }

    fn process(&mut self, batch: &Batch, verdicts: &mut Verdicts) -> Result<(), String> {
        let Self { settings, tables, scratch } = self;
        for event in batch.events() {
            let Some(table) = tables.get(event.relation()) else { continue };
            let stream = match table.choose(settings, &event, scratch) {
                Choice::Mapped(stream) => stream,
                Choice::Made => &**scratch,
                Choice::Missing if settings.on_missing == OnMissing::Reject => {
                    verdicts.reject(&event, MISSING);
                    continue;
                }
                Choice::Default | Choice::Missing => match &settings.default {
                    Some(stream) => stream,
                    None => continue,
                },
            };
            let route = verdicts.route_to(stream);
            verdicts.send(&event, route);
        }
        Ok(())
    }
}

const MISSING: &str = "PostgreSQL did not send the value that chooses the stream; use replica \
                       identity full, or set `on_missing`";

impl Table {
    fn choose<'a>(
        &self,
        settings: &'a Settings,
        event: &Event,
        scratch: &mut String,
    ) -> Choice<'a> {
        if !matches!(event.op(), Op::Insert | Op::Update | Op::Delete | Op::Snapshot) {
            return Choice::Default;
        }
        let row = event.row();
        match self.mapped(settings, &row, scratch) {
            Some(stream) => Choice::Mapped(stream),
            None => self.made(&row, scratch),
        }
    }

    fn mapped<'a>(
        &self,
        settings: &'a Settings,
        row: &Row,
        scratch: &mut String,
    ) -> Option<&'a str> {
        let (index, zoned) = self.column.filter(|_| !settings.map.is_empty())?;
        scratch.clear();
        text::append(scratch, row.cell(index), zoned).then_some(())?;
        settings.map.get(scratch.as_str()).map(String::as_str)
    }

    fn made(&self, row: &Row, scratch: &mut String) -> Choice<'static> {
        use walmill_plugin::Cell::{Absent, Null, Unchanged};
        let Some(template) = &self.template else {
            let cell = self.column.map_or(Null, |(index, _)| row.cell(index));
            return if matches!(cell, Unchanged | Absent) {
                Choice::Missing
            } else {
                Choice::Default
            };
        };
        scratch.clear();
        match template.render(row, scratch, stream::sanitize) {
            Rendered::Text if stream_exists(scratch) => Choice::Made,
            Rendered::Text | Rendered::Null => Choice::Default,
            Rendered::Unchanged | Rendered::Absent => Choice::Missing,
        }
    }
}

/// An empty value leaves no name, or one that ends in the dot of its prefix.
fn stream_exists(name: &str) -> bool {
    !name.is_empty() && !name.ends_with('.') && !name.starts_with('.')
}

/// Without full old rows, a delete has only the key to choose by.
fn warn_about_deletes(relation: &Relation, needs: &Needs) {
    let columns = || needs.iter().map(|index| relation.column(index));
    if let Some(column) = columns().find(|column| !column.key && !relation.full_old_rows) {
        let table = relation.name();
        log::warn(&format!(
            "deletes in {table} come without `{}` and take the default route; to route them like \
             the rows they end: alter table {table} replica identity full",
            column.name
        ));
    }
}
