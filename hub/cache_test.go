package hub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubtest"
)

func TestHostileListings(t *testing.T) {
	for _, name := range []string{"../x", "/x", "C:/x", `a\\..\\b`, `nul\u0000`, "a//b"} {
		t.Run("39 "+name, func(t *testing.T) {
			r := newRig(t)
			r.hub.Inject(hubtest.Fault{Path: "/tree/", Do: hubtest.Text(200, "application/json",
				fmt.Sprintf(`[{"type":"file","oid":"%s","size":0,"path":"ok"},{"type":"file","oid":"%s","size":0,"path":"%s"}]`, emptyETag, emptyETag, name))})
			_, err := r.client().Pull(context.Background(), repo, hub.PullOptions{Include: []string{"ok"}})
			wantErr(t, err, hub.ErrDamaged, "file name")
			if n := r.hub.Count("", "/resolve/"); n != 0 || len(r.blobs()) != 0 {
				t.Error("something was downloaded before the names were checked")
			}
		})
	}
	t.Run("40 the same name twice", func(t *testing.T) {
		r := newRig(t)
		one := fmt.Sprintf(`{"type":"file","oid":"%s","size":0,"path":"a"}`, emptyETag)
		r.hub.Inject(hubtest.Fault{Path: "/tree/", Do: hubtest.Text(200, "application/json", "["+one+","+one+"]")})
		_, err := r.client().Pull(context.Background(), repo, hub.PullOptions{})
		wantErr(t, err, hub.ErrDamaged, `"a"`)
	})
}

func TestListingPages(t *testing.T) {
	tests := []struct {
		name  string
		fault hubtest.Fault
		want  error
		text  string
	}{
		{"pages", hubtest.Fault{Path: "nothing"}, nil, ""},
		{"58 the second page fails twice", hubtest.Fault{Path: "cursor=", Times: 2, Do: hubtest.Status(500)}, nil, ""},
		{"58 a page that names itself as the next", hubtest.Fault{Path: "cursor=", Do: func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Header().Set("Link", fmt.Sprintf(`<http://%s%s>; rel="next"`, r.Host, r.URL.RequestURI()))
			w.Write([]byte("[]"))
		}}, hub.ErrNetwork, "repeats"},
		{"58 a next page at another host", hubtest.Fault{Path: "/tree/", Do: func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Header().Set("Link", `<http://evil.test/x?cursor=1>; rel="next"`)
			w.Write([]byte("[]"))
		}}, hub.ErrNetwork, "another host"},
		{"58 a mirror that passes on the public Hub's address", hubtest.Fault{Path: "/tree/", Times: 1, Do: func(w http.ResponseWriter, r *http.Request, h http.Handler) {
			w.Header().Set("Link", fmt.Sprintf(`<https://huggingface.co%s&cursor=0>; rel="next"`, r.URL.RequestURI()))
			w.Write([]byte("[]"))
		}}, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, hubtest.WithPageSize(2))
			r.hub.Inject(tt.fault)
			var names []string
			var err error
			for f, e := range r.client().Files(context.Background(), repo) {
				if err = e; e == nil {
					names = append(names, f.Path)
				}
			}
			if tt.want != nil {
				wantErr(t, err, tt.want, tt.text)
				return
			}
			if err != nil || len(names) != len(r.files) {
				t.Errorf("listed %q, %v", names, err)
			}
		})
	}
}

