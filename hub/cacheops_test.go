package hub_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubtest"
)

func (r *rig) scan() *hub.CacheReport {
	r.t.Helper()
	report, err := r.client().ScanCache()
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// twoCommits pulls main before and after one file changes.
func twoCommits(r *rig) (first, second string) {
	r.pull(hub.PullOptions{})
	r.files["config.json"] = []byte("{}")
	second, err := r.hub.Commit("model", repoID, "main", "second", map[string][]byte{"config.json": []byte("{}")})
	if err != nil {
		r.t.Fatal(err)
	}
	r.pull(hub.PullOptions{})
	return r.head, second
}

func TestScanCache(t *testing.T) {
	r := newRig(t)
	if report := r.scan(); len(report.Repos) != 0 {
		t.Errorf("an empty cache has %v", report.Repos)
	}
	first, second := twoCommits(r)
	os.MkdirAll(filepath.Join(r.cache, "blobs"), 0o777)
	os.WriteFile(filepath.Join(r.cache, "blobs", ".huggingface-shared-blobs"), []byte("1\n"), 0o666)
	os.WriteFile(filepath.Join(r.cache, "stray"), nil, 0o666)
	report := r.scan()
	if len(report.Repos) != 1 || len(report.Repos[0].Revisions) != 2 || len(report.Warnings) != 1 {
		t.Fatalf("%+v", report)
	}
	var want int64 = 2 // the second config.json
	for name, data := range r.files {
		if name != "config.json" {
			want += int64(len(data))
		}
	}
	want += int64(len(`{"model_type": "vit"}`))
	if report.Size != want {
		t.Errorf("%d bytes; want %d, content of both revisions counted once", report.Size, want)
	}
	for _, rev := range report.Repos[0].Revisions {
		if (rev.Commit == second) != slices.Equal(rev.Refs, []string{"main"}) || rev.Commit != first && rev.Commit != second {
			t.Errorf("commit %s has refs %q", rev.Commit, rev.Refs)
		}
	}
}

func TestRemoveAndPrune(t *testing.T) {
	t.Run("a revision", func(t *testing.T) {
		r := newRig(t)
		first, _ := twoCommits(r)
		plan, err := r.scan().PlanRemoval(hub.Repo{Type: hub.Model, ID: repoID, Revision: first[:8]})
		if err != nil || plan.Freed != 21 {
			t.Fatalf("frees %d bytes, %v; want the 21 of the old config.json", plan.Freed, err)
		}
		if err := plan.Run(); err != nil {
			t.Fatal(err)
		}
		r.pull(hub.PullOptions{}, hub.WithOffline(true))
	})
	t.Run("a repository", func(t *testing.T) {
		r := newRig(t)
		twoCommits(r)
		plan, err := r.scan().PlanRemoval(hub.Repo{Type: hub.Model, ID: repoID})
		if err != nil || plan.Run() != nil || len(r.scan().Repos) != 0 {
			t.Errorf("%+v, %v", plan, err)
		}
	})
	t.Run("what is not there", func(t *testing.T) {
		r := newRig(t)
		r.pull(hub.PullOptions{})
		_, err := r.scan().PlanRemoval(hub.Repo{Type: hub.Model, ID: "acme/none"})
		wantErr(t, err, hub.ErrNotFound)
		_, err = r.scan().PlanRemoval(hub.Repo{Type: hub.Model, ID: repoID, Revision: "none"})
		wantErr(t, err, hub.ErrRevision)
	})
}

// TestSharedStore puts content where huggingface_hub 2 keeps what it got through
// Xet: in one place for all repositories, with links to it.
func TestSharedStore(t *testing.T) {
	r := newRig(t)
	first, _ := twoCommits(r)
	etag := lfsETag(r, "model.safetensors")
	blob := filepath.Join(r.cache, "models--acme--vit", "blobs", etag)
	payload := filepath.Join(r.cache, "blobs", "ab", strings.Repeat("ab", 32))
	os.MkdirAll(filepath.Dir(payload), 0o777)
	os.WriteFile(filepath.Join(r.cache, "blobs", ".huggingface-shared-blobs"), []byte("1\n"), 0o666)
	os.Rename(blob, payload)
	os.Chmod(payload, 0o444)
	os.Symlink("../../blobs/ab/"+filepath.Base(payload), blob)

	if snap := r.pull(hub.PullOptions{}); snap.Fetched != 0 {
		t.Errorf("fetched %d bytes that the shared store has", snap.Fetched)
	}
	if v, err := r.client().Verify(context.Background(), repo, ""); err != nil || len(v.Damaged)+len(v.Different)+len(v.Missing) != 0 {
		t.Errorf("%+v, %v", v, err)
	}
	if report := r.scan(); len(report.Warnings) != 0 || report.Size < 300_000 || report.Size > 301_000 {
		t.Errorf("%d bytes, warnings %v", report.Size, report.Warnings)
	}
	plan, err := r.scan().PlanRemoval(hub.Repo{Type: hub.Model, ID: repoID, Revision: first}, hub.Repo{Type: hub.Model, ID: repoID, Revision: "main"})
	if err == nil && len(plan.Repos) != 1 {
		t.Errorf("all revisions are the repository: %+v", plan)
	}
	if err != nil || plan.Run() != nil {
		t.Fatal(plan, err)
	}
	if _, err := os.Lstat(blob); err == nil {
		t.Error("the link to the shared content is still there")
	}
	if _, err := os.Stat(payload); err != nil {
		t.Error("the shared content is gone")
	}
}

func TestRemovalDuringPull(t *testing.T) {
	r := newRig(t)
	r.hub.Inject(hubtest.Fault{Method: "GET", Path: "/lfs/blob/", Times: 1, Do: hubtest.Slow(30_000, 10*time.Millisecond)})
	var once sync.Once
	c := r.client(hub.WithProgress(func(e hub.Event) {
		if e.File == "model.safetensors" && e.State == hub.Running {
			once.Do(func() {
				if plan, err := r.scan().PlanRemoval(hub.Repo{Type: hub.Model, ID: repoID}); err == nil {
					plan.Run()
				}
			})
		}
	}))
	if snap, err := c.Pull(context.Background(), repo, hub.PullOptions{}); err == nil {
		t.Logf("88 the pull went through: %s", snap.Dir)
	}
	for _, one := range r.scan().Repos {
		if len(one.Broken) > 0 {
			t.Errorf("88 entries that lead nowhere: %v", one.Broken)
		}
	}
	r.pull(hub.PullOptions{})
}

func TestVerify(t *testing.T) {
	r := newRig(t)
	snap := r.pull(hub.PullOptions{})
	verify := func(opts ...hub.Option) *hub.Verification {
		t.Helper()
		v, err := r.client(opts...).Verify(context.Background(), repo, "")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := verify(); v.Checked != len(r.files) || len(v.Damaged)+len(v.Different)+len(v.Missing)+len(v.Extra) != 0 {
		t.Errorf("a sound cache: %+v", v)
	}
	blob, _ := filepath.EvalSymlinks(filepath.Join(snap.Dir, "model.safetensors"))
	f, _ := os.OpenFile(blob, os.O_WRONLY, 0)
	f.WriteAt([]byte("x"), 1000)
	f.Close()
	os.Remove(filepath.Join(snap.Dir, "README.md"))
	os.Remove(filepath.Join(snap.Dir, "config.json"))
	os.Symlink("../../blobs/"+emptyETag, filepath.Join(snap.Dir, "config.json"))
	os.WriteFile(filepath.Join(snap.Dir, "notes"), nil, 0o666)
	for _, opts := range [][]hub.Option{nil, {hub.WithOffline(true)}} {
		v := verify(opts...)
		if len(v.Damaged) != 1 || v.Damaged[0].Name != "model.safetensors" || v.Damaged[0].Got == v.Damaged[0].Want ||
			len(v.Different) != 1 || v.Different[0].Name != "config.json" ||
			!slices.Equal(v.Missing, []string{"README.md"}) || !slices.Equal(v.Extra, []string{"notes"}) {
			t.Errorf("%+v", v)
		}
	}
	_, err := r.client().Verify(context.Background(), hub.Repo{ID: "acme/none"}, "")
	wantErr(t, err, hub.ErrRevision)

	dir := t.TempDir()
	r.pull(hub.PullOptions{LocalDir: dir})
	os.WriteFile(filepath.Join(dir, "config.json"), []byte("mine"), 0o666)
	v, err := r.client().Verify(context.Background(), repo, dir)
	if err != nil || len(v.Different) != 1 || len(v.Damaged) != 0 || len(v.Extra) != 0 {
		t.Errorf("local directory: %+v, %v", v, err)
	}
}

func TestTokenFiles(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HF_HOME", home)
	stored := filepath.Join(home, "stored_tokens")
	os.WriteFile(stored, []byte("[work]\nHF_Token: hf_workworkwork\nrefresh_token = keep\n\n"), 0o600)
	if err := hub.SaveToken(" hf_newnewnew\n", "laptop"); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, filepath.Join(home, "token")); got != "hf_newnewnew" {
		t.Errorf("token file %q", got)
	}
	if want := "[laptop]\nhf_token = hf_newnewnew\n\n[work]\nHF_Token: hf_workworkwork\nrefresh_token = keep\n\n"; mustRead(t, stored) != want {
		t.Errorf("stored_tokens %q; want %q", mustRead(t, stored), want)
	}
	if info, _ := os.Stat(filepath.Join(home, "token")); info.Mode().Perm() != 0o600 {
		t.Errorf("token file has mode %v", info.Mode())
	}
	c, err := hub.New()
	if err != nil || c.TokenSource() != filepath.Join(home, "token") {
		t.Errorf("token from %q, %v", c.TokenSource(), err)
	}
	t.Setenv("HF_TOKEN", "hf_environment")
	if c, _ := hub.New(); c.TokenSource() != "HF_TOKEN" {
		t.Errorf("token from %q", c.TokenSource())
	}
	if removed, err := hub.ForgetToken(); !removed || err != nil {
		t.Errorf("%v, %v", removed, err)
	}
	if want := "[work]\nHF_Token: hf_workworkwork\nrefresh_token = keep\n\n"; mustRead(t, stored) != want {
		t.Errorf("stored_tokens %q; want %q", mustRead(t, stored), want)
	}
	if removed, err := hub.ForgetToken(); removed || err != nil {
		t.Errorf("%v, %v", removed, err)
	}
	for token, name := range map[string]string{"": "x", "with space": "x", "hf_x": "default", "hf_y": "a]b"} {
		if err := hub.SaveToken(token, name); !errors.Is(err, hub.ErrInvalid) {
			t.Errorf("SaveToken(%q, %q) = %v", token, name, err)
		}
	}
}

func TestOptionsAndEnvironment(t *testing.T) {
	t.Setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
	t.Setenv("HF_TOKEN", "hf_environment")
	if c, err := hub.New(); err != nil || c.TokenSource() != "" {
		t.Errorf("token from %q, %v", c.TokenSource(), err)
	}
	for name, value := range map[string]string{"HF_ENDPOINT": "ftp://x", "HF_HUB_ETAG_TIMEOUT": "soon", "HF_OIDC_RESOURCE": "x"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			if _, err := hub.New(); !errors.Is(err, hub.ErrInvalid) {
				t.Errorf("New with %s=%s: %v", name, value, err)
			}
		})
	}
	t.Run("places", func(t *testing.T) {
		t.Setenv("HOME", "/home/ada")
		for _, tt := range []struct{ home, xdg, cache, want string }{
			{"", "", "", "/home/ada/.cache/huggingface/hub"},
			{"", "/xdg", "", "/xdg/huggingface/hub"},
			{"~/hf", "/xdg", "", "/home/ada/hf/hub"},
			{"/hf", "", "$HOME/c", "/home/ada/c"},
		} {
			t.Setenv("HF_HOME", tt.home)
			t.Setenv("XDG_CACHE_HOME", tt.xdg)
			t.Setenv("HF_HUB_CACHE", tt.cache)
			if c, err := hub.New(); err != nil || c.CacheDir() != tt.want {
				t.Errorf("%+v: cache %q, %v", tt, c.CacheDir(), err)
			}
		}
	})
	t.Run("no HOME", func(t *testing.T) { // as Python's expanduser: never a folder called ~
		for _, name := range []string{"HOME", "HF_HOME", "XDG_CACHE_HOME"} {
			t.Setenv(name, "")
		}
		if _, err := user.Current(); err == nil && !filepath.IsAbs(hub.Home()) {
			t.Errorf("the Hub's home is %q", hub.Home())
		}
	})
	if _, err := hub.New(hub.WithJobs(0), hub.WithLogger(nil)); !errors.Is(err, hub.ErrInvalid) || !strings.Contains(err.Error(), "jobs") || !strings.Contains(err.Error(), "logger") {
		t.Errorf("both bad options must be named: %v", err)
	}
}

