package hubserve

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// relocate is the address of a request after its repository has moved.
func relocate(r *http.Request, to string) string {
	parts := strings.Split(r.URL.EscapedPath(), "/")
	// …/owner/name/… : the two parts after the type, or the first two for a model.
	i := 1
	if parts[1] == "api" {
		i = 3
	} else if slices.Contains([]string{"datasets", "spaces"}, parts[1]) {
		i = 2
	}
	suffix := ""
	if strings.HasSuffix(parts[i+1], ".git") {
		suffix = ".git"
	}
	owner, name, _ := strings.Cut(to, "/")
	parts[i], parts[i+1] = owner, name+suffix
	u := url.URL{RawQuery: r.URL.RawQuery}
	return strings.Join(parts, "/") + strings.TrimSuffix("?"+u.RawQuery, "?")
}

// change runs f with the repository's record, alone, and saves the record if f
// succeeds.
func (r *request) change(f func(rp *repo) error) error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	rp, err := r.readable()
	if err != nil {
		return err
	}
	if err := f(rp); err != nil {
		return err
	}
	return r.s.saveRepo(rp)
}

type createRequest struct {
	Name         string `json:"name"`
	Organization string `json:"organization"`
	Type         string `json:"type"`
	Private      bool   `json:"private"`
	Visibility   string `json:"visibility"`
}

// id is the repository that a request to create or delete means.
func (q *createRequest) id(s *Server) (kind, id string, err error) {
	if q.Type == "" {
		q.Type = "model"
	}
	if !slices.Contains([]string{"model", "dataset", "space"}, q.Type) {
		return "", "", fail(http.StatusBadRequest, "", "unknown repository type %q", q.Type)
	}
	id = q.Name
	switch {
	case q.Organization != "":
		id = q.Organization + "/" + q.Name
	case !strings.Contains(id, "/"):
		id = s.user + "/" + q.Name
	}
	return q.Type, id, checkID(id)
}