// TestCacheRepairs starts from a complete cache, harms it, and pulls again.
func TestCacheRepairs(t *testing.T) {
	const name = "model.safetensors"
	tests := []struct {
		name    string
		harm    func(t *testing.T, base, blob, pointer, outside string)
		fetched int64
	}{
		{"42 blob replaced by a link that leads out", func(t *testing.T, base, blob, pointer, outside string) {
			os.Remove(blob)
			os.Symlink(outside, blob)
		}, 300_000},
		{"42 entry replaced by a link that leads out", func(t *testing.T, base, blob, pointer, outside string) {
			os.Remove(pointer)
			os.Symlink(outside, pointer)
		}, 0},
		{"43 entry that leads nowhere", func(t *testing.T, base, blob, pointer, outside string) { os.Remove(blob) }, 300_000},
		{"44 blob that is short", func(t *testing.T, base, blob, pointer, outside string) { os.Truncate(blob, 5) }, 300_000},
		{"59 ref with a newline", func(t *testing.T, base, blob, pointer, outside string) {
			ref, _ := os.ReadFile(filepath.Join(base, "refs", "main"))
			os.WriteFile(filepath.Join(base, "refs", "main"), append(ref, '\n'), 0o666)
		}, 0},
		{"entry of another content", func(t *testing.T, base, blob, pointer, outside string) {
			os.Remove(pointer)
			os.Symlink("../../blobs/"+emptyETag, pointer)
		}, 0},
		{"listing of an unknown format", func(t *testing.T, base, blob, pointer, outside string) {
			trees, _ := filepath.Glob(filepath.Join(base, "trees", "*"))
			os.WriteFile(trees[0], []byte(`{"format_version":99}`), 0o600)
		}, 0},
		{"snapshot entry is a plain file", func(t *testing.T, base, blob, pointer, outside string) {
			os.Remove(pointer)
			os.Rename(blob, pointer)
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			snap := r.pull(hub.PullOptions{})
			outside := filepath.Join(t.TempDir(), "outside")
			kept := bytes.Repeat([]byte("x"), 300_000)
			os.WriteFile(outside, kept, 0o666)
			base := filepath.Join(r.cache, "models--acme--vit")
			tt.harm(t, base, filepath.Join(base, "blobs", lfsETag(r, name)), filepath.Join(snap.Dir, name), outside)
			if got := r.pull(hub.PullOptions{}).Fetched; got != tt.fetched {
				t.Errorf("fetched %d bytes; want %d", got, tt.fetched)
			}
			if got, _ := os.ReadFile(outside); !bytes.Equal(got, kept) {
				t.Error("a file outside of the cache was changed")
			}
			r.pull(hub.PullOptions{}, hub.WithOffline(true))
		})
	}
}

func TestNoSymlinks(t *testing.T) {
	r := newRig(t)
	t.Setenv("HF_HUB_DISABLE_SYMLINKS", "1")
	snap := r.pull(hub.PullOptions{})
	for _, f := range snap.Files {
		if info, err := os.Lstat(f.Path); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %v, %v; want a plain file", f.Name, info, err)
		}
	}
	if left := r.blobs(); len(left) > 0 {
		t.Errorf("blobs still has %v", left)
	}
	if again := r.pull(hub.PullOptions{}); again.Fetched != 0 {
		t.Errorf("fetched %d bytes again", again.Fetched)
	}
}

func TestRevisionMovesDuringPull(t *testing.T) {
	t.Run("56 all files are of the first commit", func(t *testing.T) {
		r := newRig(t)
		r.hub.Inject(hubtest.Fault{Path: "/tree/", Times: 1, Do: func(w http.ResponseWriter, q *http.Request, h http.Handler) {
			r.hub.Commit("model", repoID, "main", "second", map[string][]byte{"config.json": []byte("{}")})
			h.ServeHTTP(w, q)
		}})
		if snap := r.pull(hub.PullOptions{}); snap.Commit != r.head {
			t.Errorf("commit %s; want %s", snap.Commit, r.head)
		}
	})
	t.Run("57 the commit disappears", func(t *testing.T) {
		r := newRig(t)
		r.hub.Inject(hubtest.Fault{Path: "/resolve/", Do: hubtest.Status(404, "X-Error-Code", "RevisionNotFound")})
		_, err := r.client().Pull(context.Background(), repo, hub.PullOptions{})
		wantErr(t, err, hub.ErrRevision)
		if _, err := os.Stat(filepath.Join(r.cache, "models--acme--vit", "refs", "main")); err == nil {
			t.Error("the ref was written")
		}
	})
}

func TestConcurrentPulls(t *testing.T) {
	r := newRig(t)
	r.hub.Inject(hubtest.Fault{Method: "GET", Path: "/lfs/blob/", Times: 1, Do: hubtest.Slow(30_000, 20*time.Millisecond)})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { r.pull(hub.PullOptions{}) }) // each with a client of its own, so as separate processes do
	}
	wg.Wait()
	if n := r.hub.Count("GET", "/lfs/blob/"); n != 1 {
		t.Errorf("35 the file was downloaded %d times; want once", n)
	}
}

