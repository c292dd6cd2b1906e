package walmill

// Tag says what a column's values are.
type Tag uint8

const (
	Null Tag = 0
	Bool Tag = 1
	// Int is smallint, integer, bigint.
	Int Tag = 2
	// Float is real, double precision.
	Float Tag = 3
	// Timestamp counts microseconds since 1970 UTC; the least and the greatest int64 are the
	// infinities.
	Timestamp Tag = 4
	// Date counts days since 1970; infinities as above.
	Date Tag = 5
	// Time counts microseconds since midnight.
	Time Tag = 6
	// Text is text, and every type with no tag of its own, as PostgreSQL prints it.
	Text Tag = 16
	// Numeric is decimal text.
	Numeric Tag = 17
	JSON    Tag = 18
	Bytea   Tag = 19
	// UUID is 16 bytes.
	UUID Tag = 20
	// Array is a JSON array.
	Array Tag = 21
	// Unchanged is a large value that an update left as it was, and PostgreSQL did not send.
	Unchanged Tag = 32
	// Absent is a column of an old row outside the replica identity.
	Absent Tag = 33
)

func (t Tag) isText() bool { return t >= Text && t < Unchanged }

// Column is a column of a table.
type Column struct {
	Name    string
	TypeOID uint32
	// TypeName is, for example, numeric(12,2).
	TypeName string
	// Tag is what its values have, unless they are null.
	Tag Tag
	Key bool
}

// Relation is a table, as it is since its definition last changed.
type Relation struct {
	ID            uint32
	Schema, Table string
	Columns       []Column
	// FullOldRows says that old rows are complete (replica identity full).
	FullOldRows bool
}

// IndexOf is the index of a column, or -1.
func (r *Relation) IndexOf(name string) int {
	for index := range r.Columns {
		if r.Columns[index].Name == name {
			return index
		}
	}
	return -1
}

type mode uint8

const (
	modeCall mode = iota
	modePass
	modeDrop
)

// Plan is what the plugin needs of a table. As it comes, the plugin is called with no columns at
// all.
type Plan struct {
	// Data is yours: Event.Data of this table's events.
	Data any

	relation  *Relation
	mode      mode
	needs     []uint32
	old       bool
	envelope  bool
	shapes    []*Shape
	passShape int
	refusal   string
}

// Need asks for a column, and returns the index of its cells: 0 for the first. A table without
// the column is refused.
func (p *Plan) Need(name string) int {
	index := p.relation.IndexOf(name)
	if index < 0 {
		p.Refuse("no column `" + name + "`")
	}
	return p.NeedAt(index)
}

// NeedAt is Need by the column's index in the relation.
func (p *Plan) NeedAt(column int) int {
	p.needs = append(p.needs, uint32(column))
	return len(p.needs) - 1
}

// NeedOld asks for old rows of updates and deletes, too.
func (p *Plan) NeedOld() { p.old = true }

// NeedEnvelope asks for positions and times of commits, too.
func (p *Plan) NeedEnvelope() { p.envelope = true }

// Pass lets every event pass, and the plugin is never called.
func (p *Plan) Pass() { p.mode = modePass }

// Drop drops every event, and the plugin is never called.
func (p *Plan) Drop() { p.mode = modeDrop }

// Refuse says why this table is none for this plugin. The first reason counts.
func (p *Plan) Refuse(reason string) {
	if p.refusal == "" {
		p.refusal = reason
	}
}

// Shape adds a shape without columns. The first is shape 0.
func (p *Plan) Shape() *Shape {
	shape := &Shape{plan: p, index: len(p.shapes)}
	p.shapes = append(p.shapes, shape)
	return shape
}

// ShapeOfTable adds a shape with all columns of the table.
func (p *Plan) ShapeOfTable() *Shape {
	shape := p.Shape()
	for index, column := range p.relation.Columns {
		shape.Input(column.Name, index)
	}
	return shape
}

// Shape is what rows look like that the plugin may emit. Each call sets the column of that name,
// or adds one behind the others.
type Shape struct {
	plan    *Plan
	index   int
	table   *string
	columns []outColumn
}

type source uint8

const (
	fromInput source = iota
	computed
	fixed
)

type outColumn struct {
	name   string
	source source
	number uint32
	text   string
}

func (s *Shape) set(column outColumn) *Shape {
	for index := range s.columns {
		if s.columns[index].name == column.name {
			s.columns[index] = column
			return s
		}
	}
	s.columns = append(s.columns, column)
	return s
}

// Input is an input column, by its index in the relation. Its values never enter the plugin.
func (s *Shape) Input(name string, column int) *Shape {
	return s.set(outColumn{name: name, source: fromInput, number: uint32(column)})
}

// Computed is for cells that the plugin adds to each row, in the order of the columns.
func (s *Shape) Computed(name string, tag Tag) *Shape {
	return s.set(outColumn{name: name, source: computed, number: uint32(tag)})
}

// Fixed is the same text in every row.
func (s *Shape) Fixed(name, value string) *Shape {
	return s.set(outColumn{name: name, source: fixed, text: value})
}

// Remove takes a column out.
func (s *Shape) Remove(name string) *Shape {
	for index := range s.columns {
		if s.columns[index].name == name {
			s.columns = append(s.columns[:index], s.columns[index+1:]...)
			break
		}
	}
	return s
}

// Table is another name for the table.
func (s *Shape) Table(name string) *Shape {
	s.table = &name
	return s
}

// Passes makes it the shape of events that pass, too.
func (s *Shape) Passes() *Shape {
	s.plan.passShape = s.index
	return s
}
