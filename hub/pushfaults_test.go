package hub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubserve"
	"github.com/hubtool/hubtool/hub/hubtest"
)

// changeJSON lets the Hub answer and edits the answer.
func changeJSON(edit func(map[string]any)) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, h http.Handler) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		var v map[string]any
		json.Unmarshal(rec.Body.Bytes(), &v)
		edit(v)
		json.NewEncoder(w).Encode(v)
	}
}

// upload digs out the upload action of the first object of a batch answer.
func uploadAction(v map[string]any) map[string]any {
	return v["objects"].([]any)[0].(map[string]any)["actions"].(map[string]any)["upload"].(map[string]any)
}

func TestPushFaults(t *testing.T) {
	parts := []hubserve.Option{hubtest.WithPartSize(100_000)}
	other := func(r *rig, files map[string][]byte) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, q *http.Request, h http.Handler) {
			r.hub.Commit("model", repoID, "main", "someone else", files)
			h.ServeHTTP(w, q)
		}
	}
	commits := func(n int) func(*testing.T, *rig, *hub.Commit) {
		return func(t *testing.T, r *rig, _ *hub.Commit) {
			if got := r.hub.Count("POST", "/commit/"); got != n {
				t.Errorf("%d commits were sent; want %d", got, n)
			}
		}
	}
	tests := []struct {
		name   string
		server []hubserve.Option
		opts   hub.PushOptions
		client []hub.Option
		faults func(r *rig) []hubtest.Fault
		files  map[string][]byte // default: a small and an LFS file
		want   error
		text   string
		check  func(t *testing.T, r *rig, c *hub.Commit)
	}{
		{name: "no fault", check: commits(1)},
		{name: "26 503 at every step, once", server: parts, faults: func(*rig) []hubtest.Fault {
			var fs []hubtest.Fault
			for _, path := range []string{"/revision/", "/preupload/", "/batch", "/lfs/part/", "/lfs/complete/", "/lfs/verify"} {
				fs = append(fs, hubtest.Fault{Path: path, Times: 1, Do: hubtest.Status(503)})
			}
			return fs
		}},
		{name: "the upload is cut", faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Method: "PUT", Times: 2, Do: hubtest.Hang()}}
		}},
		{name: "66 somebody commits another file meanwhile", faults: func(r *rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/commit/", Times: 1, Do: other(r, map[string][]byte{"theirs": []byte("x")})}}
		}, check: func(t *testing.T, r *rig, c *hub.Commit) {
			if got, err := r.hub.Read("model", repoID, "main", "theirs"); err != nil || string(got) != "x" {
				t.Error("their file is gone")
			}
			commits(2)(t, r, c)
		}},
		{name: "66 somebody commits the same file meanwhile", want: hub.ErrConflict, text: "new.txt", faults: func(r *rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/commit/", Times: 1, Do: other(r, map[string][]byte{"new.txt": []byte("theirs")})}}
		}},
		{name: "67 the answer to the commit is lost", check: commits(1), faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/commit/", Times: 1, Do: hubtest.LoseAnswer()}}
		}},
		{name: "67 the commit itself is lost", check: commits(2), faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/commit/", Times: 1, Do: hubtest.Hang()}}
		}},
		{name: "68 the answer to a pull request is lost", opts: hub.PushOptions{CreatePR: true}, want: hub.ErrNetwork, text: "/acme/vit/discussions",
			check: commits(1), faults: func(*rig) []hubtest.Fault {
				return []hubtest.Fault{{Path: "/commit/", Do: hubtest.LoseAnswer()}}
			}},
		{name: "69 files that .gitignore excludes", files: map[string][]byte{".gitignore": []byte("*.log\n"), "a.log": []byte("x"), "b.txt": []byte("y")},
			check: func(t *testing.T, r *rig, c *hub.Commit) {
				if len(c.Uploaded) != 2 || len(c.Skipped) != 1 || c.Skipped[0] != "a.log" {
					t.Errorf("uploaded %q, skipped %q", c.Uploaded, c.Skipped)
				}
			}},
		{name: "71 the content is there under another name", files: map[string][]byte{"copy.bin": blobOf(1, 300_000)}, check: func(t *testing.T, r *rig, c *hub.Commit) {
			if r.hub.Count("PUT", "") != 0 || c.Sent != 0 {
				t.Errorf("sent %d bytes", c.Sent)
			}
		}},
		{name: "72 the server refuses an object", text: "quota", check: commits(0), faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/batch", Do: changeJSON(func(v map[string]any) {
				o := v["objects"].([]any)[0].(map[string]any)
				delete(o, "actions")
				o["error"] = map[string]any{"code": 422, "message": "quota"}
			})}}
		}},
		{name: "73 a part fails twice", server: parts, faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/2?", Times: 2, Do: hubtest.Status(500)}}
		}, check: func(t *testing.T, r *rig, c *hub.Commit) {
			if n := r.hub.Count("POST", "/lfs/complete/"); n != 1 {
				t.Errorf("completed %d times", n)
			}
		}},
		{name: "74 a part without an ETag", server: parts, want: hub.ErrNetwork, text: "ETag", check: func(t *testing.T, r *rig, c *hub.Commit) {
			if r.hub.Count("POST", "/lfs/complete/") != 0 {
				t.Error("completed all the same")
			}
		}, faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/lfs/part/", Times: 1, Do: hubtest.Status(200)}}
		}},
		{name: "74 too few parts", server: parts, want: hub.ErrNetwork, text: "parts", faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/batch", Do: changeJSON(func(v map[string]any) { delete(uploadAction(v)["header"].(map[string]any), "2") })}}
		}},
		{name: "parts numbered with zeros, sizes as numbers", server: parts, faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/batch", Do: changeJSON(func(v map[string]any) {
				h := uploadAction(v)["header"].(map[string]any)
				h["chunk_size"] = 100_000
				for _, n := range []string{"1", "2", "3"} {
					h["0000"+n] = h[n]
					delete(h, n)
				}
			})}}
		}},
		{name: "75 the address of a part has expired", server: parts, faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/lfs/part/", Skip: 1, Times: 1, Do: hubtest.Status(403)}}
		}},
		{name: "76 the server did not receive it", want: hub.ErrDamaged, check: commits(0), faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/lfs/verify", Do: hubtest.Status(422)}}
		}},
		{name: "77 an upload to another host with its own credentials", faults: func(r *rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/batch", Do: changeJSON(func(v map[string]any) {
				a := uploadAction(v)
				a["href"] = strings.Replace(a["href"].(string), r.url, r.cdn, 1)
				a["header"] = map[string]any{"Authorization": "Basic its-own"}
			})}}
		}, check: func(t *testing.T, r *rig, c *hub.Commit) {
			for _, q := range r.hub.Requests() {
				if q.Method == "PUT" && q.Header.Get("Authorization") != "Basic its-own" {
					t.Errorf("the upload carried %q", q.Header.Get("Authorization"))
				}
			}
		}},
		{name: "77 an upload to another host without credentials", faults: func(r *rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/batch", Do: changeJSON(func(v map[string]any) {
				a := uploadAction(v)
				a["href"] = strings.Replace(a["href"].(string), r.url, r.cdn, 1)
			})}}
		}, check: func(t *testing.T, r *rig, c *hub.Commit) {
			for _, q := range r.hub.Requests() {
				if q.Method == "PUT" && (q.Header.Get("Authorization") != "" || q.Header.Get("Content-Length") == "") {
					t.Errorf("the upload carried %v", q.Header)
				}
			}
		}},
		{name: "80 README with front matter that does not end", files: map[string][]byte{"README.md": []byte("---\nlicense: mit\n"), "big": blobOf(5, 5000)},
			text: "front matter", check: func(t *testing.T, r *rig, c *hub.Commit) {
				if r.hub.Count("PUT", "")+r.hub.Count("POST", "/commit/") != 0 {
					t.Error("something was sent")
				}
			}},
		{name: "81 the server cannot check cards", files: map[string][]byte{"README.md": []byte("---\nlicense: mit\n")}, faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/validate-yaml", Do: hubtest.Status(404)}}
		}},
		{name: "84 the commit is too large", check: commits(3), faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/commit/", Times: 1, Do: hubtest.Status(413)}}
		}},
		{name: "85 a token that may not write", want: hub.ErrAuth, text: "write access", faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/preupload/", Do: hubtest.Status(403, "X-Error-Message", "token lacks write access")}}
		}},
		{name: "46 an empty file that the server calls LFS", files: map[string][]byte{"empty": {}}, faults: func(*rig) []hubtest.Fault {
			return []hubtest.Fault{{Path: "/preupload/", Do: changeJSON(func(v map[string]any) {
				v["files"].([]any)[0].(map[string]any)["uploadMode"] = "lfs"
			})}}
		}, check: func(t *testing.T, r *rig, c *hub.Commit) {
			if r.hub.Count("POST", "/batch") != 0 {
				t.Error("an empty object was offered to LFS")
			}
		}},
		{name: "no token", client: []hub.Option{hub.WithToken("")}, want: hub.ErrAuth},
		{name: "read-only server", server: []hubserve.Option{hubtest.WithReadOnly()}, want: hub.ErrAuth, text: "read-only"},
		{name: "a server that never says what it has", check: commits(1), files: map[string][]byte{"config.json": []byte(`{"model_type": "vit"}`), "new.txt": []byte("x")},
			faults: func(*rig) []hubtest.Fault {
				return []hubtest.Fault{{Path: "/preupload/", Do: changeJSON(func(v map[string]any) {
					for _, f := range v["files"].([]any) {
						delete(f.(map[string]any), "oid")
					}
				})}}
			}},
		{name: "a commit of many files is split, the README last", files: manyFiles(230), check: func(t *testing.T, r *rig, c *hub.Commit) {
			commits(3)(t, r, c)
			if got, err := r.hub.Files("model", repoID, "main"); err != nil || len(got) != 5+230 {
				t.Errorf("%d files on the Hub", len(got))
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tt.server...)
			if tt.faults != nil {
				for _, f := range tt.faults(r) {
					r.hub.Inject(f)
				}
			}
			files := tt.files
			if files == nil {
				files = map[string][]byte{"new.txt": []byte("new"), "adapter.safetensors": blobOf(7, 250_000)}
			}
			got, err := r.client(tt.client...).Push(context.Background(), repo, folder(t, files), tt.opts)
			switch {
			case tt.want != nil:
				wantErr(t, err, tt.want, tt.text)
			case tt.text != "":
				if err == nil || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("error %v; want one that mentions %q", err, tt.text)
				}
			case err != nil:
				t.Fatal(err)
			default:
				head, _ := r.hub.Head("model", repoID, "main")
				if got.OID != head {
					t.Errorf("commit %s; the head is %s", got.OID, head)
				}
				for _, name := range got.Uploaded {
					if data, err := r.hub.Read("model", repoID, "main", name); err != nil || string(data) != string(files[name]) {
						t.Errorf("%s on the Hub has %d bytes, %v", name, len(data), err)
					}
				}
			}
			if tt.check != nil {
				tt.check(t, r, got)
			}
			if log := r.log.String(); strings.Contains(log, token) || strings.Contains(log, "sig=") {
				t.Error("86 the log shows a secret")
			}
		})
	}
}

