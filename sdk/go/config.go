package walmill

import (
	"slices"
	"strconv"
)

// Config is the plugin's `config` table. A key that nothing was asked for is a finding, and so is
// a value of another kind than was asked for. Findings refuse the plugin, and what was in force
// stays so.
type Config struct {
	// JSON is the table as walmill sent it.
	JSON string
	// Worker is which of the Workers instances this is.
	Worker, Workers uint32
	// DryRun says that what comes out is compared, not delivered.
	DryRun bool

	values   map[string]any
	known    map[string]bool
	findings []finding
}

type finding struct{ path, message string }

func newConfig(text string) *Config {
	config := &Config{JSON: text, known: map[string]bool{}}
	if text == "" {
		return config
	}
	value, err := readJSON(text)
	if err != nil {
		config.Finding("", err.Error())
	}
	config.values, _ = value.(map[string]any)
	return config
}

// Finding says that something is wrong at a path such as `columns[2]`.
func (c *Config) Finding(path, message string) {
	c.findings = append(c.findings, finding{path, message})
}

// Get is the value of a key: nil, bool, Number, string, []any or map[string]any.
func (c *Config) Get(key string) (value any, there bool) {
	c.known[key] = true
	value, there = c.values[key]
	return value, there
}

// Text is a text that must be there.
func (c *Config) Text(key string) string {
	if _, there := c.values[key]; !there {
		c.Finding(key, "is missing: a text")
	}
	return c.TextOr(key, "")
}

// TextOr is a text, or otherwise where the key is missing.
func (c *Config) TextOr(key, otherwise string) string {
	value, there := c.Get(key)
	text, ok := value.(string)
	if ok {
		return text
	}
	if there {
		c.Finding(key, "must be a text")
	}
	return otherwise
}

// Texts is a list of texts, or otherwise where the key is missing.
func (c *Config) Texts(key string, otherwise []string) []string {
	value, there := c.Get(key)
	if !there {
		return otherwise
	}
	list, ok := value.([]any)
	if !ok {
		c.Finding(key, "must be a list of texts")
		return otherwise
	}
	texts := make([]string, 0, len(list))
	for index, element := range list {
		text, ok := element.(string)
		if !ok {
			c.Finding(key+"["+strconv.Itoa(index)+"]", "must be a text")
		}
		texts = append(texts, text)
	}
	return texts
}

// Int is an integer, or otherwise where the key is missing.
func (c *Config) Int(key string, otherwise int64) int64 {
	value, there := c.Get(key)
	if !there {
		return otherwise
	}
	if number, ok := value.(Number); ok {
		if integer, err := strconv.ParseInt(string(number), 10, 64); err == nil {
			return integer
		}
	}
	c.Finding(key, "must be an integer")
	return otherwise
}

// Bool is true or false, or otherwise where the key is missing.
func (c *Config) Bool(key string, otherwise bool) bool {
	value, there := c.Get(key)
	truth, ok := value.(bool)
	if ok {
		return truth
	}
	if there {
		c.Finding(key, "must be true or false")
	}
	return otherwise
}

func (c *Config) findUnknown() {
	var unknown []string
	for key := range c.values {
		if !c.known[key] {
			unknown = append(unknown, key)
		}
	}
	slices.Sort(unknown)
	for _, key := range unknown {
		c.Finding(key, "unknown key")
	}
}
