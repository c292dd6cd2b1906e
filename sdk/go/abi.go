package walmill

// The canonical ABI of walmill:plugin@0.1.0, by hand. What crosses is 32-bit words: addresses,
// lengths, numbers. walmill asks cabi_realloc for the room of a call's arguments, and calls
// cabi_post_… when it has read the answer. Go's collector moves nothing, so an address is good as
// long as something in here holds on to what is there.

import (
	"slices"
	"strings"
	"unsafe"
)

type address = uint32

func addressOf[T any](slice []T) address {
	return address(uintptr(unsafe.Pointer(unsafe.SliceData(slice))))
}

// What walmill wrote: no copy, and gone with the call.
func listAt[T any](at address, length uint32) []T {
	if length == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(uintptr(at))), length)
}

func textAt(at address, length uint32) string {
	return strings.Clone(stringOf(listAt[byte](at, length)))
}

// Memory of a call's arguments: one block that is used again, and those that were too small.
var arena struct {
	block []uint64
	used  uint32
	full  [][]uint64
}

func room(size uint32) address {
	words := uint32((uint64(size) + 7) / 8)
	if uint64(arena.used)+uint64(words) > uint64(len(arena.block)) {
		arena.full = append(arena.full, arena.block)
		arena.block = make([]uint64, max(8192, 2*len(arena.block), int(words)))
		arena.used = 0
	}
	at := addressOf(arena.block[arena.used:])
	arena.used += words
	return at
}

//go:wasmexport cabi_realloc
func cabiRealloc(old address, oldSize, align, size uint32) address {
	at := room(size)
	copy(listAt[byte](at, size), listAt[byte](old, oldSize))
	return at
}

// What the answer consists of, until it is read.
var held []any

// Arguments and answer are done with.
func release() {
	arena.used, arena.full = 0, nil
	clear(held)
	held = held[:0]
}

// Address and length of a list that is part of the answer.
func list[T any](items []T) (address, uint32) {
	held = append(held, items)
	return addressOf(items), uint32(len(items))
}

func text(text string) (address, uint32) {
	held = append(held, text)
	return address(uintptr(unsafe.Pointer(unsafe.StringData(text)))), uint32(len(text))
}

func texts(texts []string) (address, uint32) {
	words := make([]uint32, 0, 2*len(texts))
	for _, item := range texts {
		at, length := text(item)
		words = append(words, at, length)
	}
	at, _ := list(words)
	return at, uint32(len(texts))
}

// The answer to a call, as words.
type answer struct{ words []uint32 }

func (a *answer) word(word uint32) { a.words = append(a.words, word) }

func (a *answer) pair(at address, length uint32) { a.words = append(a.words, at, length) }

func (a *answer) bool(bool bool) {
	if bool {
		a.word(1)
	} else {
		a.word(0)
	}
}

func (a *answer) address() address {
	at, _ := list(a.words)
	return at
}

func failure(reason string) address {
	var a answer
	a.word(1)
	a.pair(text(reason))
	// As much as the longest answer that could have been.
	a.words = append(a.words, make([]uint32, 24)...)
	return a.address()
}

//go:wasmexport walmill:plugin/lifecycle@0.1.0#describe
func describe() address {
	var a answer
	a.pair(text(exported.name))
	a.pair(text(exported.version))
	a.pair(0, 0)
	a.pair(text(""))
	return a.address()
}

var running Plugin

//go:wasmexport walmill:plugin/lifecycle@0.1.0#init
func initialize(json address, length, worker, workers, dryRun uint32) address {
	config := newConfig(textAt(json, length))
	config.Worker, config.Workers, config.DryRun = worker, workers, dryRun != 0
	running = exported.start(config)
	config.findUnknown()
	var findings answer
	for _, finding := range config.findings {
		findings.pair(text(finding.path))
		findings.pair(text(finding.message))
	}
	var a answer
	a.bool(len(config.findings) > 0)
	a.pair(findings.address(), uint32(len(config.findings)))
	return a.address()
}

//go:wasmexport cabi_post_walmill:plugin/lifecycle@0.1.0#init
func afterInitialize(address) { release() }

// The tables that were announced, and the one that was asked for last.
var (
	tables    = map[uint32]*table{}
	lastTable = &table{}
)

func tableOf(id uint32) *table {
	if lastTable.id == id {
		return lastTable
	}
	if known := tables[id]; known != nil {
		lastTable = known
		return known
	}
	return &table{id: id}
}