func manyFiles(n int) map[string][]byte {
	files := map[string][]byte{"README.md": []byte("# many\n")}
	for i := 1; i < n; i++ {
		files[fmt.Sprintf("many/%03d", i)] = []byte(fmt.Sprint(i))
	}
	delete(files, "many/000")
	files["extra"] = []byte("x")
	return files
}

func TestPushWalk(t *testing.T) {
	r := newRig(t)
	push := func(dir string, opts hub.PushOptions) (*hub.Commit, error) {
		return r.client().Push(context.Background(), repo, dir, opts)
	}
	t.Run("79 what cannot be sent is refused by name", func(t *testing.T) {
		dir, outside := folder(t, map[string][]byte{"ok": []byte("ok")}), filepath.Join(t.TempDir(), "secret")
		os.WriteFile(outside, []byte("secret"), 0o666)
		os.Symlink(outside, filepath.Join(dir, "leak"))
		os.Symlink("nowhere", filepath.Join(dir, "dangling"))
		_, err := push(dir, hub.PushOptions{})
		wantErr(t, err, hub.ErrInvalid, "leak", "dangling")
	})
	t.Run("links inside the folder and into a Hub cache are content", func(t *testing.T) {
		dir := folder(t, map[string][]byte{"real": []byte("data")})
		os.Symlink("real", filepath.Join(dir, "alias"))
		snap := r.pull(hub.PullOptions{Files: []string{"config.json"}})
		os.Symlink(snap.Files[0].Path, filepath.Join(dir, "cached.json"))
		got, err := push(dir, hub.PushOptions{})
		if err != nil || len(got.Uploaded) != 3 {
			t.Fatalf("%+v, %v", got, err)
		}
		if data, _ := r.hub.Read("model", repoID, "main", "cached.json"); string(data) != string(r.files["config.json"]) {
			t.Errorf("cached.json on the Hub: %q", data)
		}
	})
	t.Run("a snapshot can be pushed as it is", func(t *testing.T) {
		snap, err := r.client().Pull(context.Background(), repo, hub.PullOptions{Include: []string{"*.json", "*.safetensors"}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.client().Push(context.Background(), hub.Repo{ID: "acme/copy"}, snap.Dir, hub.PushOptions{})
		if err != nil || len(got.Uploaded) == 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("git's and our own folders stay", func(t *testing.T) {
		dir := folder(t, map[string][]byte{"f": []byte("f"), ".git/HEAD": []byte("x"), ".cache/huggingface/download/f.metadata": []byte("x")})
		got, err := push(dir, hub.PushOptions{})
		if err != nil || len(got.Uploaded) != 1 {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("one file, under another name", func(t *testing.T) {
		path := filepath.Join(folder(t, map[string][]byte{"f.bin": []byte("one")}), "f.bin")
		for in, want := range map[string]string{"": "f.bin", "sub/": "sub/f.bin", "other.bin": "other.bin"} {
			got, err := push(path, hub.PushOptions{PathInRepo: in})
			if err != nil || len(got.Uploaded) != 1 || got.Uploaded[0] != want {
				t.Errorf("to %q: %+v, %v", in, got, err)
			}
		}
	})
	t.Run("a new branch, a dry run", func(t *testing.T) {
		dir := folder(t, map[string][]byte{"only-here": []byte("x")})
		to := hub.Repo{ID: repoID, Revision: "feature/x"}
		plan, err := r.client().Push(context.Background(), to, dir, hub.PushOptions{DryRun: true})
		if err != nil || len(plan.Uploaded) != 1 {
			t.Fatalf("%+v, %v", plan, err)
		}
		if _, err := r.hub.Head("model", repoID, "feature/x"); err == nil {
			t.Error("a dry run created the branch")
		}
		if _, err := r.client().Push(context.Background(), to, dir, hub.PushOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.hub.Read("model", repoID, "feature/x", "only-here"); err != nil {
			t.Error(err)
		}
	})
	t.Run("78 a file that changes meanwhile", func(t *testing.T) {
		dir := folder(t, map[string][]byte{"grows.bin": blobOf(8, 50_000)})
		before, _ := r.hub.Head("model", repoID, "main")
		c := r.client(hub.WithProgress(func(e hub.Event) {
			if e.File == "grows.bin" && e.State == hub.Done {
				f, _ := os.OpenFile(filepath.Join(dir, "grows.bin"), os.O_APPEND|os.O_WRONLY, 0)
				f.WriteString("more")
				f.Close()
			}
		}))
		_, err := c.Push(context.Background(), repo, dir, hub.PushOptions{})
		wantErr(t, err, hub.ErrConflict, "changed")
		if after, _ := r.hub.Head("model", repoID, "main"); after != before {
			t.Error("committed all the same")
		}
	})
}

func TestInterruptedPushGoesOn(t *testing.T) {
	r := newRig(t)
	dir := folder(t, map[string][]byte{"a.bin": blobOf(1, 20_000), "b.bin": blobOf(2, 20_000)})
	ctx, cancel := context.WithCancel(context.Background())
	c := r.client(hub.WithJobs(1), hub.WithProgress(func(e hub.Event) {
		if e.File == "a.bin" && e.State == hub.Done {
			cancel()
		}
	}))
	_, err := c.Push(ctx, hub.Repo{ID: "acme/new"}, dir, hub.PushOptions{})
	wantErr(t, err, context.Canceled)
	if r.hub.Count("POST", "/commit/") != 0 {
		t.Error("64 a commit was sent")
	}
	r.hub.Forget()
	got, err := r.client().Push(context.Background(), hub.Repo{ID: "acme/new"}, dir, hub.PushOptions{})
	if err != nil || got.Sent != 20_000 || r.hub.Count("PUT", "") != 1 {
		t.Errorf("64 the second push sent %+v, %v", got, err)
	}
}

func TestInterruptedCommitIsAnswered(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(context.Background())
	r.hub.Inject(hubtest.Fault{Path: "/commit/", Do: func(w http.ResponseWriter, q *http.Request, h http.Handler) {
		cancel()
		time.Sleep(100 * time.Millisecond)
		h.ServeHTTP(w, q)
	}})
	got, err := r.client().Push(ctx, repo, folder(t, map[string][]byte{"x": []byte("x")}), hub.PushOptions{})
	if head, _ := r.hub.Head("model", repoID, "main"); err != nil || got.OID != head {
		t.Errorf("65 %+v, %v; the head is %s", got, err, head)
	}
	if !strings.Contains(r.log.String(), r.url+"/acme/vit/commits/main") {
		t.Error("65 nobody was told where to look after a second signal")
	}
}

func TestCreateRepo(t *testing.T) {
	tests := []struct {
		name   string
		id     string
		faults []hubtest.Fault
		opts   hub.CreateOptions
		want   error
		wantID string
	}{
		{"82 exists, with an address", repoID, nil, hub.CreateOptions{ExistOK: true}, nil, repoID},
		{"82 exists, without an address", repoID, []hubtest.Fault{{Path: "/create", Do: hubtest.Text(409, "application/json", "{}")}}, hub.CreateOptions{ExistOK: true}, nil, repoID},
		{"82 forbidden, but it exists", repoID, []hubtest.Fault{{Path: "/create", Do: hubtest.Status(403)}}, hub.CreateOptions{ExistOK: true}, nil, repoID},
		{"82 forbidden, and missing", "acme/none", []hubtest.Fault{{Path: "/create", Do: hubtest.Status(403)}}, hub.CreateOptions{ExistOK: true}, hub.ErrAuth, ""},
		{"exists, and that is no success", repoID, nil, hub.CreateOptions{}, hub.ErrConflict, ""},
		{"a bare name goes to the user", "mine", nil, hub.CreateOptions{Private: true}, nil, "user/mine"},
		{"another operation is in the way for a while", "acme/busy",
			[]hubtest.Fault{{Path: "/create", Times: 2, Do: hubtest.Text(409, "application/json", `{"error":"another conflicting operation is in progress"}`)}}, hub.CreateOptions{}, nil, "acme/busy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			for _, f := range tt.faults {
				r.hub.Inject(f)
			}
			got, err := r.client().CreateRepo(context.Background(), hub.Repo{ID: tt.id}, tt.opts)
			if tt.want != nil {
				wantErr(t, err, tt.want)
			} else if err != nil || got.ID != tt.wantID {
				t.Errorf("created %q, %v; want %q", got.ID, err, tt.wantID)
			}
		})
	}
}

func TestPushToMovedRepository(t *testing.T) {
	r := newRig(t)
	if err := r.hub.Move("model", repoID, "acme/renamed"); err != nil {
		t.Fatal(err)
	}
	dir := folder(t, map[string][]byte{"x.bin": blobOf(4, 3000), "y": []byte("y")})
	got, err := r.client().Push(context.Background(), repo, dir, hub.PushOptions{})
	if err != nil || got.Repo.ID != "acme/renamed" {
		t.Fatalf("83 %+v, %v", got, err)
	}
	// Even when asked for under the old name, a POST stays one with its body.
	r.hub.Inject(hubtest.Fault{Path: "/api/models/acme/renamed/preupload", Times: 1, Do: hubtest.Redirect(301, func(q *http.Request) string { return q.URL.String() })})
	os.WriteFile(filepath.Join(dir, "y"), []byte("z"), 0o666)
	_, err = r.client().Push(context.Background(), repo, dir, hub.PushOptions{})
	wantErr(t, err, hub.ErrNetwork, "turn the request into a GET")
}

func TestWhoAmI(t *testing.T) {
	r := newRig(t, hubtest.WithUser("ada"))
	u, err := r.client().WhoAmI(context.Background())
	if err != nil || u.Name != "ada" || u.TokenRole != "write" {
		t.Errorf("%+v, %v", u, err)
	}
	_, err = r.client(hub.WithToken("hf_wrongwrongwrong")).WhoAmI(context.Background())
	wantErr(t, err, hub.ErrAuth, "the caller")
	_, err = r.client(hub.WithToken("")).WhoAmI(context.Background())
	wantErr(t, err, hub.ErrAuth, "log in")
}
