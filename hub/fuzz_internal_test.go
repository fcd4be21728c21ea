package hub

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func FuzzTree(f *testing.F) {
	f.Add([]byte(`[{"type":"file","oid":"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391","size":0,"path":"a/b","lfs":{"oid":"sha256:00","size":-1},"xetHash":"x"}]`))
	f.Add([]byte(`[{"type":"file","path":"../x"},{"type":"directory"},null,{"path":5}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var entries []treeEntry
		if json.Unmarshal(text, &entries) != nil {
			return
		}
		for _, e := range entries {
			file := e.file()
			if file.check() != nil {
				continue
			}
			if rel, err := filepath.Rel("/dir", filepath.Join("/dir", filepath.FromSlash(file.Path))); err != nil || rel == "." || strings.HasPrefix(rel, "..") {
				t.Errorf("accepted name %q leads to %q", file.Path, rel)
			}
			if checkETag(file.ETag()) == nil && filepath.Base(file.ETag()) != file.ETag() {
				t.Errorf("accepted content name %q", file.ETag())
			}
		}
	})
}

func FuzzLink(f *testing.F) {
	for _, s := range []string{`<http://hub.test/api/x?cursor=1>; rel="next"`, `<//evil>; rel=next, <x>; rel="prev"`, `</y>; rel="next"`, `<http://hub.test@evil/>; rel="next"`} {
		f.Add(s)
	}
	c := &Client{endpoint: "http://hub.test"}
	f.Fuzz(func(t *testing.T, header string) {
		next := nextLink(http.Header{"Link": {header}})
		if next == "" {
			return
		}
		to, err := c.localise("http://hub.test/api/x", next)
		if err != nil {
			return
		}
		if u, err := url.Parse(to); err != nil || u.Host != "hub.test" || u.Scheme != "http" {
			t.Errorf("%q leads to %q", header, to)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 5-9/10", int64(5), int64(10))
	f.Add("bytes */10", int64(0), int64(-1))
	f.Add("bytes 0-18446744073709551616/-3", int64(0), int64(3))
	f.Fuzz(func(t *testing.T, header string, from, size int64) {
		h := http.Header{"Content-Range": {header}}
		if total := rangeTotal(h); total < -1 {
			t.Errorf("%q has the total %d", header, total)
		}
		if checkRange(h, from, size) == nil && (!strings.HasPrefix(header, "bytes ") || from < 0) {
			t.Errorf("%q is taken for the range from %d", header, from)
		}
	})
}

// The map behind a file of ranges is read from a disk that others can write to.
func FuzzRangeMap(f *testing.F) {
	f.Add(appendInts([]byte("0123456789"), rangeMagic, 2, 3, 3, 6, 1, 6, 9, 3))
	f.Add(appendInts([]byte("0123456789"), rangeMagic, 1, -1, 0, 0, 0))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		p := &partial{file: file, size: 10}
		complete, ok := p.loadRanges(int64(len(content)))
		if !ok {
			return
		}
		at := complete
		for _, pt := range p.begun {
			if pt.from != at || pt.have < 0 || pt.from+pt.have > pt.to {
				t.Fatalf("part %d-%d with %d bytes after %d", pt.from, pt.to, pt.have, at)
			}
			at = pt.to
		}
		if complete < 0 || at > p.size {
			t.Errorf("complete up to %d, begun up to %d of %d", complete, at, p.size)
		}
	})
}
