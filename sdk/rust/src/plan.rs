//! What a plugin asks for and may answer with: [`Plan`] and its [`Shape`]s.

use crate::Relation;
use crate::bindings::walmill::plugin::types::{Mode, OutColumn, Plan, Shape, Source};

impl Plan {
    /// Every event of the table passes, and the plugin is never called.
    #[must_use]
    pub fn pass() -> Self {
        Self::new(Mode::Pass, Vec::new())
    }

    /// Every event of the table is dropped, and the plugin is never called.
    #[must_use]
    pub fn drop() -> Self {
        Self::new(Mode::Drop, Vec::new())
    }

    /// The plugin is called with these columns, indexes into [`Relation::columns`]. A row has its
    /// cells in the same order.
    #[must_use]
    pub fn call(needs: impl IntoIterator<Item = u32>) -> Self {
        Self::new(Mode::Call, needs.into_iter().collect())
    }

    /// The same columns of the old row, too: see [`Event::old`](crate::Event::old).
    #[must_use]
    pub fn with_old(self) -> Self {
        Self { old: true, ..self }
    }

    /// Commit positions and times, too: see [`Event::lsn`](crate::Event::lsn).
    #[must_use]
    pub fn with_envelope(self) -> Self {
        Self { envelope: true, ..self }
    }

    /// Adds a shape; the first is shape 0.
    #[must_use]
    pub fn with_shape(mut self, shape: Shape) -> Self {
        self.shapes.push(shape);
        self
    }

    /// Adds a shape and gives it to every event that passes.
    #[must_use]
    pub fn with_pass_shape(self, shape: Shape) -> Self {
        let index = u32::try_from(self.shapes.len()).ok();
        Self { pass_shape: index, ..self }.with_shape(shape)
    }

    fn new(mode: Mode, needs: Vec<u32>) -> Self {
        Self { mode, needs, old: false, envelope: false, shapes: Vec::new(), pass_shape: None }
    }
}

impl Shape {
    /// A row of these columns, under the table's own name.
    #[must_use]
    pub fn new(columns: impl IntoIterator<Item = OutColumn>) -> Self {
        Self { table: None, columns: columns.into_iter().collect() }
    }

    /// The row as it came in: a place to start from.
    #[must_use]
    pub fn of(relation: &Relation) -> Self {
        let columns = (0..).zip(&relation.columns);
        Self::new(columns.map(|(index, input)| column::input(&input.name, index)))
    }

    /// Another name for the table.
    #[must_use]
    pub fn with_table(self, table: impl Into<String>) -> Self {
        Self { table: Some(table.into()), ..self }
    }
}

/// The columns of a [`Shape`]: a name, and where the values come from.
pub mod column {
    use super::{OutColumn, Source};

    /// An input column, by its index in the relation. Its values never enter the plugin.
    pub fn input(name: impl Into<String>, index: u32) -> OutColumn {
        OutColumn { name: name.into(), source: Source::Input(index) }
    }

    /// The next cell that the plugin writes for a row, whose non-null values have this
    /// [tag](crate::tag).
    pub fn computed(name: impl Into<String>, tag: u8) -> OutColumn {
        OutColumn { name: name.into(), source: Source::Computed(tag) }
    }

    /// The same text in every row.
    pub fn fixed(name: impl Into<String>, value: impl Into<String>) -> OutColumn {
        OutColumn { name: name.into(), source: Source::Fixed(value.into()) }
    }
}
