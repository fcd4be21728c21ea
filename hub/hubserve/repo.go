package hubserve

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// repo is the record of one repository: everything but its commits.
type repo struct {
	Type     string            `json:"type"` // model, dataset or space
	ID       string            `json:"id"`
	Private  bool              `json:"private"`
	Gated    string            `json:"gated,omitempty"` // "", auto or manual
	Disabled bool              `json:"disabled,omitempty"`
	Created  time.Time         `json:"created"`
	Branches map[string]string `json:"branches"` // name → commit
	Tags     map[string]string `json:"tags"`
	Pulls    []pull            `json:"pulls,omitempty"` // number 1 is the first
}

// pull is a pull request; its commits are on refs/pr/<number>.
type pull struct {
	Title       string    `json:"title"`
	Description string    `json:"description"`
	Status      string    `json:"status"` // open or merged
	Base        string    `json:"base"`   // the branch it is for
	Head        string    `json:"head"`
	Created     time.Time `json:"created"`
}

// commit is one state of a repository. Its id is the hash of its record.
type commit struct {
	ID          string    `json:"-"`
	Parent      string    `json:"parent,omitempty"`
	Title       string    `json:"title"`
	Description string    `json:"description"`
	Author      string    `json:"author"`
	Date        time.Time `json:"date"`
	Files       []file    `json:"files"` // sorted by path
}

// file is one path of a commit.
type file struct {
	Path string `json:"path"`
	LFS  bool   `json:"lfs"`
	blob
}

// pointer is what git holds in place of an LFS file.
func (f file) pointer() string {
	return fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", f.SHA256, f.Size)
}

// oid is what git calls the file: the pointer's id if the content is in LFS.
func (f file) oid() string {
	if !f.LFS {
		return f.Git
	}
	id, _ := gitID(int64(len(f.pointer())), strings.NewReader(f.pointer()))
	return id
}

// etag is what identifies the content to a client.
func (f file) etag() string {
	if f.LFS {
		return f.SHA256
	}
	return f.Git
}

func (c *commit) find(path string) (file, bool) {
	i, ok := slices.BinarySearchFunc(c.Files, path, func(f file, p string) int { return strings.Compare(f.Path, p) })
	if !ok {
		return file{}, false
	}
	return c.Files[i], true
}

var (
	idPart  = regexp.MustCompile(`^[0-9A-Za-z_][0-9A-Za-z_.-]{0,95}$`)
	fullSHA = regexp.MustCompile(`^[0-9a-f]{40}$`)
	anySHA  = regexp.MustCompile(`^[0-9a-f]{7,40}$`)
	refName = regexp.MustCompile(`^[0-9A-Za-z_][0-9A-Za-z_./-]{0,200}$`)
)

func checkID(id string) error {
	parts := strings.Split(id, "/")
	for _, p := range parts {
		if len(parts) > 2 || !idPart.MatchString(p) || strings.Contains(p, "--") || strings.Contains(p, "..") ||
			strings.HasSuffix(p, ".git") || strings.HasSuffix(p, ".") || strings.HasSuffix(p, "-") {
			return fail(400, "", "%q is not a repository name", id)
		}
	}
	return nil
}

func checkRef(name string) error {
	if !refName.MatchString(name) || strings.Contains(name, "..") || strings.Contains(name, "//") || strings.HasSuffix(name, "/") {
		return fail(400, "", "%q is not a branch or tag name", name)
	}
	return nil
}

func repoKey(kind, id string) string { return "repos/" + kind + "s/" + id }

// loadRepo reads a repository's record. A name that has moved gives the new one.
func (s *Server) loadRepo(kind, id string) (*repo, error) {
	if checkID(id) != nil { // before it becomes a path
		return nil, fail(404, "RepoNotFound", "Repository not found")
	}
	data, err := s.st.load(repoKey(kind, id) + "/repo.json")
	if errors.Is(err, fs.ErrNotExist) {
		if to, ok := s.moved()[kind+"s/"+id]; ok {
			return nil, &movedError{to}
		}
		return nil, fail(404, "RepoNotFound", "Repository not found")
	}
	if err != nil {
		return nil, err
	}
	r := &repo{}
	return r, json.Unmarshal(data, r)
}

