package dataset

import (
	"fmt"
	"regexp"
	"strings"
)

// compileGlob translates a pattern with the rules of fsspec's glob, which datasets uses: "*" and "?" stay inside a path
// segment, "**" is a whole segment and stands for any number of them, "[abc]" and "[!a-z]" are sets and braces are
// plain characters. The regular expression matches a whole slash-separated path.
func compileGlob(pattern string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString(`\A(?s:`)
	segments := strings.Split(pattern, "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		switch {
		case segment == "**" && last:
			b.WriteString(`.*`)
			continue
		case segment == "**":
			b.WriteString(`(?:.+/)?`)
			continue
		case segment == "*":
			b.WriteString(`[^/]+`)
		case strings.Contains(segment, "**"):
			return nil, fmt.Errorf("reading pattern %q: ** must be a whole path segment", pattern)
		default:
			writeSegment(&b, segment)
		}
		if !last {
			b.WriteByte('/')
		}
	}
	b.WriteString(`)\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("reading pattern %q: %w", pattern, err)
	}
	return re, nil
}

func writeSegment(b *strings.Builder, segment string) {
	for i := 0; i < len(segment); i++ {
		switch c := segment[i]; c {
		case '*':
			b.WriteString(`[^/]*`)
		case '?':
			b.WriteString(`[^/]`)
		case '[':
			end := setEnd(segment, i)
			if end < 0 {
				b.WriteString(`\[`)
				continue
			}
			writeSet(b, segment[i+1:end])
			i = end
		default:
			// Bytes of a multi-byte character pass through; only ASCII has a meaning in regular expressions.
			if c < 0x80 {
				b.WriteString(regexp.QuoteMeta(string(rune(c))))
			} else {
				b.WriteByte(c)
			}
		}
	}
}

// setEnd finds the "]" that closes the set opened at i. One right after "[" or "[!" is a member.
func setEnd(segment string, i int) int {
	j := i + 1
	if j < len(segment) && segment[j] == '!' {
		j++
	}
	if j < len(segment) && segment[j] == ']' {
		j++
	}
	if k := strings.IndexByte(segment[min(j, len(segment)):], ']'); k >= 0 {
		return j + k
	}
	return -1
}

func writeSet(b *strings.Builder, set string) {
	b.WriteByte('[')
	if rest, negated := strings.CutPrefix(set, "!"); negated {
		b.WriteByte('^')
		set = rest
	}
	members := []rune(set)
	for i := 0; i < len(members); i++ {
		// A hyphen between two members is a range; at either end it stands for itself, as in "[-._ 0-9]".
		if i+2 < len(members) && members[i+1] == '-' {
			if members[i] <= members[i+2] {
				writeMember(b, members[i])
				b.WriteByte('-')
				writeMember(b, members[i+2])
			}
			i += 2
			continue
		}
		writeMember(b, members[i])
	}
	b.WriteByte(']')
}

func writeMember(b *strings.Builder, r rune) {
	if strings.ContainsRune(`\]^-[&~|`, r) {
		b.WriteByte('\\')
	}
	b.WriteRune(r)
}
