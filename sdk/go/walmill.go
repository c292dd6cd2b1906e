// Package walmill is for writing walmill plugins in Go.
//
// A plugin says in Relation what it needs of a table, then answers batches of changes in Process
// with a verdict for each: pass it on, drop it, reject it, send it to another stream, or emit
// other rows in its place. A whole one:
//
//	package main
//
//	import "walmill"
//
//	type local struct{ country string }
//
//	func (l *local) Relation(relation *walmill.Relation, plan *walmill.Plan) error {
//		plan.Need("country")
//		return nil
//	}
//
//	func (l *local) Process(batch *walmill.Batch) error {
//		for event := range batch.Rows() {
//			if country, _ := event.Text(0); country != l.country {
//				event.Drop()
//			}
//		}
//		return nil
//	}
//
//	func init() {
//		walmill.Export("local", "0.1.0", func(config *walmill.Config) walmill.Plugin {
//			return &local{country: config.Text("country")}
//		})
//	}
//
//	func main() {}
//
// Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags='-s -w' -o plugin.wasm
//
// Only the columns that a plan names cross into the plugin, so name few. Texts of a batch are good
// until Process returns: they are not copied. Keep one with strings.Clone.
package walmill

// Plugin is what you write.
type Plugin interface {
	// Relation says what the plugin needs of a table. It is called before the table's first
	// event, and again, under another ID, when its definition changed. An error refuses the table.
	Relation(relation *Relation, plan *Plan) error
	// Process judges a batch. An event without a verdict passes. An error fails the whole batch,
	// which is tried again in ever smaller parts, down to the event whose fault it is.
	Process(batch *Batch) error
}

var exported struct {
	name, version string
	start         func(*Config) Plugin
}

// Export makes a plugin the one of this file. Call it in an init function; start is called once
// per instance, and its plugin used unless something is wrong with the configuration.
func Export(name, version string, start func(*Config) Plugin) {
	exported.name, exported.version, exported.start = name, version, start
}