func TestParallelRanges(t *testing.T) {
	parts := hub.WithParallelRanges(100_000, 30_000)
	tests := []struct {
		name   string
		faults []hubtest.Fault
		want   error
	}{
		{"ten ranges", nil, nil},
		{"87 the server does not serve ranges", []hubtest.Fault{{Method: "GET", Path: "/lfs/blob/", Do: hubtest.NoRanges()}}, nil},
		{"87 one range fails for a while", []hubtest.Fault{{Method: "GET", Path: "/lfs/blob/", Skip: 3, Times: 2, Do: hubtest.Status(500)}}, nil},
		{"87 ranges are cut", []hubtest.Fault{{Method: "GET", Path: "/lfs/blob/", Times: 6, Do: hubtest.Cut(10_000)}}, nil},
		{"87 one range is another's", []hubtest.Fault{{Method: "GET", Path: "/lfs/blob/", Skip: 2, Times: 1, Do: hubtest.Range("bytes=0-29999")}}, nil},
		{"87 wrong bytes in one range, once", []hubtest.Fault{{Method: "GET", Path: "/lfs/blob/", Skip: 2, Times: 1, Do: hubtest.Corrupt(7)}}, nil},
		{"87 wrong bytes always", []hubtest.Fault{{Method: "GET", Path: "/lfs/blob/", Do: hubtest.Corrupt(7)}}, hub.ErrDamaged},
		{"87 no range comes any more", []hubtest.Fault{{Method: "GET", Path: "/lfs/blob/", Skip: 4, Do: hubtest.Cut(0)}}, hub.ErrNetwork},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for _, f := range tt.faults {
				r.hub.Inject(f)
			}
			snap, err := r.client(parts).Pull(context.Background(), repo, hub.PullOptions{Files: []string{"model.safetensors"}})
			if tt.want != nil {
				wantErr(t, err, tt.want)
				left := r.incomplete()
				if kept := errors.Is(tt.want, hub.ErrNetwork); kept != (len(left) == 1) {
					t.Errorf("kept %v for the next run", left)
				}
				r.hub.Forget()
				snap := r.pull(hub.PullOptions{Files: []string{"model.safetensors"}}, parts)
				if len(left) == 1 && snap.Fetched > 300_000-4*30_000 {
					t.Errorf("fetched %d bytes; four ranges of 30000 were there", snap.Fetched)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(snap.Files[0].Path); !bytes.Equal(got, r.files["model.safetensors"]) {
				t.Error("content differs")
			}
			if tt.faults == nil && (r.hub.Count("GET", "/lfs/blob/") != 10 || r.hub.Count("GET", "/resolve/") > 10) {
				t.Errorf("%d ranges, %d questions where they are", r.hub.Count("GET", "/lfs/blob/"), r.hub.Count("GET", "/resolve/"))
			}
		})
	}
}

func TestSelection(t *testing.T) {
	tests := []struct {
		name string
		opts hub.PullOptions
		want []string
	}{
		{"include", hub.PullOptions{Include: []string{"*.json", "*.safetensors"}}, []string{"config.json", "model.safetensors"}},
		{"exclude", hub.PullOptions{Exclude: []string{"sub/", "*.safetensors"}}, []string{"README.md", "config.json"}},
		{"folder", hub.PullOptions{Files: []string{"sub/"}}, []string{"sub/empty.txt", "sub/ünï %#?.txt"}},
		{"files", hub.PullOptions{Files: []string{"config.json", "./README.md"}}, []string{"README.md", "config.json"}},
		{"nothing matches", hub.PullOptions{Include: []string{"*.bin"}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			dry := tt.opts
			dry.DryRun = true
			plan := r.planned(dry)
			if _, err := os.Stat(r.cache); err == nil {
				t.Error("a dry run wrote to the cache")
			}
			var got []string
			for _, f := range r.pull(tt.opts).Files {
				got = append(got, f.Name)
			}
			if !slices.Equal(got, tt.want) || !slices.Equal(plan, tt.want) {
				t.Errorf("pulled %q, planned %q; want %q", got, plan, tt.want)
			}
		})
	}
}

