package hub

import (
	"regexp"
	"strings"
)

// patterns is a list of wildcards as huggingface_hub understands them.
type patterns []*regexp.Regexp

// compile translates wildcards. Python's fnmatch is not Go's path.Match: * and ?
// also match a slash, nothing escapes, and no pattern is an error. A pattern that
// ends in a slash means everything below.
func compile(globs []string) patterns {
	var ps patterns
	for _, g := range globs {
		g = strings.ReplaceAll(g, `\`, "/")
		if strings.HasSuffix(g, "/") {
			g += "*"
		}
		ps = append(ps, regexp.MustCompile(`(?s)\A`+translate(g)+`\z`))
	}
	return ps
}

func (ps patterns) match(name string) bool {
	name = strings.ReplaceAll(name, `\`, "/")
	for _, p := range ps {
		if p.MatchString(name) {
			return true
		}
	}
	return false
}

// selector applies include patterns, then exclude patterns, like
// allow_patterns and ignore_patterns.
type selector struct{ include, exclude patterns }

func newSelector(include, exclude []string) selector {
	return selector{compile(include), compile(exclude)}
}

func (s selector) match(name string) bool {
	return (len(s.include) == 0 || s.include.match(name)) && !s.exclude.match(name)
}

func translate(glob string) string {
	var b strings.Builder
	runes := []rune(glob)
	for i := 0; i < len(runes); i++ {
		switch c := runes[i]; c {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(".")
		case '[':
			class, n := translateClass(runes[i+1:])
			b.WriteString(class)
			i += n
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return b.String()
}

// translateClass translates what follows a '[' and says how many runes it took; a
// bracket that is never closed is an ordinary character.
func translateClass(rest []rune) (class string, n int) {
	end := 0
	if end < len(rest) && rest[end] == '!' {
		end++
	}
	if end < len(rest) && rest[end] == ']' { // a first ] is a member
		end++
	}
	for end < len(rest) && rest[end] != ']' {
		end++
	}
	if end >= len(rest) {
		return `\[`, 0
	}
	body, negated := rest[:end], ""
	if body[0] == '!' {
		body, negated = body[1:], "^"
	}
	var b strings.Builder
	for i := 0; i < len(body); i++ {
		lo := body[i]
		if i+2 < len(body) && body[i+1] == '-' {
			if hi := body[i+2]; lo <= hi { // an empty range such as z-a has no members
				b.WriteString(member(lo) + "-" + member(hi))
			}
			i += 2
			continue
		}
		b.WriteString(member(lo))
	}
	switch {
	case b.Len() > 0:
		return "[" + negated + b.String() + "]", end + 1
	case negated != "":
		return ".", end + 1
	default:
		return `[^\x00-\x{10FFFF}]`, end + 1 // matches nothing
	}
}

func member(r rune) string {
	if strings.ContainsRune(`\]^-[&~|`, r) {
		return `\` + string(r)
	}
	return string(r)
}
