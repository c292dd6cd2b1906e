// Orders for the people who ship them: only the statuses they care for, masked emails, a mark on
// large orders, one stream per region.
package main

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"walmill"
)

// The first quantity that a 64-bit float can't tell from its neighbour.
const large = 9007199254740993

const (
	status = iota
	email
	quantity
	region
)

type orders struct {
	// The statuses that are kept.
	keep []string
}

func init() {
	walmill.Export("orders", "0.1.0", func(config *walmill.Config) walmill.Plugin {
		return &orders{keep: config.Texts("keep", []string{"paid", "shipped"})}
	})
}

func main() {}

func (o *orders) Relation(relation *walmill.Relation, plan *walmill.Plan) error {
	for _, name := range []string{"status", "email", "quantity", "region"} {
		plan.Need(name)
	}
	plan.ShapeOfTable().Computed("email", walmill.Text).Computed("large", walmill.Bool)
	return nil
}

func (o *orders) Process(batch *walmill.Batch) error {
	for event := range batch.Rows() {
		o.judge(event)
	}
	return nil
}

func (o *orders) judge(event *walmill.Event) {
	if status, there := event.Text(status); !there || !slices.Contains(o.keep, status) {
		event.Drop()
		return
	}
	isLarge := event.Cell(quantity)
	if count, there := isLarge.Int(); there {
		if count < 0 {
			event.Reject("negative quantity: " + strconv.FormatInt(count, 10))
			return
		}
		isLarge = walmill.BoolCell(count >= large)
	}
	masked := event.Cell(email)
	if address, there := masked.Text(); there {
		masked = walmill.TextCell(mask(address))
	}
	event.Emit(0, masked, isLarge)
	if to, _ := event.Text(region); to != "" {
		event.Send("orders." + lower(to))
	}
}

// `ada@example.com` as `a***@example.com`; what is no address as `***`.
func mask(email string) string {
	at := strings.LastIndexByte(email, '@')
	if at < 0 {
		return "***"
	}
	_, first := utf8.DecodeRuneInString(email)
	return email[:first] + "***" + email[at:]
}

// ASCII letters in lower case, and no others.
func lower(text string) string {
	return strings.Map(func(letter rune) rune {
		if letter >= 'A' && letter <= 'Z' {
			return letter + 'a' - 'A'
		}
		return letter
	}, text)
}
