package hubserve

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// revision is the first argument of a repository's route, main if there is none.
func (r *request) revision() string {
	if len(r.args) == 0 || r.args[0] == "" {
		return "main"
	}
	return r.args[0]
}

// at loads the repository and the commit that the request names.
func (r *request) at(load func() (*repo, error)) (*repo, *commit, error) {
	r.s.mu.RLock()
	defer r.s.mu.RUnlock()
	rp, err := load()
	if err != nil {
		return nil, nil, err
	}
	c, err := r.s.head(rp, r.revision())
	return rp, c, err
}

func (r *request) info() error {
	rp, c, err := r.at(r.readable)
	if err != nil {
		return err
	}
	r.w.Header().Set("X-Repo-Commit", c.ID)
	return r.answer(r.describe(rp, c))
}

// describe is the answer to a question about a repository.
func (r *request) describe(rp *repo, c *commit) map[string]any {
	siblings := []map[string]any{}
	for _, f := range c.Files {
		one := map[string]any{"rfilename": f.Path}
		if r.query.Get("blobs") == "true" {
			one["size"], one["blobId"] = f.Size, f.oid()
			if f.LFS {
				one["lfs"] = lfsInfo(f)
			}
		}
		siblings = append(siblings, one)
	}
	var gated any = false
	if rp.Gated != "" {
		gated = rp.Gated
	}
	author, _, _ := strings.Cut(rp.ID, "/")
	return map[string]any{
		"_id": "0", "id": rp.ID, "modelId": rp.ID, "author": author, "sha": c.ID,
		"private": rp.Private, "gated": gated, "disabled": rp.Disabled, "tags": []string{},
		"downloads": 0, "likes": 0, "createdAt": rp.Created, "lastModified": c.Date, "siblings": siblings,
	}
}

// search lists the repositories of a kind.
func (r *request) search() error {
	r.s.mu.RLock()
	defer r.s.mu.RUnlock()
	keys, err := r.s.st.keys("repos/" + r.kind + "s")
	if err != nil {
		return err
	}
	found := []map[string]any{}
	for _, key := range keys {
		id, ok := strings.CutSuffix(strings.TrimPrefix(key, "repos/"+r.kind+"s/"), "/repo.json")
		if author := r.query.Get("author"); !ok || author != "" && !strings.HasPrefix(id, author+"/") ||
			!strings.Contains(strings.ToLower(id), strings.ToLower(r.query.Get("search"))) {
			continue
		}
		r.id = id
		rp, err := r.readable()
		if err != nil {
			continue // hidden from this client
		}
		c, err := r.s.head(rp, "main")
		if err != nil {
			return err
		}
		one := r.describe(rp, c)
		delete(one, "siblings")
		found = append(found, one)
	}
	return r.answer(found)
}

func lfsInfo(f file) map[string]any {
	return map[string]any{"oid": f.SHA256, "size": f.Size, "pointerSize": len(f.pointer())}
}

// entry is a file's line in a listing. expand adds what the Hub knows about the
// last change, for which we give the commit that was asked for.
func entry(f file, c *commit, expand bool) map[string]any {
	e := map[string]any{"type": "file", "oid": f.oid(), "size": f.Size, "path": f.Path}
	if f.LFS {
		e["lfs"] = lfsInfo(f)
	}
	if expand {
		e["lastCommit"] = map[string]any{"id": c.ID, "title": c.Title, "date": c.Date}
	}
	return e
}

// listing is everything below a folder: files, and the folders that follow from
// them.
func listing(c *commit, folder string, recursive, expand bool) (entries []map[string]any, ok bool) {
	prefix := ""
	if folder != "" {
		prefix = folder + "/"
	}
	seen := map[string]bool{}
	entries = []map[string]any{}
	for _, f := range c.Files {
		rest, below := strings.CutPrefix(f.Path, prefix)
		if !below {
			continue
		}
		ok = true
		parts := strings.Split(rest, "/")
		for i := 1; i < len(parts); i++ {
			dir := prefix + strings.Join(parts[:i], "/")
			if (recursive || i == 1) && !seen[dir] {
				seen[dir] = true
				e := map[string]any{"type": "directory", "oid": folderID(dir), "size": 0, "path": dir}
				if expand {
					e["lastCommit"] = map[string]any{"id": c.ID, "title": c.Title, "date": c.Date}
				}
				entries = append(entries, e)
			}
		}
		if recursive || len(parts) == 1 {
			entries = append(entries, entry(f, c, expand))
		}
	}
	return entries, ok || folder == ""
}

// folderID stands in for git's tree ids, which nothing here computes.
func folderID(path string) string {
	id, _ := gitID(int64(len(path)), strings.NewReader(path))
	return id
}

func (r *request) tree() error {
	_, c, err := r.at(r.readable)
	if err != nil {
		return err
	}
	// The folder comes as one escaped part or as several.
	folder := ""
	if len(r.args) > 1 {
		folder = strings.Trim(strings.Join(r.args[1:], "/"), "/")
	}
	expand := isTrue(r.query.Get("expand"))
	entries, ok := listing(c, folder, isTrue(r.query.Get("recursive")), expand)
	if !ok {
		return &failure{http.StatusNotFound, "EntryNotFound", folder + " does not exist on \"" + r.revision() + "\"", c.ID}
	}
	r.w.Header().Set("X-Repo-Commit", c.ID)
	return r.page(entries)
}

