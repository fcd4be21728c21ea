package hubserve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// The methods below do from inside the program what clients do over HTTP, and what
// on the Hub is done in its web pages. kind is model, dataset or space.

// Commit writes files to a branch in one commit and returns its id. A repository
// that does not exist is created; a nil content removes the file.
func (s *Server) Commit(kind, id, branch, message string, files map[string][]byte) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rp, err := s.loadRepo(kind, id)
	var f *failure
	if errors.As(err, &f) && f.code == "RepoNotFound" {
		rp, err = s.createRepo(kind, id, false)
	}
	if err != nil {
		return "", fmt.Errorf("committing to %q: %w", id, err)
	}
	if rp.Branches[branch] == "" {
		if err := checkRef(branch); err != nil {
			return "", err
		}
		rp.Branches[branch] = rp.Branches["main"]
	}
	parent, err := s.head(rp, branch)
	if err != nil {
		return "", err
	}
	var ops []operation
	for path, data := range files {
		op := operation{key: "deletedFile", path: path}
		if data != nil {
			op.key = "file"
			if op.blob, err = s.storeSmall(string(data), ""); err != nil {
				return "", err
			}
		}
		ops = append(ops, op)
	}
	next, err := s.apply(rp, parent, header{Summary: message}, ops)
	if err != nil {
		return "", fmt.Errorf("committing to %q: %w", id, err)
	}
	rp.Branches[branch] = next.ID
	return next.ID, s.saveRepo(rp)
}

// Head is the commit that a revision names.
func (s *Server) Head(kind, id, revision string) (string, error) {
	c, err := s.lookup(kind, id, revision)
	if err != nil {
		return "", err
	}
	return c.ID, nil
}

// Files lists a revision's paths, sorted.
func (s *Server) Files(kind, id, revision string) ([]string, error) {
	c, err := s.lookup(kind, id, revision)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, f := range c.Files {
		paths = append(paths, f.Path)
	}
	return paths, nil
}

// Read returns a file's content.
func (s *Server) Read(kind, id, revision, path string) ([]byte, error) {
	c, err := s.lookup(kind, id, revision)
	if err != nil {
		return nil, err
	}
	f, ok := c.find(path)
	if !ok {
		return nil, fmt.Errorf("reading %q of %q: no such file", path, id)
	}
	b, size, err := s.st.openBlob(f.SHA256)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	buf := bytes.NewBuffer(make([]byte, 0, size))
	_, err = io.Copy(buf, b)
	return buf.Bytes(), err
}

func (s *Server) lookup(kind, id, revision string) (*commit, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	rp, err := s.loadRepo(kind, id)
	if err != nil {
		return nil, fmt.Errorf("looking up %q: %w", id, err)
	}
	return s.head(rp, revision)
}

// Access says who may see a repository.
type Access struct {
	Private  bool
	Gated    string // "", auto or manual
	Disabled bool
}

// SetAccess changes who may see a repository.
func (s *Server) SetAccess(kind, id string, a Access) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rp, err := s.loadRepo(kind, id)
	if err != nil {
		return err
	}
	rp.Private, rp.Gated, rp.Disabled = a.Private, a.Gated, a.Disabled
	return s.saveRepo(rp)
}

// Move gives a repository another id; the old one redirects.
func (s *Server) Move(kind, from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.moveRepo(kind, from, to)
}
