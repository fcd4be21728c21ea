package hubserve_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hubtool/hubtool/hub/hubserve"
)

const id = "ada/vit"

func newServer(t *testing.T, dir string, opts ...hubserve.Option) *hubserve.Server {
	t.Helper()
	s, err := hubserve.New(dir, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends one request and returns the answer's status, headers and body.
func ask(s http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func seed(t *testing.T, s *hubserve.Server) string {
	t.Helper()
	head, err := s.Commit("model", id, "main", "first", map[string][]byte{"a": []byte("A"), "d/b": []byte("B")})
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func TestKeepsEverythingOnDisk(t *testing.T) {
	dir := t.TempDir()
	s := newServer(t, dir)
	first := seed(t, s)
	ask(s, "POST", "/api/models/"+id+"/branch/dev", "{}")
	ask(s, "POST", "/api/models/"+id+"/tag/main", `{"tag":"v1"}`)
	ask(s, "POST", "/api/models/"+id+"/commit/main?create_pr=1", `{"key":"header","value":{"summary":"pr"}}`+"\n"+line("new", "N"))
	s.Commit("model", id, "main", "second", map[string][]byte{"a": nil})
	s.Commit("dataset", id, "main", "other", map[string][]byte{"x": []byte("X")})
	s.Move("dataset", id, "ada/moved")
	os.WriteFile(filepath.Join(dir, "incoming", "blob-123"), []byte("half"), 0o666) // as a crash leaves it

	if _, err := hubserve.New(dir); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second server got the directory: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := newServer(t, dir)
	for _, tt := range []struct{ kind, id, revision, path, want string }{
		{"model", id, first, "a", "A"},
		{"model", id, "main", "d/b", "B"},
		{"model", id, "dev", "a", "A"},
		{"model", id, "v1", "a", "A"},
		{"model", id, "refs/pr/1", "new", "N"},
		{"model", id, first[:8], "a", "A"},
		{"dataset", "ada/moved", "main", "x", "X"},
	} {
		if got, err := again.Read(tt.kind, tt.id, tt.revision, tt.path); err != nil || string(got) != tt.want {
			t.Errorf("%s at %s: %q, %v; want %q", tt.path, tt.revision, got, err, tt.want)
		}
	}
	if _, err := again.Read("model", id, "main", "a"); err == nil {
		t.Error("a file that was deleted is there")
	}
	if w := ask(again, "GET", "/api/datasets/"+id, ""); w.Code != 307 || w.Header().Get("Location") != "/api/datasets/ada/moved" {
		t.Errorf("moved repository: %d to %q", w.Code, w.Header().Get("Location"))
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "incoming")); len(left) > 0 {
		t.Errorf("incoming has %v", left)
	}
}

// Content that no commit has goes after a day; until then a client may be about to commit it.
func TestRemovesUnusedContent(t *testing.T) {
	dir := t.TempDir()
	s := newServer(t, dir)
	seed(t, s)
	first, _ := s.Head("model", id, "main")
	s.Commit("model", id, "main", "second", map[string][]byte{"a": []byte("newer"), "d/b": nil})
	s.Commit("model", "ada/deleted", "main", "first", map[string][]byte{"x": []byte("of a deleted repository")})
	ask(s, "DELETE", "/api/repos/delete", `{"name":"deleted","organization":"ada","type":"model"}`)
	blobs := func() []string {
		found, _ := filepath.Glob(filepath.Join(dir, "blobs", "*", "*"))
		return found
	}
	reopen := func() {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = newServer(t, dir)
	}
	before := len(blobs())
	reopen()
	if got := len(blobs()); got != before {
		t.Errorf("%d of %d blobs are left although they are new", got, before)
	}
	for _, path := range blobs() {
		old := time.Now().Add(-25 * time.Hour)
		os.Chtimes(path, old, old)
	}
	reopen()
	if got := len(blobs()); got != before-1 {
		t.Errorf("%d of %d blobs are left; want one less", got, before)
	}
	if got, err := s.Read("model", id, first, "d/b"); err != nil || string(got) != "B" {
		t.Errorf("content of an old commit: %q, %v", got, err)
	}
}

func TestPrivateRepositories(t *testing.T) {
	const token = "secret"
	s, err := hubserve.New("", hubserve.WithToken(token), hubserve.WithRegularLimit(3))
	if err != nil {
		t.Fatal(err)
	}
	s.Commit("model", id, "main", "first", map[string][]byte{"a": []byte("A"), "large": []byte("large")})
	if err := s.SetAccess("model", id, hubserve.Access{Private: true}); err != nil {
		t.Fatal(err)
	}
	addresses := []string{"GET /api/models/" + id, "GET /api/models/" + id + "/revision/main", "GET /api/models/" + id + "/tree/main", "GET /api/models/" + id + "/refs",
		"GET /api/models/" + id + "/commits/main", "GET /api/models/" + id + "/discussions", "POST /api/models/" + id + "/paths-info/main", "GET /" + id + "/resolve/main/a",
		"HEAD /" + id + "/resolve/main/large", "GET /" + id + "/raw/main/a", "GET /api/models/ada/missing"}
	for _, address := range addresses {
		method, path, _ := strings.Cut(address, " ")
		for _, tt := range []struct {
			sent string
			want int
			code string
		}{{"", 401, "RepoNotFound"}, {"wrong", 401, ""}, {token, 200, ""}} {
			r := httptest.NewRequest(method, path, nil)
			if tt.sent != "" {
				r.Header.Set("Authorization", "Bearer "+tt.sent)
			}
			if tt.sent == token && strings.HasSuffix(path, "missing") {
				tt.want, tt.code = 404, "RepoNotFound"
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != tt.want || w.Header().Get("X-Error-Code") != tt.code {
				t.Errorf("%s with token %q: %d %q; want %d %q", address, tt.sent, w.Code, w.Header().Get("X-Error-Code"), tt.want, tt.code)
			}
		}
	}
	if w := ask(s, "GET", "/api/models", ""); strings.Contains(w.Body.String(), id) {
		t.Errorf("the search shows it: %s", w.Body)
	}
}

func line(path, content string) string {
	text, _ := json.Marshal(map[string]any{"key": "file", "value": map[string]string{
		"content": base64.StdEncoding.EncodeToString([]byte(content)), "path": path, "encoding": "base64"}})
	return string(text) + "\n"
}

func TestCommit(t *testing.T) {
	const header = `{"key":"header","value":{"summary":"s","description":""}}` + "\n"
	long := strings.Repeat("0123456789", 50_000)
	encoded := base64.StdEncoding.EncodeToString([]byte(long))
	tests := []struct {
		name, body string
		status     int
		files      []string
	}{
		{"add", header + line("n", "N"), 200, []string{"a", "d/b", "n"}},
		{"add, last line without a newline", header + strings.TrimSuffix(line("n", "N"), "\n"), 200, []string{"a", "d/b", "n"}},
		{"long content, then the path", header + line("n", long), 200, []string{"a", "d/b", "n"}},
		{"long content after the path", header + `{"key":"file","value":{"path":"n","encoding":"base64","content":"` + encoded + `"}}` + "\n" + line("o", "O"), 200, []string{"a", "d/b", "n", "o"}},
		{"spaces in the JSON", header + `{"key": "file", "value": {"content": "` + encoded + `", "path": "n"}}` + "\n", 200, []string{"a", "d/b", "n"}},
		{"delete a file", header + `{"key":"deletedFile","value":{"path":"a"}}`, 200, []string{"d/b"}},
		{"delete a folder", header + `{"key":"deletedFolder","value":{"path":"d/"}}`, 200, []string{"a"}},
		{"replace a file by a folder", header + `{"key":"deletedFile","value":{"path":"a"}}` + "\n" + line("a/x", "X"), 200, []string{"a/x", "d/b"}},
		{"nothing", "", 400, nil},
		{"no JSON", header + "{{{\n", 400, nil},
		{"long content that does not end", header + `{"key":"file","value":{"path":"n","content":"` + encoded, 400, nil},
		{"long content that is not base64", header + `{"key":"file","value":{"path":"n","content":"` + strings.Repeat("*", 100_000) + `"}}`, 400, nil},
		{"long line without content", header + `{"key":"` + strings.Repeat("x", 100_000) + `"}`, 413, nil},
		{"delete what is not there", header + `{"key":"deletedFile","value":{"path":"nope"}}`, 404, nil},
		{"file and folder of one name", header + line("a/x", "X"), 400, nil},
		{"path that leads out", header + line("../x", "X"), 400, nil},
		{"path into .git", header + line("d/.git/x", "X"), 400, nil},
		{"LFS content by a path", header + `{"key":"lfsFile","value":{"path":"n","oid":"` + strings.Repeat("../", 20) + `repo"}}`, 400, nil},
		{"LFS content that was not uploaded", header + `{"key":"lfsFile","value":{"path":"n","algo":"sha256","oid":"` + strings.Repeat("a", 64) + `","size":1}}`, 400, nil},
		{"unknown operation", header + `{"key":"explode","value":{"path":"n"}}`, 400, nil},
		{"behind the head", `{"key":"header","value":{"summary":"s","parentCommit":"0123456"}}` + "\n" + line("n", "N"), 412, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, t.TempDir())
			before := seed(t, s)
			w := ask(s, "POST", "/api/models/"+id+"/commit/main", tt.body)
			if w.Code != tt.status {
				t.Fatalf("status %d, %s; want %d", w.Code, w.Body, tt.status)
			}
			if after, _ := s.Head("model", id, "main"); (after == before) != (tt.status != 200) {
				t.Errorf("head %s before, %s after", before, after)
			}
			if files, _ := s.Files("model", id, "main"); tt.files != nil && !slices.Equal(files, tt.files) {
				t.Errorf("files %q; want %q", files, tt.files)
			}
			if got, err := s.Read("model", id, "main", "n"); err == nil && string(got) != "N" && string(got) != long {
				t.Errorf("n has %d bytes", len(got))
			}
		})
	}
}

func TestLFS(t *testing.T) {
	s := newServer(t, "", hubserve.WithToken("secret"), hubserve.WithPartSize(10))
	seed(t, s)
	const auth = "Authorization"
	content := "content that is in three parts"
	oid := "7fb9f9d4ae0b35b3d3d8c1c0b0e6a1d5b1c4f6a3b5d7e9f1a2b3c4d5e6f70812" // not its hash
	batch := func(oid string, size int, transfers string) map[string]any {
		t.Helper()
		w := ask(s, "POST", "/"+id+".git/info/lfs/objects/batch", fmt.Sprintf(`{"operation":"upload","transfers":[%s],"objects":[{"oid":%q,"size":%d}]}`, transfers, oid, size), auth, "Bearer secret")
		var v map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != 200 {
			t.Fatalf("batch: %d %s", w.Code, w.Body)
		}
		return v["objects"].([]any)[0].(map[string]any)
	}
	href := func(o map[string]any) string {
		h := o["actions"].(map[string]any)["upload"].(map[string]any)["href"].(string)
		return strings.TrimPrefix(h, "http://example.com")
	}
	if w := ask(s, "POST", "/"+id+".git/info/lfs/objects/batch", `{"operation":"upload","objects":[]}`); w.Code != 401 {
		t.Errorf("batch without a token: %d", w.Code)
	}
	one := href(batch(oid, len(content), `"basic"`))
	if w := ask(s, "PUT", one, content); w.Code != 400 {
		t.Errorf("content with another hash: %d", w.Code)
	}
	if w := ask(s, "PUT", strings.Replace(one, "sig=", "sig=0", 1), content); w.Code != 403 {
		t.Errorf("wrong signature: %d", w.Code)
	}
	if w := ask(s, "GET", one, ""); w.Code != 403 {
		t.Errorf("an upload's address used for a download: %d", w.Code)
	}
	if w := ask(s, "PUT", strings.Replace(one, oid, strings.Repeat("b", 64), 1), content); w.Code != 403 {
		t.Errorf("another object's address: %d", w.Code)
	}
	parts := batch(oid, len(content), `"basic","multipart"`)
	headers := parts["actions"].(map[string]any)["upload"].(map[string]any)["header"].(map[string]any)
	if headers["chunk_size"] != "10" || len(headers) != 4 {
		t.Errorf("parts %v", headers)
	}
	if w := ask(s, "POST", href(parts), `{"parts":[{"partNumber":1,"etag":"x"}]}`); w.Code != 400 {
		t.Errorf("completing without the parts: %d", w.Code)
	}
	if w := ask(s, "POST", "/lfs/verify", fmt.Sprintf(`{"oid":%q,"size":1}`, oid), auth, "Bearer secret"); w.Code != 404 {
		t.Errorf("verifying what is not there: %d", w.Code)
	}
}

func TestAddresses(t *testing.T) {
	dir := t.TempDir()
	s := newServer(t, filepath.Join(dir, "hub"), hubserve.WithRegularLimit(3))
	seed(t, s)
	// What a path that leads out would find.
	os.WriteFile(filepath.Join(dir, "repo.json"), []byte(`{"type":"model","id":"x","branches":{"main":"x"}}`), 0o666)
	s.Commit("model", id, "main", "more", map[string][]byte{"100% #?.txt": []byte("odd"), "big": []byte("large content")})
	s.Commit("model", "legacy", "main", "x", map[string][]byte{"f": []byte("F")})
	ask(s, "POST", "/api/models/"+id+"/branch/feature%2Fx", "{}")
	tests := []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/" + id + "/resolve/main/a", 200, ""},
		{"HEAD", "/" + id + "/resolve/main/big", 200, ""},
		{"GET", "/" + id + "/resolve/feature%2Fx/d/b", 200, ""},
		{"GET", "/" + id + "/resolve/main/100%25%20%23%3F.txt", 200, ""},
		{"GET", "/legacy/resolve/main/f", 200, ""},
		{"GET", "/api/models/legacy/revision/main", 200, ""},
		{"GET", "/api/models/legacy/tree/main", 200, ""},
		{"GET", "/" + id + "/resolve/main/nope", 404, "EntryNotFound"},
		{"GET", "/" + id + "/resolve/nope/a", 404, "RevisionNotFound"},
		{"GET", "/ada/nope/resolve/main/a", 404, "RepoNotFound"},
		{"GET", "/api/models/ada/nope", 404, "RepoNotFound"},
		{"GET", "/api/models/" + id + "/tree/main/nope", 404, "EntryNotFound"},
		{"GET", "/api/models/..%2F..%2Fetc/revision/main", 404, "RepoNotFound"},
		{"GET", "/api/models/%2e%2e/%2e%2e", 404, "RepoNotFound"},
		{"GET", "/api/models/..%2F../..", 404, "RepoNotFound"},
		{"GET", "/api/models/" + id + "/xet-read-token/main", 404, ""},
		{"POST", "/xet/x/v1/shards", 401, ""},
		{"GET", "/api/agent-harnesses", 404, ""},
		{"GET", "/api/", 404, ""},
		{"GET", "/api", 404, ""},
		{"GET", "/", 200, ""},
		{"GET", "/lfs", 404, ""},
		{"PATCH", "/api/models/" + id, 404, ""},
	}
	for _, tt := range tests {
		w := ask(s, tt.method, tt.path, "")
		if w.Code != tt.status || w.Header().Get("X-Error-Code") != tt.code {
			t.Errorf("%s %s: %d %q; want %d %q", tt.method, tt.path, w.Code, w.Header().Get("X-Error-Code"), tt.status, tt.code)
		}
	}
	w := ask(s, "GET", "/"+id+"/resolve/main/big", "", "Range", "bytes=6-")
	if w.Code != 206 || w.Body.String() != "content" || w.Header().Get("X-Linked-Size") != "13" {
		t.Errorf("range: %d %q %v", w.Code, w.Body, w.Header())
	}
}

// FuzzServer: whatever is asked, the server answers, and never with its own failure.
func FuzzServer(f *testing.F) {
	f.Add("GET", "/api/models/ada/vit/tree/main?cursor=-1&limit=0", "")
	f.Add("POST", "/api/models/ada/vit/commit/main", `{"key":"header","value":{}}`)
	f.Add("POST", "/ada/vit.git/info/lfs/objects/batch", `{"operation":"upload","objects":[{"oid":"x","size":-1}]}`)
	f.Add("PUT", "/lfs/part/x/1?expires=1&sig=2", "")
	f.Add("POST", "/api/repos/move", `{"fromRepo":"ada/vit","toRepo":"a/b"}`)
	f.Fuzz(func(t *testing.T, method, path, body string) {
		r, err := http.NewRequest(method, "http://hub.test/"+strings.TrimPrefix(path, "/"), strings.NewReader(body))
		if err != nil {
			return
		}
		s := newServer(t, "")
		seed(t, s)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	})
}

// The server and the fake Hub must stay usable without anything else.
func TestImportsOnlyTheStandardLibrary(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".", "../hubtest").Output()
	if err != nil {
		t.Skip("no go command: ", err)
	}
	for _, pkg := range bytes.Fields(out) {
		// What is internal to the whole module stands for the standard library's.
		if name, _ := bytes.CutPrefix(pkg, []byte("github.com/hubtool/hubtool/")); !bytes.HasPrefix(name, []byte("hub/hub")) && !bytes.HasPrefix(name, []byte("internal/")) {
			t.Errorf("imports %s", pkg)
		}
	}
}
