package dataset

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// glob is a pattern with the rules of fsspec, which datasets uses: "*" and "?" stay inside a path segment, "**" is a
// whole segment and stands for any number of them, "[abc]" and "[!a-z]" are sets, and braces are plain characters.
// It is matched by hand: regular expressions take seconds over the hundred thousand files of a folder of images.
type glob []segment

// segment is the tokens of one path segment; nil is "**".
type segment []token

type token struct {
	star   bool
	any    bool
	set    []runeRange // nil: the single rune
	negate bool
	r      rune
}

type runeRange struct{ low, high rune }

func parseGlob(pattern string) (glob, error) {
	var g glob
	for _, text := range strings.Split(pattern, "/") {
		if text == "**" {
			if len(g) == 0 || g[len(g)-1] != nil {
				g = append(g, nil)
			}
			continue
		}
		if strings.Contains(text, "**") {
			return nil, fmt.Errorf("reading pattern %q: ** must be a whole path segment", pattern)
		}
		g = append(g, parseSegment(text))
	}
	return g, nil
}

func parseSegment(text string) segment {
	s := segment{}
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		t := token{r: r}
		switch r {
		case '*':
			t = token{star: true}
		case '?':
			t = token{any: true}
		case '[':
			if end := setEnd(text, i); end > 0 {
				t = parseSet(text[i+1 : end])
				size = end + 1 - i
			}
		}
		s = append(s, t)
		i += size
	}
	return s
}

// setEnd finds the "]" that closes the set opened at i, 0 if there is none. One right after "[" or "[!" is a member.
func setEnd(text string, i int) int {
	members := i + 1
	if strings.HasPrefix(text[members:], "!") {
		members++
	}
	if strings.HasPrefix(text[members:], "]") {
		members++
	}
	if k := strings.IndexByte(text[members:], ']'); k >= 0 {
		return members + k
	}
	return 0
}

func parseSet(text string) token {
	text, negate := strings.CutPrefix(text, "!")
	t := token{negate: negate, set: []runeRange{}}
	members := []rune(text)
	for i := 0; i < len(members); i++ {
		// A hyphen between two members is a range, an empty one if they are in the wrong order; at either end it stands
		// for itself, as in "[-._ 0-9]".
		if i+2 < len(members) && members[i+1] == '-' {
			t.set = append(t.set, runeRange{members[i], members[i+2]})
			i += 2
			continue
		}
		t.set = append(t.set, runeRange{members[i], members[i]})
	}
	return t
}

// match reports whether the pattern matches the whole of a slash-separated path.
func (g glob) match(path string) bool {
	for len(g) > 0 {
		if g[0] == nil {
			return g[1:].matchTail(path)
		}
		name, rest, more := strings.Cut(path, "/")
		if !g[0].match(name) || more != (len(g) > 1) {
			return false
		}
		g, path = g[1:], rest
	}
	return true
}

// matchTail reports whether the pattern matches the path or any part of it that begins after a slash.
func (g glob) matchTail(path string) bool {
	if len(g) == 0 || g.match(path) {
		return true
	}
	for i := range len(path) {
		if path[i] == '/' && g.match(path[i+1:]) {
			return true
		}
	}
	return false
}

// match compares a name with the tokens; on a mismatch the last star takes one more character.
func (s segment) match(name string) bool {
	t, i := 0, 0
	starToken, starName := -1, 0
	for i < len(name) || t < len(s) {
		if t < len(s) && s[t].star {
			starToken, starName = t, i
			t++
			continue
		}
		if t < len(s) && i < len(name) {
			r, size := utf8.DecodeRuneInString(name[i:])
			if s[t].matches(r) {
				t++
				i += size
				continue
			}
		}
		if starToken < 0 || starName >= len(name) {
			return false
		}
		_, size := utf8.DecodeRuneInString(name[starName:])
		starName += size
		t, i = starToken+1, starName
	}
	return true
}

func (t token) matches(r rune) bool {
	switch {
	case t.any:
		return true
	case t.set == nil:
		return t.r == r
	}
	for _, m := range t.set {
		if m.low <= r && r <= m.high {
			return !t.negate
		}
	}
	return t.negate
}