// A column as walmill writes it.
type flatColumn struct {
	name, nameLength         uint32
	typeOID                  uint32
	typeName, typeNameLength uint32
	tag                      Tag
	key                      bool
}

//go:wasmexport walmill:plugin/transform@0.1.0#on-relation
func onRelation(id, schema, schemaLength, name, nameLength, columns, count, fullOldRows uint32) address {
	relation := &Relation{
		ID:          id,
		Schema:      textAt(schema, schemaLength),
		Table:       textAt(name, nameLength),
		FullOldRows: fullOldRows != 0,
	}
	for _, column := range listAt[flatColumn](columns, count) {
		relation.Columns = append(relation.Columns, Column{
			Name:     textAt(column.name, column.nameLength),
			TypeOID:  column.typeOID,
			TypeName: textAt(column.typeName, column.typeNameLength),
			Tag:      column.tag,
			Key:      column.key,
		})
	}
	plan := &Plan{relation: relation, passShape: -1}
	if err := running.Relation(relation, plan); err != nil {
		plan.Refuse(err.Error())
	}
	if plan.refusal != "" {
		return failure(plan.refusal)
	}
	tables[id] = &table{id: id, width: len(plan.needs), data: plan.Data}
	lastTable = tables[id]
	return plan.flat()
}

//go:wasmexport cabi_post_walmill:plugin/transform@0.1.0#on-relation
func afterOnRelation(address) { release() }

func (p *Plan) flat() address {
	var shapes, a answer
	for _, shape := range p.shapes {
		shape.flat(&shapes)
	}
	a.word(0)
	a.word(uint32(p.mode))
	a.pair(list(p.needs))
	flags := uint32(0)
	if p.old {
		flags |= 1
	}
	if p.envelope {
		flags |= 1 << 8
	}
	a.word(flags)
	a.pair(shapes.address(), uint32(len(p.shapes)))
	a.bool(p.passShape >= 0)
	a.word(uint32(p.passShape))
	return a.address()
}

func (s *Shape) flat(a *answer) {
	a.bool(s.table != nil)
	if s.table != nil {
		a.pair(text(*s.table))
	} else {
		a.pair(0, 0)
	}
	var columns answer
	for _, column := range s.columns {
		columns.pair(text(column.name))
		columns.word(uint32(column.source))
		if column.source == fixed {
			columns.pair(text(column.text))
		} else {
			columns.pair(column.number, 0)
		}
	}
	a.pair(columns.address(), uint32(len(s.columns)))
}

// A batch as walmill writes it.
type flatBatch struct {
	count                                                 uint32
	ops, relations, lsns, times, starts, tags, data, heap struct{ at, length uint32 }
}

// Its room is used again for the next one.
var batch = Batch{routes: map[string]uint32{}}

//go:wasmexport walmill:plugin/transform@0.1.0#process
func process(at address) address {
	flat := (*flatBatch)(unsafe.Pointer(uintptr(at)))
	b := &batch
	b.count = int(flat.count)
	b.ops = listAt[Op](flat.ops.at, flat.ops.length)
	b.relations = listAt[uint32](flat.relations.at, flat.relations.length)
	b.lsns = listAt[uint64](flat.lsns.at, flat.lsns.length)
	b.times = listAt[int64](flat.times.at, flat.times.length)
	b.starts = listAt[uint32](flat.starts.at, flat.starts.length)
	b.tags = listAt[Tag](flat.tags.at, flat.tags.length)
	b.data = listAt[uint64](flat.data.at, flat.data.length)
	b.heap = listAt[byte](flat.heap.at, flat.heap.length)
	b.verdicts = slices.Grow(b.verdicts[:0], b.count)[:b.count]
	clear(b.verdicts)
	b.out.clear()
	clear(b.routes)
	b.lastRoute = 0
	if err := running.Process(b); err != nil {
		return failure(err.Error())
	}
	b.finish()
	return b.flat()
}

func (b *Batch) flat() address {
	var a answer
	out := &b.out
	a.word(0)
	a.pair(list(b.verdicts))
	a.pair(list(out.eventRoutes))
	a.pair(list(out.rowEvents))
	a.pair(list(out.rowShapes))
	a.pair(list(out.rowRoutes))
	a.pair(list(out.starts))
	a.pair(list(out.tags))
	a.pair(list(out.data))
	a.pair(list(out.heap))
	a.pair(texts(out.routes))
	a.pair(texts(out.reasons))
	return a.address()
}

//go:wasmexport cabi_post_walmill:plugin/transform@0.1.0#process
func afterProcess(address) { release() }