func (s *Server) saveRepo(r *repo) error { return s.saveJSON(repoKey(r.Type, r.ID)+"/repo.json", r) }

func (s *Server) saveJSON(key string, v any) error {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return s.st.save(key, data)
}

// movedError says that a repository has another id now.
type movedError struct{ to string }

func (e *movedError) Error() string { return "repository has moved to " + e.to }

func (s *Server) moved() map[string]string {
	m := map[string]string{}
	if data, err := s.st.load("moved.json"); err == nil {
		_ = json.Unmarshal(data, &m) // a broken record redirects nothing
	}
	return m
}

func (s *Server) saveCommit(r *repo, c *commit) error {
	data, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	sum := sha1.Sum(data)
	c.ID = hex.EncodeToString(sum[:])
	return s.st.save(repoKey(r.Type, r.ID)+"/commits/"+c.ID+".json", data)
}

func (s *Server) loadCommit(r *repo, id string) (*commit, error) {
	data, err := s.st.load(repoKey(r.Type, r.ID) + "/commits/" + id + ".json")
	if err != nil {
		return nil, err
	}
	c := &commit{ID: id}
	return c, json.Unmarshal(data, c)
}

// head finds what a revision names: a branch, a tag, a pull request or a commit.
func (s *Server) head(r *repo, revision string) (*commit, error) {
	name := strings.TrimPrefix(strings.TrimPrefix(revision, "refs/heads/"), "refs/tags/")
	id := r.Branches[name]
	if id == "" {
		id = r.Tags[name]
	}
	if p := r.pullOf(revision); id == "" && p != nil {
		id = p.Head
	}
	if id == "" && fullSHA.MatchString(revision) {
		id = revision
	}
	if id == "" && anySHA.MatchString(revision) {
		prefix := repoKey(r.Type, r.ID) + "/commits"
		keys, err := s.st.keys(prefix)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			if strings.HasPrefix(key, prefix+"/"+revision) {
				id = strings.TrimSuffix(key[len(prefix)+1:], ".json")
			}
		}
	}
	c, err := s.loadCommit(r, id)
	if id == "" || errors.Is(err, fs.ErrNotExist) {
		return nil, fail(404, "RevisionNotFound", "Invalid rev id: %s", revision)
	}
	return c, err
}

// pullOf is the pull request that a revision such as refs/pr/1 names.
func (r *repo) pullOf(revision string) *pull {
	var n int
	if _, err := fmt.Sscanf(revision, "refs/pr/%d", &n); err != nil || n < 1 || n > len(r.Pulls) {
		return nil
	}
	return &r.Pulls[n-1]
}

// advance makes a revision name another commit.
func (r *repo) advance(revision, commit string) {
	if p := r.pullOf(revision); p != nil {
		p.Head = commit
		return
	}
	r.Branches[strings.TrimPrefix(revision, "refs/heads/")] = commit
}

// createRepo makes a repository with an empty first commit on main.
func (s *Server) createRepo(kind, id string, private bool) (*repo, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	r := &repo{Type: kind, ID: id, Private: private, Created: s.now(), Branches: map[string]string{}, Tags: map[string]string{}}
	c := &commit{Title: "initial commit", Author: s.user, Date: s.now(), Files: []file{}}
	if err := s.saveCommit(r, c); err != nil {
		return nil, err
	}
	r.Branches["main"] = c.ID
	return r, s.saveRepo(r)
}

// sortedFiles is the content of a tree under construction.
func sortedFiles(tree map[string]file) []file {
	files := make([]file, 0, len(tree))
	for _, path := range slices.Sorted(maps.Keys(tree)) {
		files = append(files, tree[path])
	}
	return files
}
