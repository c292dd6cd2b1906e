package walmill

const (
	pass uint8 = iota
	drop
	emit
	reject
)

// The answer, as it grows. Events are judged one after the other, so an event's rows and its
// reason are the last ones.
type outcome struct {
	eventRoutes, rowEvents, rowShapes, rowRoutes, starts []uint32
	tags                                                 []Tag
	data                                                 []uint64
	heap                                                 []byte
	routes, reasons                                      []string
}

func (e *Event) judge(verdict uint8) {
	place, out := &e.batch.verdicts[e.index], &e.batch.out
	switch *place {
	case reject:
		out.reasons = out.reasons[:len(out.reasons)-1]
	case emit:
		if verdict != emit {
			out.takeBackRows(uint32(e.index))
		}
	}
	*place = verdict
}

func (o *outcome) takeBackRows(event uint32) {
	rows := len(o.rowEvents)
	for rows > 0 && o.rowEvents[rows-1] == event {
		rows--
	}
	if rows == len(o.rowEvents) {
		return
	}
	cells := o.starts[rows]
	o.tags, o.data = o.tags[:cells], o.data[:cells]
	o.rowEvents, o.rowShapes, o.starts = o.rowEvents[:rows], o.rowShapes[:rows], o.starts[:rows]
	o.rowRoutes = o.rowRoutes[:min(rows, len(o.rowRoutes))]
}

// Pass lets the event go on as it is, or in the shape of those that pass.
func (e *Event) Pass() { e.judge(pass) }

// Drop makes the event go nowhere.
func (e *Event) Drop() { e.judge(drop) }

// Reject sends the event to the dead letters, with the reason.
func (e *Event) Reject(reason string) {
	e.judge(reject)
	e.batch.out.reasons = append(e.batch.out.reasons, reason)
}

// Send makes the event go to another stream. walmill takes only names that the pipeline's
// `streams` allow.
func (e *Event) Send(stream string) {
	out := &e.batch.out
	if len(out.eventRoutes) == 0 {
		out.eventRoutes = append(out.eventRoutes, make([]uint32, e.batch.count)...)
	}
	out.eventRoutes[e.index] = e.batch.route(stream)
}

// Emit makes the event a row of a shape of the plan, with the shape's computed cells in order.
// Several calls make several rows.
func (e *Event) Emit(shape int, cells ...Cell) {
	e.judge(emit)
	out := &e.batch.out
	out.rowEvents = append(out.rowEvents, uint32(e.index))
	out.rowShapes = append(out.rowShapes, uint32(shape))
	out.starts = append(out.starts, uint32(len(out.tags)))
	for _, cell := range cells {
		out.add(cell)
	}
}

func (o *outcome) add(cell Cell) {
	data := cell.data
	if cell.tag.isText() {
		data = uint64(len(o.heap))<<32 | uint64(len(cell.text))
		o.heap = append(o.heap, cell.text...)
	}
	o.tags = append(o.tags, cell.tag)
	o.data = append(o.data, data)
}

// SendRow makes the row that was emitted last go to another stream than the event.
func (e *Event) SendRow(stream string) {
	out := &e.batch.out
	for len(out.rowRoutes) < len(out.rowEvents) {
		out.rowRoutes = append(out.rowRoutes, 0)
	}
	out.rowRoutes[len(out.rowRoutes)-1] = e.batch.route(stream)
}

// The route's number: 0 is the usual one.
func (b *Batch) route(stream string) uint32 {
	if b.lastRoute > 0 && b.out.routes[b.lastRoute-1] == stream {
		return b.lastRoute
	}
	number, known := b.routes[stream]
	if !known {
		b.out.routes = append(b.out.routes, stream)
		number = uint32(len(b.out.routes))
		b.routes[stream] = number
	}
	b.lastRoute = number
	return number
}

// Ready for the next batch, with the room of the last one.
func (o *outcome) clear() {
	*o = outcome{
		eventRoutes: o.eventRoutes[:0],
		rowEvents:   o.rowEvents[:0],
		rowShapes:   o.rowShapes[:0],
		rowRoutes:   o.rowRoutes[:0],
		starts:      o.starts[:0],
		tags:        o.tags[:0],
		data:        o.data[:0],
		heap:        o.heap[:0],
		routes:      o.routes[:0],
		reasons:     o.reasons[:0],
	}
}

func (b *Batch) finish() {
	out := &b.out
	if len(out.tags) > 0 {
		out.starts = append(out.starts, uint32(len(out.tags)))
	} else {
		out.starts = out.starts[:0]
	}
	if len(out.rowRoutes) > 0 {
		for len(out.rowRoutes) < len(out.rowEvents) {
			out.rowRoutes = append(out.rowRoutes, 0)
		}
	}
}
