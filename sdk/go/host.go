package walmill

import (
	"errors"
	"unsafe"
)

// Level is how much a line in walmill's log matters.
type Level uint32

const (
	LevelTrace Level = iota
	LevelDebug
	LevelInfo
	LevelWarn
	LevelError
)

//go:wasmimport walmill:plugin/log@0.1.0 log
func hostLog(level uint32, text unsafe.Pointer, length uint32)

//go:wasmimport walmill:plugin/log@0.1.0 enabled
func hostLogEnabled(level uint32) uint32

//go:wasmimport walmill:plugin/clock@0.1.0 now
func hostNow() int64

//go:wasmimport walmill:plugin/metrics@0.1.0 counter
func hostCounter(name unsafe.Pointer, length uint32, help unsafe.Pointer, helpLength uint32) uint32

//go:wasmimport walmill:plugin/metrics@0.1.0 gauge
func hostGauge(name unsafe.Pointer, length uint32, help unsafe.Pointer, helpLength uint32) uint32

//go:wasmimport walmill:plugin/metrics@0.1.0 add
func hostAdd(id uint32, delta uint64)

//go:wasmimport walmill:plugin/metrics@0.1.0 set
func hostSet(id uint32, value float64)

//go:wasmimport walmill:plugin/kv@0.1.0 get
func hostKvGet(key unsafe.Pointer, length uint32, result unsafe.Pointer)

//go:wasmimport walmill:plugin/kv@0.1.0 set
func hostKvSet(key unsafe.Pointer, length uint32, value unsafe.Pointer, size uint32, result unsafe.Pointer)

//go:wasmimport walmill:plugin/kv@0.1.0 delete
func hostKvDelete(key unsafe.Pointer, length uint32, result unsafe.Pointer)

func of(text string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(text)), uint32(len(text))
}

// Log writes to walmill's log, under the plugin's name.
func Log(level Level, message string) {
	at, length := of(message)
	hostLog(uint32(level), at, length)
}

// LogEnabled says whether anyone would read it.
func LogEnabled(level Level) bool { return hostLogEnabled(uint32(level)) != 0 }

// Now is the commit time of the event, in microseconds since 1970 UTC: a replay sees the same.
func Now() int64 { return hostNow() }

// Counter is a metric that only grows. Make it at the start.
type Counter struct{ id uint32 }

// NewCounter makes a counter.
func NewCounter(name, help string) Counter {
	at, length := of(name)
	helpAt, helpLength := of(help)
	return Counter{hostCounter(at, length, helpAt, helpLength)}
}

// Add counts.
func (c Counter) Add(delta uint64) { hostAdd(c.id, delta) }

// Gauge is a metric that says how much there is now. Make it at the start.
type Gauge struct{ id uint32 }

// NewGauge makes a gauge.
func NewGauge(name, help string) Gauge {
	at, length := of(name)
	helpAt, helpLength := of(help)
	return Gauge{hostGauge(at, length, helpAt, helpLength)}
}

// Set says how much.
func (g Gauge) Set(value float64) { hostSet(g.id, value) }

// What may be wrong with keyed state.
var (
	ErrTooLarge = errors.New("the key or the value is too large")
	ErrQuota    = errors.New("there is no more room")
)

// Where walmill puts its answer: whether it failed; then what is there, or what is wrong.
var kvResult [4]uint32

func kvError() error {
	switch {
	case kvResult[0]&0xff == 0:
		return nil
	case kvResult[1]&0xff == 0:
		return ErrTooLarge
	case kvResult[1]&0xff == 1:
		return ErrQuota
	}
	return errors.New(textAt(kvResult[2], kvResult[3]))
}

// KvGet reads the plugin's own keyed state, where the configuration grants it. It outlives the
// instance; what is written is durable with the batch's events, and gone if the batch fails.
func KvGet(key string) (value []byte, there bool, err error) {
	at, length := of(key)
	hostKvGet(at, length, unsafe.Pointer(&kvResult))
	if err := kvError(); err != nil || kvResult[1]&0xff == 0 {
		return nil, false, err
	}
	return []byte(textAt(kvResult[2], kvResult[3])), true, nil
}

// KvSet writes to it: see KvGet.
func KvSet(key string, value []byte) error {
	at, length := of(key)
	hostKvSet(at, length, unsafe.Pointer(unsafe.SliceData(value)), uint32(len(value)), unsafe.Pointer(&kvResult))
	return kvError()
}

// KvDelete removes a key from it: see KvGet.
func KvDelete(key string) error {
	at, length := of(key)
	hostKvDelete(at, length, unsafe.Pointer(&kvResult))
	return kvError()
}
