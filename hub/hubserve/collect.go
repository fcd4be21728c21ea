package hubserve

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// keepUnused is how long content stays that no commit has: its client may be about
// to commit it, or to go on with an upload that was cut short.
const keepUnused = 24 * time.Hour

// collect removes content that no commit of any repository has, as uploads without a
// commit and deleted repositories leave it. It must run alone.
func (s *Server) collect(d *disk) error {
	used := map[string]bool{}
	commits, err := s.st.keys("repos")
	if err != nil {
		return err
	}
	for _, key := range commits {
		if !strings.Contains(key, "/commits/") {
			continue
		}
		var c commit
		if err := s.loadJSON(key, &c); err != nil {
			return err
		}
		for _, f := range c.Files {
			used[f.SHA256] = true
		}
	}
	bundles, err := s.st.keys("xorbs")
	if err != nil {
		return err
	}
	for _, key := range bundles {
		var chunks []chunkAt
		if err := s.loadJSON(key, &chunks); err != nil {
			return err
		}
		for _, c := range chunks {
			used[c.Blob] = true // clients believe that it is here
		}
	}
	n, err := d.removeBlobs(func(sha string, age time.Duration) bool { return !used[sha] && age > keepUnused })
	if n > 0 {
		s.log.Info("removed content that no commit has", "files", n)
	}
	return err
}

func (s *Server) loadJSON(key string, v any) error {
	data, err := s.st.load(key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("reading %q: %w", key, err)
	}
	return nil
}