func (r *request) create() error {
	var q createRequest
	if err := r.decode(&q); err != nil {
		return err
	}
	kind, id, err := q.id(r.s)
	if err != nil {
		return err
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	answer := map[string]string{"url": r.repoURL(kind, id), "name": id, "id": "0"}
	if _, err := r.s.loadRepo(kind, id); err == nil {
		answer["error"] = fmt.Sprintf("You already created this %s repo: %s", kind, id)
		writeJSON(r.w, http.StatusConflict, answer)
		return nil
	}
	if _, err := r.s.createRepo(kind, id, q.Private || q.Visibility == "private"); err != nil {
		return err
	}
	return r.answer(answer)
}

func (r *request) remove() error {
	var q createRequest
	if err := r.decode(&q); err != nil {
		return err
	}
	kind, id, err := q.id(r.s)
	if err != nil {
		return err
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if _, err := r.s.loadRepo(kind, id); err != nil {
		return err
	}
	// The content stays: other repositories may have the same.
	if err := r.s.st.remove(repoKey(kind, id)); err != nil {
		return err
	}
	return r.answer("OK")
}

func (r *request) move() error {
	var q struct {
		From string `json:"fromRepo"`
		To   string `json:"toRepo"`
		Type string `json:"type"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	if q.Type == "" {
		q.Type = "model"
	}
	if err := errors.Join(checkID(q.From), checkID(q.To)); err != nil {
		return err
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if err := r.s.moveRepo(q.Type, q.From, q.To); err != nil {
		return err
	}
	return r.answer("OK")
}

// moveRepo gives a repository another id and remembers the old one.
func (s *Server) moveRepo(kind, from, to string) error {
	rp, err := s.loadRepo(kind, from)
	if err != nil {
		return err
	}
	if _, err := s.loadRepo(kind, to); err == nil {
		return fail(http.StatusConflict, "", "%s exists already", to)
	}
	if err := s.st.rename(repoKey(kind, from), repoKey(kind, to)); err != nil {
		return err
	}
	rp.ID = to
	if err := s.saveRepo(rp); err != nil {
		return err
	}
	moved := s.moved()
	for old, now := range moved {
		if now == from {
			moved[old] = to // one redirect, not a chain
		}
	}
	moved[kind+"s/"+from] = to
	delete(moved, kind+"s/"+to)
	return s.saveJSON("moved.json", moved)
}

func (r *request) settings() error {
	var q struct {
		Private    *bool  `json:"private"`
		Visibility string `json:"visibility"`
		Gated      any    `json:"gated"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	err := r.change(func(rp *repo) error {
		if q.Private != nil {
			rp.Private = *q.Private
		}
		if q.Visibility != "" {
			rp.Private = q.Visibility == "private"
		}
		switch v := q.Gated.(type) {
		case bool:
			rp.Gated = ""
		case string:
			rp.Gated = v
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.answer(map[string]any{"gated": q.Gated})
}

func (r *request) name() string { return strings.Join(r.args, "/") }

func (r *request) createBranch() error {
	var q struct {
		From string `json:"startingPoint"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	if q.From == "" {
		q.From = "main"
	}
	err := r.change(func(rp *repo) error {
		if err := checkRef(r.name()); err != nil {
			return err
		}
		if _, ok := rp.Branches[r.name()]; ok {
			return fail(http.StatusConflict, "", "Reference already exists: %s", r.name())
		}
		c, err := r.s.head(rp, q.From)
		if err == nil {
			rp.Branches[r.name()] = c.ID
		}
		return err
	})
	if err != nil {
		return err
	}
	return r.answer("OK")
}

// changeOnly is for changes whose whole answer is that they happened.
func (r *request) changeOnly(do func(*repo) error) error {
	if err := r.change(do); err != nil {
		return err
	}
	return r.answer("OK")
}

func (r *request) deleteBranch() error {
	return r.changeOnly(func(rp *repo) error {
		if r.name() == "main" {
			return fail(http.StatusForbidden, "", "the main branch cannot be deleted")
		}
		if _, ok := rp.Branches[r.name()]; !ok {
			return fail(http.StatusNotFound, "RevisionNotFound", "Invalid rev id: %s", r.name())
		}
		delete(rp.Branches, r.name())
		return nil
	})
}

// createTag tags the revision in the address with the name in the body.
func (r *request) createTag() error {
	var q struct {
		Tag string `json:"tag"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	return r.changeOnly(func(rp *repo) error {
		if err := checkRef(q.Tag); err != nil {
			return err
		}
		if _, ok := rp.Tags[q.Tag]; ok {
			return fail(http.StatusConflict, "", "Tag reference exists already: %s", q.Tag)
		}
		c, err := r.s.head(rp, r.name())
		if err == nil {
			rp.Tags[q.Tag] = c.ID
		}
		return err
	})
}

func (r *request) deleteTag() error {
	return r.changeOnly(func(rp *repo) error {
		if _, ok := rp.Tags[r.name()]; !ok {
			return fail(http.StatusNotFound, "RevisionNotFound", "Invalid rev id: %s", r.name())
		}
		delete(rp.Tags, r.name())
		return nil
	})
}

// squash replaces a branch's history by one commit with its content.
func (r *request) squash() error {
	var q struct {
		Message string `json:"message"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	return r.changeOnly(func(rp *repo) error {
		c, err := r.s.head(rp, r.name())
		if err != nil {
			return err
		}
		one := &commit{Title: q.Message, Author: r.s.user, Date: r.s.now(), Files: c.Files}
		if err := r.s.saveCommit(rp, one); err != nil {
			return err
		}
		rp.advance(r.name(), one.ID)
		return nil
	})
}

// validateYAML checks what it can of a model card without a YAML parser: that its
// front matter ends.
func (r *request) validateYAML() error {
	var q struct {
		Content string `json:"content"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	text := strings.ReplaceAll(q.Content, "\r\n", "\n")
	problems := []map[string]string{}
	if rest, ok := strings.CutPrefix(text, "---\n"); ok && !strings.HasPrefix(rest, "---") && !strings.Contains(rest, "\n---") {
		problems = append(problems, map[string]string{"message": "the front matter has no closing ---"})
	}
	status := http.StatusOK
	if len(problems) > 0 {
		status = http.StatusBadRequest
	}
	writeJSON(r.w, status, map[string]any{"errors": problems, "warnings": []any{}})
	return nil
}
