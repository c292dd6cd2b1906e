package walmill

import (
	"iter"
	"math"
	"unsafe"
)

// Op is what happened to a row.
type Op uint8

const (
	Insert   Op = 0
	Update   Op = 1
	Delete   Op = 2
	Truncate Op = 3
	Message  Op = 4
	// Snapshot is a row that was there before the slot.
	Snapshot Op = 5
)

// Batch holds changes, in the order in which they were committed.
type Batch struct {
	count     int
	ops       []Op
	relations []uint32
	lsns      []uint64
	times     []int64
	starts    []uint32
	tags      []Tag
	data      []uint64
	heap      []byte
	verdicts  []uint8
	out       outcome
	event     Event
	lastRoute uint32
	routes    map[string]uint32
}

// What is known of a table's events from its plan.
type table struct {
	id    uint32
	width int
	data  any
}

// Len is how many events there are.
func (b *Batch) Len() int { return b.count }

// Events are the events, one after the other. The same Event is used for all.
func (b *Batch) Events() iter.Seq[*Event] {
	return func(yield func(*Event) bool) {
		event, known := &b.event, &table{id: math.MaxUint32}
		event.batch = b
		for index := range b.count {
			if relation := b.relations[index]; relation != known.id || index == 0 {
				known = tableOf(relation)
			}
			event.index = index
			event.op = b.ops[index]
			event.table = known
			start, end := b.starts[index], b.starts[index+1]
			event.tags, event.data = b.tags[start:end], b.data[start:end]
			if !yield(event) {
				return
			}
		}
	}
}

// Rows are the events with a row as it now is: inserts, updates, snapshot rows.
func (b *Batch) Rows() iter.Seq[*Event] {
	return func(yield func(*Event) bool) {
		for event := range b.Events() {
			switch event.op {
			case Insert, Update, Snapshot:
				if !yield(event) {
					return
				}
			}
		}
	}
}

// Event is one change. Cells are numbered as the plan asked for them.
type Event struct {
	batch *Batch
	table *table
	index int
	op    Op
	tags  []Tag
	data  []uint64
}

// Op is what happened.
func (e *Event) Op() Op { return e.op }

// Relation is the ID of its table.
func (e *Event) Relation() uint32 { return e.batch.relations[e.index] }

// Data is what the plan for the table has as Data.
func (e *Event) Data() any { return e.table.data }

// LSN is the position of the commit, where the plan asked for the envelope. Equal ones are of the
// same transaction.
func (e *Event) LSN() uint64 {
	if e.index < len(e.batch.lsns) {
		return e.batch.lsns[e.index]
	}
	return 0
}

// Time is when it was committed, in microseconds since 1970 UTC, where the plan asked for the
// envelope.
func (e *Event) Time() int64 {
	if e.index < len(e.batch.times) {
		return e.batch.times[e.index]
	}
	return 0
}

// Cell is one value of the row as it is now; of a delete, as it was. Without one, as in a
// truncate, it is Absent. A large value that an update left as it was is taken from the old row,
// where there is one.
func (e *Event) Cell(index int) Cell {
	if index >= e.table.width {
		return Cell{tag: Absent}
	}
	cell := e.at(index)
	if cell.tag == Unchanged {
		if old := e.at(e.table.width + index); old.tag != Absent {
			return old
		}
	}
	return cell
}

// Old is the same of the row as it was, where the plan asked for it.
func (e *Event) Old(index int) Cell {
	if index >= e.table.width {
		return Cell{tag: Absent}
	}
	return e.at(e.table.width + index)
}

func (e *Event) at(place int) Cell {
	if place >= len(e.tags) {
		return Cell{tag: Absent}
	}
	cell := Cell{tag: e.tags[place], data: e.data[place]}
	if cell.tag.isText() {
		start, length := cell.data>>32, cell.data&math.MaxUint32
		cell.text = stringOf(e.batch.heap[start : start+length])
	}
	return cell
}

// Text is Cell(index).Text().
func (e *Event) Text(index int) (string, bool) { return e.Cell(index).Text() }

// Int is Cell(index).Int().
func (e *Event) Int(index int) (int64, bool) { return e.Cell(index).Int() }

// Cell is one value.
type Cell struct {
	tag  Tag
	data uint64
	text string
}

// TextCell is a text as a cell; and so on.
func TextCell(text string) Cell { return Cell{tag: Text, text: text} }

// TaggedCell is a cell of one of the types that are text: Numeric, JSON, Bytea, UUID, Array.
func TaggedCell(tag Tag, text string) Cell { return Cell{tag: tag, text: text} }

func IntCell(integer int64) Cell { return Cell{tag: Int, data: uint64(integer)} }

func FloatCell(float float64) Cell { return Cell{tag: Float, data: math.Float64bits(float)} }

// TimeCell is a Timestamp, a Date or a Time.
func TimeCell(tag Tag, value int64) Cell { return Cell{tag: tag, data: uint64(value)} }

func BoolCell(bool bool) Cell {
	cell := Cell{tag: Bool}
	if bool {
		cell.data = 1
	}
	return cell
}

// NullCell is null.
func NullCell() Cell { return Cell{} }

// Tag says what it is.
func (c Cell) Tag() Tag { return c.tag }

// Text is its text, numeric, JSON or bytes; false where it has none.
func (c Cell) Text() (string, bool) { return c.text, c.tag.isText() }

// Int is its integer; false where it has none.
func (c Cell) Int() (int64, bool) {
	if c.tag != Int {
		return 0, false
	}
	return int64(c.data), true
}

// Float is its number; false where it has none.
func (c Cell) Float() (float64, bool) {
	if c.tag != Float {
		return 0, false
	}
	return math.Float64frombits(c.data), true
}

// Bool is its truth; false where it has none.
func (c Cell) Bool() (truth, there bool) { return c.data == 1, c.tag == Bool }

// When is its Timestamp, Date or Time; false where it has none.
func (c Cell) When() (int64, bool) {
	if c.tag < Timestamp || c.tag > Time {
		return 0, false
	}
	return int64(c.data), true
}

func stringOf(bytes []byte) string { return unsafe.String(unsafe.SliceData(bytes), len(bytes)) }
