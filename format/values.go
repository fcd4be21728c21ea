package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Targets is the value of target_modules or exclude_modules: a list of names
// and name suffixes, or one string, which is a regular expression or
// "all-linear". In JSON it is null, a string or a list.
type Targets struct {
	Names   []string
	Pattern string
}

// IsZero reports whether the value is null.
func (t Targets) IsZero() bool { return t.Names == nil && t.Pattern == "" }

func (t *Targets) UnmarshalJSON(raw []byte) error {
	*t = Targets{}
	switch raw[0] {
	case 'n':
		return nil
	case '"':
		if err := json.Unmarshal(raw, &t.Pattern); err != nil {
			return err
		}
		if t.Pattern == "" {
			return errors.New("the pattern is empty")
		}
		return nil
	case '[':
		return (*names)(&t.Names).UnmarshalJSON(raw)
	}
	return fmt.Errorf("expected a list of names, a string or null, found %s", clip(raw))
}

func (t Targets) MarshalJSON() ([]byte, error) {
	if t.Pattern != "" {
		return json.Marshal(t.Pattern)
	}
	return json.Marshal(t.Names)
}

// names is a list of strings in which, unlike with encoding/json, null is no string.
type names []string

func (n *names) UnmarshalJSON(raw []byte) error {
	var list []*string
	if err := json.Unmarshal(raw, &list); err != nil || slices.Contains(list, nil) {
		return fmt.Errorf("expected a list of strings or null, found %s", clip(raw))
	}
	*n = nil
	if list != nil {
		*n = make(names, len(list))
	}
	for i, s := range list {
		(*n)[i] = *s
	}
	return nil
}

// A StringList is a list that PEFT also lets be a single string.
type StringList []string

func (l *StringList) UnmarshalJSON(raw []byte) error {
	if raw[0] == '"' {
		*l = StringList{""}
		return json.Unmarshal(raw, &(*l)[0])
	}
	if (*names)(l).UnmarshalJSON(raw) != nil {
		return fmt.Errorf("expected a string, a list of strings or null, found %s", clip(raw))
	}
	return nil
}

// An IntList is a list that PEFT also lets be a single integer.
type IntList []int

func (l *IntList) UnmarshalJSON(raw []byte) error {
	var list []*int
	if raw[0] != '[' {
		list = []*int{nil}
		if json.Unmarshal(raw, &list[0]) != nil {
			list = nil
		}
	} else if json.Unmarshal(raw, &list) != nil {
		list = []*int{nil}
	}
	if slices.Contains(list, nil) || list == nil {
		return fmt.Errorf("expected an integer, a list of integers or null, found %s", clip(raw))
	}
	*l = make(IntList, len(list))
	for i, n := range list {
		(*l)[i] = *n
	}
	return nil
}

// A Pattern maps module names or regular expressions to ranks or alphas. The
// order is that of the file, and the first matching key counts. PEFT sorts the
// keys when it writes, and so does [AdapterConfig.MarshalJSON]: keys should not
// overlap.
type Pattern []PatternEntry

// A PatternEntry is one key of a [Pattern].
type PatternEntry struct {
	Key   string
	Value float64
}

func (p *Pattern) UnmarshalJSON(raw []byte) error {
	*p = Pattern{}
	if raw[0] == 'n' {
		*p = nil
		return nil
	}
	if raw[0] != '{' {
		return fmt.Errorf("expected an object or null, found %s", clip(raw))
	}
	s := &scanner{src: raw}
	return s.object(func(key string) error {
		text, err := s.value()
		if err != nil {
			return err
		}
		value, err := strconv.ParseFloat(string(text), 64)
		if err != nil {
			return fmt.Errorf("key %q: expected a number, found %s", key, clip(text))
		}
		*p = append(*p, PatternEntry{key, value})
		return nil
	})
}

func (p Pattern) MarshalJSON() ([]byte, error) {
	values := make(map[string]Number, len(p))
	for _, e := range p {
		values[e.Key] = Number(e.Value)
	}
	return json.Marshal(values)
}

// ranks is a Pattern of positive integers; PEFT cannot build a layer of rank 16.0.
type ranks Pattern

func (r *ranks) UnmarshalJSON(raw []byte) error {
	if err := (*Pattern)(r).UnmarshalJSON(raw); err != nil || *r == nil {
		return err
	}
	var texts map[string]json.RawMessage
	if err := json.Unmarshal(raw, &texts); err != nil {
		return err
	}
	for _, e := range *r {
		if text := string(texts[e.Key]); strings.ContainsAny(text, ".eE") || e.Value < 1 {
			return fmt.Errorf("key %q: expected a positive integer, found %s", e.Key, clip(texts[e.Key]))
		}
	}
	return nil
}

func (r ranks) MarshalJSON() ([]byte, error) { return Pattern(r).MarshalJSON() }

// A Number is a float64 that is written as Python writes an int when it is
// whole: the alphas of PEFT. Plain floats are written with a point: "0.0".
type Number float64

func (n Number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return nil, fmt.Errorf("%v is not a JSON number", f)
	case f == math.Trunc(f) && math.Abs(f) < 1<<53:
		return strconv.AppendInt(nil, int64(f), 10), nil
	}
	return []byte(pythonFloat(f)), nil
}
