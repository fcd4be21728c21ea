package hub

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
)

// source is where one file's content comes from.
type source struct {
	resolve string // the Hub's address of the file at a commit
	etag    string
	size    int64 // -1 if unknown

	mu       sync.Mutex
	location string // where resolve last led; signed, so it expires
	noRanges bool   // the server has ignored a Range

	pinned bool              // answers must be about the same content: nothing will hash the whole
	etags  map[origin]string // that hosts have given it
}

func (s *source) address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.location != "" {
		return s.location
	}
	return s.resolve
}

// learn remembers where a request ended, which saves the redirect next time.
func (s *source) learn(resp *http.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := resp.Request.URL.String(); u != s.resolve {
		s.location = u
	}
}

// forget drops an address that no longer works, and says whether there may be
// another: the Hub's own has none.
func (s *source) forget(used string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if used == s.location {
		s.location = ""
		s.etags = nil // the next host may name the content in another way
	}
	return used != s.resolve
}

// same fails if an answer to a request for a range is not about the content that
// the listing announced, or that earlier answers were about. What a host other than
// the Hub calls the content is its own business, as long as it does not change.
func (s *source) same(resp *http.Response) error {
	if !s.pinned || resp.StatusCode >= 300 && resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		return nil
	}
	changed := func(what, now, before string) error {
		return fmt.Errorf("%w: its %s is %q now and was %q", ErrChanged, what, now, before)
	}
	for hop := resp; hop != nil; hop = hop.Request.Response {
		if linked := normalETag(hop.Header.Get("X-Linked-Etag")); linked != "" && linked != s.etag {
			return changed("ETag", linked, s.etag)
		}
	}
	if total := rangeTotal(resp.Header); total >= 0 && total != s.size {
		return changed("size", strconv.FormatInt(total, 10), strconv.FormatInt(s.size, 10))
	}
	etag := normalETag(resp.Header.Get("ETag"))
	if etag == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	host := originOfURL(resp.Request.URL)
	before, known := s.etags[host]
	if !known && len(etag) == len(s.etag) && newHash(etag, s.size) != nil {
		before, known = s.etag, true // both are hashes of the same kind
	}
	if known && etag != before {
		return changed("ETag", etag, before)
	}
	if s.etags == nil {
		s.etags = map[origin]string{}
	}
	s.etags[host] = etag
	return nil
}
