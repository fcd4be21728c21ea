package hub

import (
	"net/http"
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

// forget drops an address that no longer works, and says whether there was one.
func (s *source) forget() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.location != ""
	s.location = ""
	return had
}
