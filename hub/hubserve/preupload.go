package hubserve

import (
	"path"
	"strings"
)

// preupload says for each file how its content is to be sent, and what the
// repository has under its name.
func (r *request) preupload() error {
	_, c, err := r.at(r.readable)
	if err != nil {
		return err
	}
	var q struct {
		Files []struct {
			Path string `json:"path"`
			Size int64  `json:"size"`
		} `json:"files"`
		GitIgnore string `json:"gitIgnore"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	ignored := parseIgnore(q.GitIgnore)
	answers := []map[string]any{}
	for _, f := range q.Files {
		// Parquet is LFS at any size, as on the Hub: the datasets library counts on it, and
		// deletes each shard as soon as it has been sent ahead.
		lfs := f.Size > r.s.regular || f.Size > 0 && strings.HasSuffix(f.Path, ".parquet")
		a := map[string]any{"path": f.Path, "uploadMode": "regular", "shouldIgnore": ignored(f.Path)}
		if lfs {
			a["uploadMode"] = "lfs"
		}
		if old, ok := c.find(f.Path); ok {
			// The client compares with the hash that belongs to the mode.
			a["oid"] = old.SHA256
			if !lfs {
				if a["oid"], err = blobGitID(r.s.st, old.blob); err != nil {
					return err
				}
			}
		}
		answers = append(answers, a)
	}
	return r.answer(map[string]any{"files": answers})
}

// parseIgnore understands the common part of .gitignore: names, paths, folders and
// wildcards, without negation.
func parseIgnore(text string) func(string) bool {
	var rules []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line[0] != '!' {
			rules = append(rules, line)
		}
	}
	return func(name string) bool {
		for _, rule := range rules {
			anchored := strings.Contains(strings.TrimSuffix(rule, "/"), "/")
			glob := strings.Trim(rule, "/")
			parts := strings.Split(name, "/")
			for i, part := range parts {
				if strings.HasSuffix(rule, "/") && i == len(parts)-1 {
					break // the rule is for folders
				}
				subject := part
				if anchored {
					subject = strings.Join(parts[:i+1], "/")
				}
				if ok, _ := path.Match(glob, subject); ok {
					return true
				}
			}
		}
		return false
	}
}
