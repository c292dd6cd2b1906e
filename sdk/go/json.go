package walmill

import (
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Number is a number of the configuration, as its digits.
type Number string

var errJSON = errors.New("the configuration is no JSON")

// Reads JSON as nil, bool, Number, string, []any and map[string]any. (encoding/json would be
// half of a small plugin.)
type reader struct {
	text string
	at   int
}

func readJSON(text string) (any, error) {
	in := reader{text: text}
	value, err := in.value()
	if err == nil && in.peek() != 0 {
		err = errJSON
	}
	return value, err
}

// The next byte that is no space; 0 at the end.
func (r *reader) peek() byte {
	for r.at < len(r.text) && r.text[r.at] <= ' ' {
		r.at++
	}
	if r.at == len(r.text) {
		return 0
	}
	return r.text[r.at]
}

func (r *reader) took(byte byte) bool {
	if r.peek() != byte {
		return false
	}
	r.at++
	return true
}

func (r *reader) value() (any, error) {
	switch {
	case r.took('"'):
		return r.string()
	case r.took('['):
		return r.list()
	case r.took('{'):
		return r.table()
	}
	r.peek()
	start := r.at
	for r.at < len(r.text) && r.text[r.at] > ' ' && !strings.ContainsRune(",]}", rune(r.text[r.at])) {
		r.at++
	}
	switch word := r.text[start:r.at]; word {
	case "":
		return nil, errJSON
	case "null":
		return nil, nil
	case "true", "false":
		return word == "true", nil
	default:
		return Number(word), nil
	}
}

func (r *reader) list() (any, error) {
	list := []any{}
	for !r.took(']') {
		value, err := r.value()
		if err != nil {
			return nil, err
		}
		list = append(list, value)
		if !r.took(',') && r.peek() != ']' {
			return nil, errJSON
		}
	}
	return list, nil
}

func (r *reader) table() (any, error) {
	table := map[string]any{}
	for !r.took('}') {
		if !r.took('"') {
			return nil, errJSON
		}
		key, err := r.string()
		if err != nil || !r.took(':') {
			return nil, errJSON
		}
		value, err := r.value()
		if err != nil {
			return nil, err
		}
		table[key] = value
		if !r.took(',') && r.peek() != '}' {
			return nil, errJSON
		}
	}
	return table, nil
}

// Behind the opening quote.
func (r *reader) string() (string, error) {
	var out []byte
	for r.at < len(r.text) {
		byte := r.text[r.at]
		r.at++
		switch byte {
		case '"':
			return string(out), nil
		case '\\':
			out = r.escaped(out)
		default:
			out = append(out, byte)
		}
	}
	return "", errJSON
}

func (r *reader) escaped(out []byte) []byte {
	if r.at == len(r.text) {
		return out
	}
	letter := r.text[r.at]
	r.at++
	if letter == 'u' {
		code := r.hex4()
		if utf16.IsSurrogate(code) && strings.HasPrefix(r.text[r.at:], `\u`) {
			r.at += 2
			code = utf16.DecodeRune(code, r.hex4())
		}
		return utf8.AppendRune(out, code)
	}
	if at := strings.IndexByte("bfnrt", letter); at >= 0 {
		letter = "\b\f\n\r\t"[at]
	}
	return append(out, letter)
}

func (r *reader) hex4() rune {
	var code rune
	for range 4 {
		if r.at == len(r.text) {
			break
		}
		digit := rune(r.text[r.at])
		r.at++
		if digit > '9' {
			digit = (digit | 0x20) - 'a' + 10 + '0'
		}
		code = code<<4 | (digit - '0')
	}
	return code
}
