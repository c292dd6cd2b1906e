package main

import "walmill"

type local struct{ country string }

// The plugin's `config` in walmill.toml.
func init() {
	walmill.Export("{{name}}", "0.1.0", func(config *walmill.Config) walmill.Plugin {
		return &local{country: config.Text("country")}
	})
}

func main() {}

// Relation says which columns the plugin needs of a table.
func (l *local) Relation(relation *walmill.Relation, plan *walmill.Plan) error {
	plan.Need("country")
	return nil
}

// Process keeps the rows of one country.
func (l *local) Process(batch *walmill.Batch) error {
	for event := range batch.Rows() {
		if country, _ := event.Text(0); country != l.country {
			event.Drop()
		}
	}
	return nil
}