func TestPackAndUnpack(t *testing.T) {
	r := newRig(t)
	r.hub.Commit("dataset", "acme/digits", "main", "first", map[string][]byte{"train.csv": []byte("1,2\n"), "same.json": r.files["config.json"]})
	repos := []hub.Repo{repo, {Type: hub.Dataset, ID: "acme/digits"}}
	var bundle, again bytes.Buffer
	lock, err := r.client().Pack(context.Background(), &bundle, repos, hub.PullOptions{})
	if err != nil || len(lock.Repos) != 2 {
		t.Fatalf("%+v, %v", lock, err)
	}
	if _, err := r.client().Pack(context.Background(), &again, repos, hub.PullOptions{}); err != nil || !bytes.Equal(bundle.Bytes(), again.Bytes()) {
		t.Errorf("packing twice gives other bytes, %v", err)
	}
	r.cache = filepath.Join(t.TempDir(), "elsewhere")
	r.hub.Forget()
	snaps, err := r.client(hub.WithOffline(true)).Unpack(context.Background(), bytes.NewReader(bundle.Bytes()))
	if err != nil || len(snaps) != 2 {
		t.Fatalf("%+v, %v", snaps, err)
	}
	r.pull(hub.PullOptions{}, hub.WithOffline(true))
	if got := mustRead(t, filepath.Join(snaps[1].Dir, "same.json")); got != string(r.files["config.json"]) {
		t.Errorf("same.json holds %q", got)
	}
}