func (r *rig) planned(opts hub.PullOptions) (names []string) {
	snap, err := r.client().Pull(context.Background(), repo, opts)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range snap.Files {
		names = append(names, f.Name)
	}
	return names
}

func TestEndpointWithPath(t *testing.T) {
	r := newRig(t, hubtest.WithPrefix("/hf"), hubtest.WithBlobHost(""), hubtest.WithPageSize(2))
	at := hub.WithEndpoint(r.url + "/hf/")
	r.pull(hub.PullOptions{}, at)
	dir := folder(t, map[string][]byte{"big": blobOf(9, 5000), "small": []byte("s")})
	done, err := r.client(at).Push(context.Background(), hub.Repo{ID: "acme/prefixed"}, dir, hub.PushOptions{})
	if err != nil || !strings.HasPrefix(done.URL, r.url+"/hf/acme/prefixed/commit/") {
		t.Errorf("89 %+v, %v", done, err)
	}
	for _, q := range r.hub.Requests() {
		if !strings.HasPrefix(q.Path, "/hf/") {
			t.Errorf("89 %s %s is outside of the endpoint", q.Method, q.Path)
		}
	}
}

func TestReadOnlyCache(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	r := newRig(t)
	r.pull(hub.PullOptions{})
	chmod := func(mode os.FileMode) {
		filepath.WalkDir(r.cache, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				os.Chmod(path, mode)
			}
			return nil
		})
	}
	chmod(0o555)
	defer chmod(0o755)
	if snap := r.pull(hub.PullOptions{}); snap.Fetched != 0 {
		t.Errorf("60 fetched %d bytes", snap.Fetched)
	}
}

func TestTooLittleSpace(t *testing.T) {
	r := newRig(t)
	r.hub.Inject(hubtest.Fault{Path: "/tree/", Do: hubtest.Text(200, "application/json",
		fmt.Sprintf(`[{"type":"file","oid":"x","size":1000,"path":"big","lfs":{"oid":"%064d","size":%d}}]`, 1, int64(1)<<60))})
	_, err := r.client().Pull(context.Background(), repo, hub.PullOptions{})
	wantErr(t, err, hub.ErrSpace, "bytes")
	if r.hub.Count("", "/resolve/") != 0 || len(r.blobs()) != 0 {
		t.Error("31 something was asked for or left over")
	}
}

func TestRequestsSayWhatTheyAreFor(t *testing.T) {
	r := newRig(t)
	r.pull(hub.PullOptions{}, hub.WithUserAgent("hubtool/9"))
	for _, q := range r.hub.Requests() {
		if q.Header.Get("X-HF-Download-Counter") != "1" || !strings.HasPrefix(q.Header.Get("User-Agent"), "hubtool/9; go/") || q.Header.Get("X-Amzn-Trace-Id") == "" {
			t.Errorf("%s %s has headers %v", q.Method, q.Path, q.Header)
		}
	}
}

// Self-hosted Hubs have habits of their own; see what is known of them in the tests.
func TestOtherServersHabits(t *testing.T) {
	t.Run("folders are listed without a name", func(t *testing.T) {
		r := newRig(t)
		r.hub.Inject(hubtest.Fault{Path: "/tree/", Do: func(w http.ResponseWriter, q *http.Request, h http.Handler) {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, q)
			w.Write([]byte(`[{"oid":"","path":"","type":""},` + rec.Body.String()[1:]))
		}})
		r.pull(hub.PullOptions{})
	})
	t.Run("an unknown revision has an empty commit", func(t *testing.T) {
		r := newRig(t)
		r.hub.Inject(hubtest.Fault{Path: "/revision/", Do: hubtest.Text(200, "application/json", `{"id":"acme/vit","sha":""}`)})
		_, err := r.client().Pull(context.Background(), repo, hub.PullOptions{})
		wantErr(t, err, hub.ErrRevision)
	})
}
