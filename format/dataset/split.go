package dataset

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// slice is one term of a split expression, such as train[10%:20%]. It follows datasets' ReadInstruction.
type slice struct {
	text     string
	split    string
	from, to *int // nil: open
	percent  bool
	// dropRemainder is the rounding "pct1_dropremainder": a percentage counts whole hundredths of the split, so that
	// equal percentages give equal numbers of rows. The default, "closest", rounds half to even.
	dropRemainder bool
}

var (
	splitName = `[\p{L}\p{N}_]+(?:\.[\p{L}\p{N}_]+)*`
	isSplit   = regexp.MustCompile(`^` + splitName + `$`)
	sliceTerm = regexp.MustCompile(`^(` + splitName + `)` +
		`(\[(?:(-?[\d_]+)(%)?)?:(?:(-?[\d_]+)(%)?)?\])?` +
		`(?:\(([^)]*)\))?$`)
	plus = regexp.MustCompile(`\s*\+\s*`)
)

// parseSplit reads the slicing language of datasets: terms joined by "+", each a split name with an optional slice in
// rows or whole percents, negative numbers counting from the end.
func parseSplit(expr string) ([]slice, error) {
	if strings.TrimSpace(expr) == "" {
		return nil, fmt.Errorf("%w: the expression is empty; write for example train or train[:5000]", ErrSplit)
	}
	var terms []slice
	for _, text := range plus.Split(strings.TrimSpace(expr), -1) {
		term, err := parseSlice(text)
		if err != nil {
			return nil, fmt.Errorf("%w: reading %q: %w", ErrSplit, text, err)
		}
		// As in datasets, only the first term is compared with the others.
		if len(terms) > 0 && terms[0].percent && term.percent && terms[0].dropRemainder != term.dropRemainder {
			return nil, fmt.Errorf("%w: %q adds slices of different rounding", ErrSplit, expr)
		}
		terms = append(terms, term)
	}
	return terms, nil
}

func parseSlice(text string) (slice, error) {
	m := sliceTerm.FindStringSubmatch(text)
	if m == nil {
		return slice{}, fmt.Errorf("not of the form split, split[from:to] or split[from%%:to%%] with whole numbers")
	}
	s := slice{text: text, split: m[1], percent: m[4] != "" || m[6] != ""}
	for _, bound := range []struct {
		text string
		into **int
	}{{m[3], &s.from}, {m[5], &s.to}} {
		if bound.text == "" {
			continue
		}
		n, err := strconv.Atoi(strings.ReplaceAll(bound.text, "_", ""))
		if err != nil {
			return slice{}, fmt.Errorf("the bound %q is not a whole number", bound.text)
		}
		if s.percent && (n > 100 || n < -100) {
			return slice{}, fmt.Errorf("the bound %d%% is outside -100%% to 100%%", n)
		}
		*bound.into = &n
	}
	switch rounding := m[7]; {
	case rounding == "" && !strings.HasSuffix(text, ")"):
	case !s.percent:
		return slice{}, fmt.Errorf("a rounding needs bounds in percent")
	case rounding == "pct1_dropremainder":
		s.dropRemainder = true
	case rounding != "closest":
		return slice{}, fmt.Errorf("unknown rounding %q; closest and pct1_dropremainder exist", rounding)
	}
	return s, nil
}

// bounds resolves the slice in a split of n rows: rows [from, to), empty when from >= to.
func (s slice) bounds(n int) (from, to int, err error) {
	if s.dropRemainder && n < 100 {
		return 0, 0, fmt.Errorf("%w: pct1_dropremainder in %q selects nothing of a split with %d rows, which is below 100",
			ErrSplit, s.text, n)
	}
	resolve := func(bound *int, open int) int {
		if bound == nil {
			return open
		}
		b := *bound
		switch {
		case s.dropRemainder:
			b *= n / 100
		case s.percent:
			b = int(math.RoundToEven(float64(b*n) / 100))
		}
		if b < 0 {
			b = max(n+b, 0)
		}
		return min(b, n)
	}
	return resolve(s.from, 0), resolve(s.to, n), nil
}