func TestUnpackRefuses(t *testing.T) {
	r := newRig(t)
	var bundle bytes.Buffer
	if _, err := r.client().Pack(context.Background(), &bundle, []hub.Repo{repo}, hub.PullOptions{Include: []string{"*.json"}}); err != nil {
		t.Fatal(err)
	}
	// rewrite copies the bundle, with its lock and its contents changed.
	rewrite := func(lock func(*hub.Lock), content func([]byte) []byte, name func(string) string) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		in := tar.NewReader(bytes.NewReader(bundle.Bytes()))
		for {
			h, err := in.Next()
			if err != nil {
				break
			}
			data, _ := io.ReadAll(in)
			if h.Name == "hub.lock.json" {
				var l hub.Lock
				json.Unmarshal(data, &l)
				lock(&l)
				data, _ = json.Marshal(l)
			} else {
				data, h.Name = content(data), name(h.Name)
			}
			h.Size = int64(len(data))
			w.WriteHeader(h)
			w.Write(data)
		}
		w.Close()
		return out.Bytes()
	}
	keep, same, asIs := func(*hub.Lock) {}, func(b []byte) []byte { return b }, func(s string) string { return s }
	tests := []struct {
		name   string
		bundle []byte
	}{
		{"nothing", nil},
		{"something else", []byte("not a tar file at all")},
		{"cut", bundle.Bytes()[:1540]},
		{"other content", rewrite(keep, func(b []byte) []byte { b[0] ^= 1; return b }, asIs)},
		{"longer content", rewrite(keep, func(b []byte) []byte { return append(b, 1) }, asIs)},
		{"content that the lock does not name", rewrite(keep, same, func(string) string { return "blobs/x" })},
		{"entry that leads out", rewrite(keep, same, func(string) string { return "../../x" })},
		{"name that leads out", rewrite(func(l *hub.Lock) { l.Repos[0].Files[0].Path = "../../../x" }, same, asIs)},
		{"repository that leads out", rewrite(func(l *hub.Lock) { l.Repos[0].ID = "../x" }, same, asIs)},
		{"revision that leads out", rewrite(func(l *hub.Lock) { l.Repos[0].Revision = "../../x" }, same, asIs)},
		{"commit that is none", rewrite(func(l *hub.Lock) { l.Repos[0].Commit = "../x" }, same, asIs)},
		{"content missing", rewrite(func(l *hub.Lock) {
			l.Repos[0].Files = append(l.Repos[0].Files, hub.LockedFile{Path: "more", Size: 1, ETag: strings.Repeat("a", 40)})
		}, same, asIs)},
		{"newer format", rewrite(func(l *hub.Lock) { l.Version = 99 }, same, asIs)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &rig{t: t, hub: r.hub, url: r.url, cache: filepath.Join(t.TempDir(), "hub"), log: &logBuffer{}, files: r.files}
			_, err := r.client(hub.WithOffline(true)).Unpack(context.Background(), bytes.NewReader(tt.bundle))
			wantErr(t, err, hub.ErrDamaged)
			if _, err := os.Stat(filepath.Join(r.cache, "models--acme--vit", "refs", "main")); err == nil {
				t.Error("the ref was written")
			}
			if left := r.incomplete(); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}
