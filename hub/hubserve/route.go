package hubserve

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A route is a method and what it needs; handlers are below, in read.go, write.go,
// lfs.go and commit.go.
type route struct {
	handle func(*request) error
	write  bool // needs the right to change something
}

// Routes outside of repositories: the path after /api/.
var apiRoutes = map[string]route{
	"GET whoami-v2":       {(*request).whoami, false},
	"POST repos/create":   {(*request).create, true},
	"DELETE repos/delete": {(*request).remove, true},
	"POST repos/move":     {(*request).move, true},
	"POST validate-yaml":  {(*request).validateYAML, false},
}

// Routes of a repository: the part of the path after its id.
var repoRoutes = map[string]route{
	"GET ":                {(*request).info, false},
	"GET revision":        {(*request).info, false},
	"GET tree":            {(*request).tree, false},
	"POST paths-info":     {(*request).pathsInfo, false},
	"GET refs":            {(*request).refs, false},
	"GET commits":         {(*request).commits, false},
	"GET auth-check":      {(*request).authCheck, false},
	"GET discussions":     {(*request).discussions, false},
	"POST discussions":    {(*request).openPull, true},
	"GET xet-write-token": {(*request).xetToken, true},
	"PUT settings":        {(*request).settings, true},
	"POST branch":         {(*request).createBranch, true},
	"DELETE branch":       {(*request).deleteBranch, true},
	"POST tag":            {(*request).createTag, true},
	"DELETE tag":          {(*request).deleteTag, true},
	"POST preupload":      {(*request).preupload, true},
	"POST commit":         {(*request).commit, true},
	"POST super-squash":   {(*request).squash, true},
}

// route finds the handler. The path is taken apart before it is unescaped, because
// revisions and names may contain escaped slashes.
func (s *Server) route(w http.ResponseWriter, hr *http.Request) error {
	parts := strings.Split(strings.Trim(hr.URL.EscapedPath(), "/"), "/")
	for i, p := range parts {
		u, err := url.PathUnescape(p)
		if err != nil {
			return fail(http.StatusBadRequest, "", "malformed address")
		}
		parts[i] = u
	}
	r := &request{Request: hr, s: s, w: w, query: hr.URL.Query()}
	switch parts[0] {
	case "api":
		return r.api(parts[1:])
	case "lfs":
		return r.transfer(parts[1:])
	case "xet":
		return r.xet(parts[1:])
	case "":
		return r.answer(map[string]string{"service": "Hugging Face Hub compatible server"})
	}
	r.kind = "model"
	if i := slices.Index([]string{"models", "datasets", "spaces"}, parts[0]); i >= 0 {
		r.kind, parts = strings.TrimSuffix(parts[0], "s"), parts[1:]
	}
	r.split(parts, func(word string) bool {
		return word == "resolve" || word == "raw" || word == "info" || word == "commit"
	})
	method := hr.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	switch {
	case method == http.MethodGet && len(r.args) >= 3 && (r.args[0] == "resolve" || r.args[0] == "raw"):
		return r.resolve()
	case method == http.MethodPost && strings.HasSuffix(r.id, ".git") && strings.Join(r.args, "/") == "info/lfs/objects/batch":
		r.id = strings.TrimSuffix(r.id, ".git")
		return r.batch()
	}
	return fail(http.StatusNotFound, "", "no such page")
}

// split finds where the repository's id ends: after one part, if the next is a word
// that belongs to the interface, else after two.
func (r *request) split(parts []string, word func(string) bool) {
	n := min(2, len(parts))
	if len(parts) >= 2 && word(parts[1]) && !(len(parts) >= 3 && word(parts[2])) {
		n = 1
	}
	r.id, r.args = strings.Join(parts[:n], "/"), parts[n:]
}

func (r *request) api(parts []string) error {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if rt, ok := apiRoutes[method+" "+strings.Join(parts, "/")]; ok {
		return r.run(rt)
	}
	if len(parts) == 0 || !slices.Contains([]string{"models", "datasets", "spaces"}, parts[0]) {
		return fail(http.StatusNotFound, "", "no such API")
	}
	r.kind = strings.TrimSuffix(parts[0], "s")
	if len(parts) == 1 {
		return r.search()
	}
	r.split(parts[1:], func(word string) bool {
		return slices.ContainsFunc([]string{"GET ", "POST ", "PUT ", "DELETE "}, func(m string) bool {
			_, ok := repoRoutes[m+word]
			return ok && word != ""
		})
	})
	action := ""
	if len(r.args) > 0 {
		action, r.args = r.args[0], r.args[1:]
	}
	rt, ok := repoRoutes[method+" "+action]
	if !ok {
		return fail(http.StatusNotFound, "", "no such API")
	}
	return r.run(rt)
}

// run checks the right to write, then handles the request.
func (r *request) run(rt route) error {
	if rt.write {
		if err := r.authorise(); err != nil {
			return err
		}
		if r.s.readOnly {
			return fail(http.StatusForbidden, "", "this Hub is read-only")
		}
	}
	return rt.handle(r)
}
