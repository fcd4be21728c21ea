package format

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// A scanner reads JSON in one pass, front to back, and refuses what
// encoding/json lets through: duplicate keys (last wins there), invalid UTF-8
// and lone surrogates (replaced there), so that no two readers of a file can
// see different things.
type scanner struct {
	src   []byte
	pos   int
	depth int
}

// maxDepth bounds nesting; no configuration comes near it.
const maxDepth = 64

func newScanner(src []byte) (*scanner, error) {
	if !utf8.Valid(src) {
		return nil, errors.New("JSON is not valid UTF-8")
	}
	return &scanner{src: src}, nil
}

func (s *scanner) fail(msg string, args ...any) error {
	return fmt.Errorf(msg+" at byte %d of the JSON", append(args, s.pos)...)
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for ; s.pos < len(s.src); s.pos++ {
		switch c := s.src[s.pos]; c {
		case ' ', '\n', '\t', '\r':
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) eat(c byte) bool {
	if s.peek() != c || s.pos == len(s.src) {
		return false
	}
	s.pos++
	return true
}

func (s *scanner) expect(c byte) error {
	if s.eat(c) {
		return nil
	}
	if s.pos >= len(s.src) {
		return s.fail("expected %q, found the end", c)
	}
	return s.fail("expected %q, found %q", c, s.src[s.pos])
}

// object calls member for every key, with the scanner before the value.
func (s *scanner) object(member func(key string) error) error {
	return s.list('{', '}', func() error {
		key, err := s.str()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		return member(key)
	})
}

// array calls element with the scanner before every element.
func (s *scanner) array(element func() error) error { return s.list('[', ']', element) }

func (s *scanner) list(open, end byte, item func() error) error {
	if err := s.expect(open); err != nil {
		return err
	}
	if s.depth++; s.depth > maxDepth {
		return s.fail("nesting deeper than %d", maxDepth)
	}
	defer func() { s.depth-- }()
	if s.eat(end) {
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if s.eat(end) {
			return nil
		}
		if err := s.expect(','); err != nil {
			return err
		}
	}
}

func (s *scanner) str() (string, error) {
	if err := s.expect('"'); err != nil {
		return "", err
	}
	start := s.pos
	var out []byte // stays nil while there is no escape
	for s.pos < len(s.src) {
		c := s.src[s.pos]
		switch {
		case c == '"':
			if out == nil {
				out = s.src[start:s.pos]
			}
			s.pos++
			return string(out), nil
		case c < 0x20:
			return "", s.fail("control character %q in a string", c)
		case c == '\\':
			if out == nil {
				out = append([]byte{}, s.src[start:s.pos]...)
			}
			s.pos++
			r, err := s.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		default:
			if out != nil {
				out = append(out, c)
			}
			s.pos++
		}
	}
	return "", s.fail("unterminated string")
}

var simpleEscapes = map[byte]rune{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escape reads what follows a backslash.
func (s *scanner) escape() (rune, error) {
	if s.pos >= len(s.src) {
		return 0, s.fail("unterminated string")
	}
	c := s.src[s.pos]
	s.pos++
	if r, ok := simpleEscapes[c]; ok {
		return r, nil
	}
	if c != 'u' {
		return 0, s.fail("unknown escape \\%c", c)
	}
	r, err := s.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if s.pos+2 <= len(s.src) && s.src[s.pos] == '\\' && s.src[s.pos+1] == 'u' {
		s.pos += 2
		low, err := s.hex4()
		if err != nil {
			return 0, err
		}
		if full := utf16.DecodeRune(r, low); full != utf8.RuneError {
			return full, nil
		}
	}
	return 0, s.fail("lone surrogate in a string")
}

func (s *scanner) hex4() (rune, error) {
	if s.pos+4 > len(s.src) {
		return 0, s.fail("unterminated string")
	}
	var r rune
	for _, c := range s.src[s.pos : s.pos+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, s.fail("bad \\u escape")
		}
		r = r<<4 | rune(c)
	}
	s.pos += 4
	return r, nil
}

// natural reads a number without sign, fraction or exponent, at most max.
func (s *scanner) natural(max uint64) (uint64, error) {
	s.peek()
	start := s.pos
	s.digits()
	text := s.src[start:s.pos]
	if len(text) == 0 || len(text) > 1 && text[0] == '0' {
		return 0, s.fail("expected a whole number")
	}
	if s.pos < len(s.src) && (s.src[s.pos] == '.' || s.src[s.pos] == 'e' || s.src[s.pos] == 'E') {
		return 0, s.fail("expected a whole number, found a fraction or exponent")
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil || n > max {
		return 0, s.fail("number %.20s is too large", text)
	}
	return n, nil
}

func (s *scanner) digits() int {
	start := s.pos
	for s.pos < len(s.src) && '0' <= s.src[s.pos] && s.src[s.pos] <= '9' {
		s.pos++
	}
	return s.pos - start
}

// value checks one value of any kind and returns its text.
func (s *scanner) value() ([]byte, error) {
	c := s.peek()
	start := s.pos
	var err error
	switch {
	case c == '{':
		seen := map[string]bool{}
		err = s.object(func(key string) error {
			if seen[key] {
				return s.fail("duplicate key %q", key)
			}
			seen[key] = true
			_, err := s.value()
			return err
		})
	case c == '[':
		err = s.array(func() error { _, err := s.value(); return err })
	case c == '"':
		_, err = s.str()
	case c == '-' || '0' <= c && c <= '9':
		err = s.number()
	default:
		err = s.literal()
	}
	return s.src[start:s.pos], err
}

func (s *scanner) number() error {
	start := s.pos
	if s.src[s.pos] == '-' {
		s.pos++
	}
	first := s.pos
	n := s.digits()
	if n == 0 || n > 1 && s.src[first] == '0' {
		return s.fail("malformed number")
	}
	if s.pos < len(s.src) && s.src[s.pos] == '.' {
		s.pos++
		if s.digits() == 0 {
			return s.fail("malformed number")
		}
	}
	if s.pos < len(s.src) && (s.src[s.pos] == 'e' || s.src[s.pos] == 'E') {
		s.pos++
		if s.pos < len(s.src) && (s.src[s.pos] == '+' || s.src[s.pos] == '-') {
			s.pos++
		}
		if s.digits() == 0 {
			return s.fail("malformed number")
		}
	}
	if f, err := strconv.ParseFloat(string(s.src[start:s.pos]), 64); err != nil || math.IsInf(f, 0) {
		return s.fail("number %.20s does not fit in float64", s.src[start:s.pos])
	}
	return nil
}

func (s *scanner) literal() error {
	start := s.pos
	for s.pos < len(s.src) && (s.src[s.pos]|0x20 >= 'a' && s.src[s.pos]|0x20 <= 'z') {
		s.pos++
	}
	switch word := string(s.src[start:s.pos]); word {
	case "true", "false", "null":
		return nil
	case "NaN", "Infinity": // Python's json module writes these
		return s.fail("%s is not a JSON value", word)
	case "":
		return s.fail("expected a value")
	default:
		return s.fail("expected a value, found %.20q", word)
	}
}

// end fails unless only white space is left.
func (s *scanner) end() error {
	if s.peek(); s.pos < len(s.src) {
		return s.fail("unexpected text after the JSON value")
	}
	return nil
}
