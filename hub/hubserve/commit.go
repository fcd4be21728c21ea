package hubserve

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
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

// readCommit reads a commit's lines. Content goes to the storage as it comes, so a
// line may be of any length.
func (s *Server) readCommit(body io.Reader) (header, []operation, error) {
	var h header
	var ops []operation
	in := bufio.NewReaderSize(body, 64<<10)
	for n := 0; ; n++ {
		if _, err := in.Peek(1); errors.Is(err, io.EOF) {
			if n == 0 {
				return h, nil, fail(http.StatusBadRequest, "", "the commit is empty")
			}
			return h, ops, nil
		}
		line, content, err := s.readLine(in)
		if err != nil {
			return h, nil, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var l struct {
			Key   string `json:"key"`
			Value struct {
				header
				Path     string `json:"path"`
				Encoding string `json:"encoding"`
				OID      string `json:"oid"`
				Size     *int64 `json:"size"`
				Content  string `json:"content"`
			} `json:"value"`
		}
		if err := json.Unmarshal(line, &l); err != nil {
			return h, nil, fail(http.StatusBadRequest, "", "line %d of the commit is malformed: %v", n+1, err)
		}
		op := operation{key: l.Key, path: strings.TrimSuffix(l.Value.Path, "/")}
		if l.Key == "header" {
			h = l.Value.header
			continue
		}
		if err := checkPath(op.path); err != nil {
			return h, nil, err
		}
		switch l.Key {
		case "file":
			if content == nil {
				b, err := s.storeSmall(l.Value.Content, l.Value.Encoding)
				if err != nil {
					return h, nil, err
				}
				content = &b
			}
			op.blob = *content
		case "lfsFile":
			size, ok := s.blobSize(l.Value.OID)
			if !ok || l.Value.Size != nil && *l.Value.Size != size {
				return h, nil, fail(http.StatusBadRequest, "", "the LFS object of %q has not been uploaded: %s", op.path, l.Value.OID)
			}
			op.blob = blob{SHA256: l.Value.OID, Size: size}
		case "deletedFile", "deletedFolder":
		default:
			return h, nil, fail(http.StatusBadRequest, "", "unknown operation %q in the commit", l.Key)
		}
		ops = append(ops, op)
	}
}

func (s *Server) storeSmall(content, encoding string) (blob, error) {
	data := []byte(content)
	if encoding == "base64" {
		var err error
		if data, err = base64.StdEncoding.DecodeString(content); err != nil {
			return blob{}, fail(http.StatusBadRequest, "", "malformed base64 content")
		}
	}
	b, err := store(s.st, bytes.NewReader(data), "")
	if err == nil {
		b.Git, err = gitID(b.Size, bytes.NewReader(data))
	}
	return b, err
}

var contentKey = []byte(`"content":`)

// readLine reads one line. If it has base64 content, that is stored, and left out
// of the line that is returned.
func (s *Server) readLine(in *bufio.Reader) ([]byte, *blob, error) {
	// Peek gives less at the end of the body; that is not an error yet.
	start, _ := in.Peek(in.Size())
	if i := bytes.IndexByte(start, '\n'); i >= 0 {
		line := bytes.Clone(start[:i])
		in.Discard(i + 1)
		return line, nil, nil // short enough to be decoded as a whole
	}
	at := bytes.Index(start, contentKey)
	if at < 0 {
		if len(start) < in.Size() { // the last line, without its newline
			line := bytes.Clone(start)
			in.Discard(len(start))
			return line, nil, nil
		}
		return nil, nil, fail(http.StatusRequestEntityTooLarge, "", "a line of the commit is too long")
	}
	quote := bytes.IndexByte(start[at+len(contentKey):], '"')
	if quote < 0 {
		return nil, nil, fail(http.StatusBadRequest, "", "malformed content in the commit")
	}
	end := at + len(contentKey) + quote + 1
	line := bytes.Clone(start[:end])
	in.Discard(end)

	text := &untilQuote{in: in}
	b, err := store(s.st, base64.NewDecoder(base64.StdEncoding, text), "")
	if err != nil {
		return nil, nil, fail(http.StatusBadRequest, "", "reading content in the commit: %v", err)
	}
	if !text.done {
		return nil, nil, fail(http.StatusBadRequest, "", "content in the commit does not end")
	}
	if b.Git, err = blobGitID(s.st, b); err != nil {
		return nil, nil, err
	}
	rest, err := in.ReadSlice('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("reading the commit: %w", err)
	}
	return append(append(line, '"'), rest...), &b, nil
}

// untilQuote reads up to a JSON string's closing quote and consumes that. Base64
// has no escapes, so the first quote is it.
type untilQuote struct {
	in   *bufio.Reader
	done bool
}

func (u *untilQuote) Read(p []byte) (int, error) {
	if u.done {
		return 0, io.EOF
	}
	if _, err := u.in.Peek(1); err != nil {
		return 0, io.ErrUnexpectedEOF
	}
	chunk, _ := u.in.Peek(min(u.in.Buffered(), len(p)))
	if i := bytes.IndexByte(chunk, '"'); i >= 0 {
		n := copy(p, chunk[:i])
		u.in.Discard(i + 1)
		u.done = true
		return n, nil
	}
	n := copy(p, chunk)
	u.in.Discard(n)
	return n, nil
}
