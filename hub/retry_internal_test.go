package hub

import (
	"net/http"
	"testing"
	"time"
)

func TestPause(t *testing.T) {
	c := &Client{backoff: time.Second}
	h := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	tests := []struct {
		name    string
		header  http.Header
		status  int
		attempt int
		want    time.Duration
	}{
		{"22 rate limit used up", h("RateLimit", `"api";r=0;t=2`), 429, 0, 3 * time.Second},
		{"24 another limiter's header", h("RateLimit", `"api";r=10;t=200`), 429, 0, time.Second},
		{"24 another limiter's header, and Retry-After", h("RateLimit", `"api";r=10;t=200`, "Retry-After", "4"), 429, 0, 5 * time.Second},
		{"23 Retry-After in seconds", h("Retry-After", "1"), 429, 0, 2 * time.Second},
		{"23 Retry-After as a date, by the server's clock",
			h("Retry-After", "Wed, 21 Oct 2015 07:28:05 GMT", "Date", "Wed, 21 Oct 2015 07:28:00 GMT"), 429, 0, 6 * time.Second},
		{"23 Retry-After as a date without a clock", h("Retry-After", "Wed, 21 Oct 2015 07:28:05 GMT"), 429, 0, time.Second},
		{"Retry-After of a 503", h("Retry-After", "1"), 503, 2, 2 * time.Second},
		{"23 nothing said", nil, 429, 0, time.Second},
		{"doubling", nil, 500, 2, 4 * time.Second},
		{"no more than eightfold", nil, 500, 9, 8 * time.Second},
		{"a wait without end", h("Retry-After", "999999999"), 429, 0, maxPause},
		{"a limit without end", h("RateLimit", `"api";r=0;t=99999999`), 429, 0, maxPause},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := c.pause(tt.header, tt.status, tt.attempt); got != tt.want {
				t.Errorf("pause %v; want %v", got, tt.want)
			}
		})
	}
}

func TestBypassProxy(t *testing.T) {
	tests := []struct {
		host, list string
		want       bool
	}{
		{"localhost", "", true},
		{"127.0.0.2", "", true},
		{"hub.test", "", false},
		{"hub.test", "*", true},
		{"a.hub.test", "hub.test", true},
		{"a.hub.test", ".hub.test, other", true},
		{"ahub.test", "hub.test", false},
		{"10.1.2.3", "10.0.0.0/8", true},
	}
	for _, tt := range tests {
		if got := bypassProxy(tt.host, tt.list); got != tt.want {
			t.Errorf("bypassProxy(%q, %q) = %v", tt.host, tt.list, got)
		}
	}
}

func TestRedact(t *testing.T) {
	tests := []struct{ in, want string }{
		{"Bearer hf_abcdefgh1234", "Bearer …"},
		{"token hf_abcdefgh1234 is bad", "token hf_… is bad"},
		{"see https://cdn.test/x?X-Amz-Signature=abc&y=1 now", "see https://cdn.test/x?… now"},
	}
	for _, tt := range tests {
		if got := redact(tt.in); got != tt.want {
			t.Errorf("redact(%q) = %q; want %q", tt.in, got, tt.want)
		}
	}
	if got := redactURL("https://u:p@h.test/a?sig=1"); got != "https://u:xxxxx@h.test/a?…" {
		t.Errorf("redactURL gives %q", got)
	}
}

func TestCheckPath(t *testing.T) {
	bad := []string{"", "/x", "../x", "a/../../x", "C:/x", "c:x", `\\host\share`, `a\..\b`, "a//b", "a/./b", "a/", "x\x00y", ".."}
	for _, name := range bad {
		if checkPath(name) == nil {
			t.Errorf("39 checkPath(%q) accepts it", name)
		}
	}
	for _, name := range []string{"a", "a/b.txt", "ünï code", "...", "a..b", "#?%", ".gitattributes"} {
		if err := checkPath(name); err != nil {
			t.Errorf("checkPath(%q): %v", name, err)
		}
	}
}

// What Python's fnmatch.fnmatchcase answers, after huggingface_hub's preparation of
// the pattern.
func TestPatternsMatchLikePython(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"*.json", "config.json", true},
		{"*.json", "sub/deep/config.json", true},
		{"*.JSON", "config.json", false},
		{"sub/", "sub/deep/x", true},
		{"sub/", "subx", false},
		{"a?c", "a/c", true},
		{"[ab].txt", "b.txt", true},
		{"[!ab].txt", "b.txt", false},
		{"[!ab].txt", "c.txt", true},
		{"[", "[", true},
		{"[]]", "]", true},
		{"[!]]", "]", false},
		{"[a-c]x", "bx", true},
		{"[c-a]x", "bx", false},
		{"[a-]", "-", true},
		{"[^a]", "^", true},
		{"**/x", "a/b/x", true},
		{"**/x", "x", false},
		{`sub\*.txt`, "sub/a.txt", true},
		{"a.b", "axb", false},
		{"a\nb*", "a\nbc", true},
	}
	for _, tt := range tests {
		if got := compile([]string{tt.pattern}).match(tt.name); got != tt.want {
			t.Errorf("%q matches %q: %v; Python says %v", tt.pattern, tt.name, got, tt.want)
		}
	}
}

func FuzzPatterns(f *testing.F) {
	for _, s := range []string{"*.json", "[!a-]", "[]", "[[:alpha:]]", "[z-a]", `\[x`, "[a&&b]"} {
		f.Add(s, "config.json")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) { compile([]string{pattern}).match(name) })
}