func isTrue(s string) bool { return strings.EqualFold(s, "true") || s == "1" }

// page answers with the part of a listing that the cursor names, and links to the
// next.
func (r *request) page(entries []map[string]any) error {
	size := r.s.pageSize
	if n, err := strconv.Atoi(r.query.Get("limit")); err == nil && n > 0 {
		size = min(size, n)
	}
	from, _ := strconv.Atoi(r.query.Get("cursor"))
	from = max(0, min(from, len(entries)))
	to := min(from+size, len(entries))
	if to < len(entries) {
		q := url.Values{}
		for k, v := range r.query {
			q[k] = v
		}
		q.Set("cursor", strconv.Itoa(to))
		r.w.Header().Set("Link", fmt.Sprintf("<%s%s?%s>; rel=\"next\"", r.base(), r.URL.EscapedPath(), q.Encode()))
	}
	return r.answer(entries[from:to])
}

func (r *request) pathsInfo() error {
	_, c, err := r.at(r.readable)
	if err != nil {
		return err
	}
	var q struct {
		Paths  []string `json:"paths"`
		Expand bool     `json:"expand"`
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		err = r.decode(&q)
	} else if err = r.ParseForm(); err == nil {
		q.Paths, q.Expand = r.PostForm["paths"], isTrue(r.PostForm.Get("expand"))
	}
	if err != nil {
		return err
	}
	found := []map[string]any{}
	for _, p := range q.Paths {
		p = strings.Trim(p, "/")
		if f, ok := c.find(p); ok {
			found = append(found, entry(f, c, q.Expand))
		} else if _, ok := listing(c, p, false, false); ok && p != "" {
			found = append(found, map[string]any{"type": "directory", "oid": folderID(p), "size": 0, "path": p})
		}
	}
	return r.answer(found)
}

func (r *request) refs() error {
	r.s.mu.RLock()
	defer r.s.mu.RUnlock()
	rp, err := r.readable()
	if err != nil {
		return err
	}
	list := func(kind string, refs map[string]string) []map[string]string {
		out := []map[string]string{}
		for name, id := range refs {
			out = append(out, map[string]string{"name": name, "ref": kind + name, "targetCommit": id})
		}
		slices.SortFunc(out, func(a, b map[string]string) int { return strings.Compare(a["name"], b["name"]) })
		return out
	}
	answer := map[string]any{"branches": list("refs/heads/", rp.Branches), "tags": list("refs/tags/", rp.Tags), "converts": []any{}}
	if isTrue(r.query.Get("include_prs")) {
		pulls := []map[string]string{}
		for i, p := range rp.Pulls {
			name := "refs/pr/" + strconv.Itoa(i+1)
			pulls = append(pulls, map[string]string{"name": strconv.Itoa(i + 1), "ref": name, "targetCommit": p.Head})
		}
		answer["pullRequests"] = pulls
	}
	return r.answer(answer)
}

func (r *request) commits() error {
	rp, c, err := r.at(r.readable)
	if err != nil {
		return err
	}
	entries := []map[string]any{}
	for c != nil {
		entries = append(entries, map[string]any{
			"id": c.ID, "title": c.Title, "message": c.Description, "date": c.Date,
			"authors": []map[string]string{{"user": c.Author}},
		})
		if c.Parent == "" {
			break
		}
		if c, err = r.s.loadCommit(rp, c.Parent); err != nil {
			return err
		}
	}
	return r.page(entries)
}

// resolve serves a file's content, or the address of it.
func (r *request) resolve() error {
	raw := r.args[0] == "raw"
	r.args = r.args[1:]
	path := strings.Join(r.args[1:], "/")
	_, c, err := r.at(r.contents)
	if err != nil {
		return err
	}
	h := r.w.Header()
	h.Set("X-Repo-Commit", c.ID)
	f, ok := c.find(path)
	if !ok {
		return &failure{http.StatusNotFound, "EntryNotFound", "Entry not found", c.ID}
	}
	h.Set("ETag", `"`+f.etag()+`"`)
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Disposition", "inline; filename*=UTF-8''"+url.PathEscape(path[strings.LastIndex(path, "/")+1:]))
	h.Set("Content-Type", "application/octet-stream")
	if f.LFS {
		if raw {
			h.Set("ETag", `"`+f.oid()+`"`)
			http.ServeContent(r.w, r.Request, "", time.Time{}, strings.NewReader(f.pointer()))
			return nil
		}
		h.Set("X-Linked-Etag", `"`+f.SHA256+`"`)
		h.Set("X-Linked-Size", strconv.FormatInt(f.Size, 10))
		if r.s.blobHost != "" {
			h.Set("Location", r.s.blobHost+r.s.signed(http.MethodGet, f.SHA256, time.Hour))
			r.w.WriteHeader(http.StatusFound)
			return nil
		}
	}
	return r.content(f.SHA256)
}

// content serves a blob; ServeContent knows ranges and conditions.
func (r *request) content(sha string) error {
	b, _, err := r.s.st.openBlob(sha)
	if err != nil {
		return fmt.Errorf("opening content %s: %w", sha, err)
	}
	defer b.Close()
	http.ServeContent(r.w, r.Request, "", time.Time{}, b)
	return nil
}
