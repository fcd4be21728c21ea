package hubserve

import (
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
)

type header struct {
	Summary      string `json:"summary"`
	Description  string `json:"description"`
	ParentCommit string `json:"parentCommit"`
}

// operation is one line of a commit after its header.
type operation struct {
	key  string
	path string
	blob blob
}

// commit reads the operations, whose content is stored at once, and then applies
// them to the branch.
func (r *request) commit() error {
	r.s.mu.RLock()
	_, err := r.readable()
	r.s.mu.RUnlock()
	if err != nil {
		return err
	}
	head, ops, err := r.s.readCommit(r.Body)
	if err != nil {
		return err
	}
	branch, createPR := r.revision(), isTrue(r.query.Get("create_pr"))
	var id string
	var number int
	err = r.change(func(rp *repo) error {
		parent, err := r.s.head(rp, branch)
		if err != nil {
			return err
		}
		if _, isBranch := rp.Branches[strings.TrimPrefix(branch, "refs/heads/")]; !isBranch && rp.pullOf(branch) == nil {
			return fail(http.StatusBadRequest, "", "%q is not a branch", branch)
		}
		if head.ParentCommit != "" && !strings.HasPrefix(parent.ID, head.ParentCommit) {
			return fail(http.StatusPreconditionFailed, "", "A commit has happened since. Please refresh and try again.")
		}
		next, err := r.s.apply(rp, parent, head, ops)
		if err != nil {
			return err
		}
		id = next.ID
		if createPR {
			number = rp.openPull(pull{Title: head.Summary, Description: head.Description, Base: branch, Head: id, Created: r.s.now()})
			return nil
		}
		rp.advance(branch, id)
		return nil
	})
	if err != nil {
		return err
	}
	page := r.repoURL(r.kind, r.id)
	answer := map[string]any{"success": true, "commitUrl": page + "/commit/" + id, "commitOid": id, "hookOutput": ""}
	if createPR {
		answer["pullRequestUrl"] = page + "/discussions/" + strconv.Itoa(number)
	}
	return r.answer(answer)
}

// apply makes the commit that the operations lead to. If they change nothing, that
// is the parent.
func (s *Server) apply(rp *repo, parent *commit, h header, ops []operation) (*commit, error) {
	tree := map[string]file{}
	for _, f := range parent.Files {
		tree[f.Path] = f
	}
	for _, op := range ops {
		switch op.key {
		case "file", "lfsFile":
			tree[op.path] = file{Path: op.path, LFS: op.key == "lfsFile" || op.blob.Size > s.regular, blob: op.blob}
		case "deletedFile":
			if _, ok := tree[op.path]; !ok {
				return nil, &failure{http.StatusNotFound, "EntryNotFound", "A file with this name doesn't exist: " + op.path, parent.ID}
			}
			delete(tree, op.path)
		case "deletedFolder":
			before := len(tree)
			maps.DeleteFunc(tree, func(p string, _ file) bool { return strings.HasPrefix(p, op.path+"/") })
			if len(tree) == before {
				return nil, &failure{http.StatusNotFound, "EntryNotFound", "A folder with this name doesn't exist: " + op.path, parent.ID}
			}
		}
	}
	for p := range tree {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if _, ok := tree[dir]; ok {
				return nil, fail(http.StatusBadRequest, "", "%q cannot be a file and a folder", dir)
			}
		}
	}
	files := sortedFiles(tree)
	if slices.EqualFunc(files, parent.Files, func(a, b file) bool { return a.Path == b.Path && a.SHA256 == b.SHA256 && a.LFS == b.LFS }) {
		return parent, nil
	}
	next := &commit{Parent: parent.ID, Title: h.Summary, Description: h.Description, Author: s.user, Date: s.now(), Files: files}
	return next, s.saveCommit(rp, next)
}

// checkPath refuses names that no client could put on a disk.
func checkPath(p string) error {
	parts := strings.Split(p, "/")
	for _, part := range parts {
		if part == "" || part == "." || part == ".." || part == ".git" || strings.ContainsAny(part, "\x00\\") {
			return fail(http.StatusBadRequest, "", "invalid path in commit: %q", p)
		}
	}
	return nil
}
