// Package nearest finds the name that somebody meant who wrote another one.
package nearest

import (
	"fmt"
	"slices"
	"strings"
)

// DidYouMean is the tail of a message about an unknown name: the nearest valid one, or nothing where none is near.
func DidYouMean(name string, valid []string) string {
	if n := Name(name, valid); n != "" {
		return fmt.Sprintf(", did you mean %q?", n)
	}
	return ""
}

// Name returns the valid name that was most likely meant, or "" if none is close: a third of the letters may be
// wrong, and case and the kind of dash do not count.
func Name(name string, valid []string) string {
	plain := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }
	best, distance := "", max(1, len(name)/3)+1
	for _, candidate := range slices.Sorted(slices.Values(valid)) {
		if d := edits(plain(name), plain(candidate)); d < distance {
			best, distance = candidate, d
		}
	}
	return best
}

// edits counts the insertions, deletions, substitutions and swaps of neighbours that turn a into
// b (optimal string alignment, Damerau 1964).
func edits(a, b string) int {
	x, y := []rune(a), []rune(b)
	// rows[i][j] is the distance between x[:i] and y[:j].
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range y {
		rows[0][j+1] = j + 1
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(x)][len(y)]
}
