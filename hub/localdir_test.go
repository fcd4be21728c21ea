package hub_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubtest"
)

func TestLocalDirKeepsPythonsRecords(t *testing.T) {
	r := newRig(t)
	dir := filepath.Join(t.TempDir(), "vit")
	snap := r.pull(hub.PullOptions{LocalDir: dir})
	if snap.Dir != dir {
		t.Errorf("directory %s; want %s", snap.Dir, dir)
	}
	meta := filepath.Join(dir, ".cache", "huggingface")
	ignore, _ := os.ReadFile(filepath.Join(meta, ".gitignore"))
	record, _ := os.ReadFile(filepath.Join(meta, "download", "sub", "empty.txt.metadata"))
	if want := regexp.MustCompile(`^` + r.head + "\n" + emptyETag + `\n\d+\.\d+\n$`); string(ignore) != "*" || !want.Match(record) {
		t.Errorf(".gitignore %q, record %q", ignore, record)
	}
	if _, err := os.Stat(r.cache); err == nil {
		t.Error("the cache was filled as well")
	}
	r.hub.Forget()
	if again := r.pull(hub.PullOptions{LocalDir: dir}); again.Fetched != 0 || r.hub.Count("", "/resolve/") != 0 {
		t.Errorf("fetched %d bytes again", again.Fetched)
	}
	left, _ := filepath.Glob(filepath.Join(meta, "download", "*incomplete"))
	if len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestLocalDirStates(t *testing.T) {
	edit := func(path string) {
		os.WriteFile(path, []byte(`{"model_type": "mine"}`), 0o666)
		later := time.Now().Add(10 * time.Second)
		os.Chtimes(path, later, later)
	}
	tests := []struct {
		name  string
		do    func(r *rig, path string) // between two pulls
		force bool
		kept  bool
		want  string
	}{
		{"62 edited by the user", func(_ *rig, path string) { edit(path) }, false, true, `{"model_type": "mine"}`},
		{"62 edited by the user, forced", func(_ *rig, path string) { edit(path) }, true, false, `{"model_type": "vit"}`},
		{"62 edited at once, to another size", func(_ *rig, path string) { os.WriteFile(path, []byte("mine"), 0o666) }, false, true, "mine"},
		{"62 edited at once, to the same size", func(_ *rig, path string) { os.WriteFile(path, []byte(`{"model_type": "abc"}`), 0o666) }, false, true, `{"model_type": "abc"}`},
		{"62 edited at once, on a file system without fractions of seconds", func(_ *rig, path string) {
			os.WriteFile(path, []byte(`{"model_type": "abc"}`), 0o666)
			second := time.Now().Truncate(time.Second)
			os.Chtimes(path, second, second)
		}, false, true, `{"model_type": "abc"}`},
		{"62 edited at once, new version on the Hub", func(r *rig, path string) {
			os.WriteFile(path, []byte("mine"), 0o666)
			r.hub.Commit("model", repoID, "main", "second", map[string][]byte{"config.json": []byte("{}")})
		}, false, true, "mine"},
		{"61 the clock jumped", func(_ *rig, path string) {
			later := time.Now().AddDate(1, 0, 0)
			os.Chtimes(path, later, later)
		}, false, false, `{"model_type": "vit"}`},
		{"records lost", func(_ *rig, path string) { os.RemoveAll(filepath.Join(filepath.Dir(path), ".cache")) }, false, false, `{"model_type": "vit"}`},
		{"file lost", func(_ *rig, path string) { os.Remove(path) }, false, false, `{"model_type": "vit"}`},
		{"new version on the Hub", func(r *rig, _ string) {
			r.files["config.json"] = []byte(`{"model_type": "deit"}`)
			r.hub.Commit("model", repoID, "main", "second", map[string][]byte{"config.json": r.files["config.json"]})
		}, false, false, `{"model_type": "deit"}`},
		{"new version on the Hub of an edited file", func(r *rig, path string) {
			edit(path)
			r.hub.Commit("model", repoID, "main", "second", map[string][]byte{"config.json": []byte("{}")})
		}, false, true, `{"model_type": "mine"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			dir := t.TempDir()
			opts := hub.PullOptions{LocalDir: dir, Files: []string{"config.json"}}
			r.pull(opts)
			path := filepath.Join(dir, "config.json")
			tt.do(r, path)
			opts.Force = tt.force
			snap := r.pull(opts)
			got, _ := os.ReadFile(path)
			if string(got) != tt.want || snap.Files[0].Kept != tt.kept {
				t.Errorf("content %s, kept %v; want %s, %v", got, snap.Files[0].Kept, tt.want, tt.kept)
			}
		})
	}
}

func TestLocalDirOffline(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	r.pull(hub.PullOptions{LocalDir: dir})
	if snap := r.pull(hub.PullOptions{LocalDir: dir}, hub.WithOffline(true)); snap.Commit != r.head {
		t.Errorf("commit %s; want %s", snap.Commit, r.head)
	}
	os.Remove(filepath.Join(dir, "config.json"))
	_, err := r.client(hub.WithOffline(true)).Pull(context.Background(), repo, hub.PullOptions{LocalDir: dir})
	wantErr(t, err, hub.ErrOffline, "config.json")
}

func TestLocalDirCopiesFromTheCache(t *testing.T) {
	r := newRig(t)
	r.pull(hub.PullOptions{})
	r.hub.Forget()
	snap := r.pull(hub.PullOptions{LocalDir: t.TempDir()})
	if snap.Fetched != 0 || r.hub.Count("", "/resolve/") != 0 {
		t.Errorf("fetched %d bytes that the cache has", snap.Fetched)
	}
}

func TestLocalDirLinksDoNotLeadOut(t *testing.T) {
	tests := []struct{ name, link string }{
		{"41 a folder", "sub"},
		{"41 the records", ".cache"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			dir, outside := t.TempDir(), t.TempDir()
			if err := os.Symlink(outside, filepath.Join(dir, tt.link)); err != nil {
				t.Fatal(err)
			}
			_, err := r.client().Pull(context.Background(), repo, hub.PullOptions{LocalDir: dir})
			wantErr(t, err, hub.ErrDamaged, "leads out")
			if entries, _ := os.ReadDir(outside); len(entries) > 0 {
				t.Errorf("written outside: %v", entries)
			}
		})
	}
	t.Run("42 a file", func(t *testing.T) {
		r := newRig(t)
		dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "precious")
		os.WriteFile(outside, []byte("precious"), 0o666)
		os.Symlink(outside, filepath.Join(dir, "config.json"))
		r.pull(hub.PullOptions{LocalDir: dir, Force: true})
		if got, _ := os.ReadFile(outside); string(got) != "precious" {
			t.Errorf("the link's target now holds %q", got)
		}
	})
}

func TestLocalDirResumes(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	r.hub.Inject(hubtest.Fault{Method: "GET", Path: "/lfs/blob/", Times: 1, Do: hubtest.Cut(100_000)})
	r.hub.Inject(hubtest.Fault{Method: "GET", Path: "/lfs/blob/", Do: hubtest.Cut(0)})
	opts := hub.PullOptions{LocalDir: dir, Files: []string{"model.safetensors"}}
	_, err := r.client().Pull(context.Background(), repo, opts)
	wantErr(t, err, hub.ErrNetwork)
	if _, err := os.Stat(filepath.Join(dir, "model.safetensors")); err == nil {
		t.Error("half a file has the final name")
	}
	r.hub.Forget()
	snap := r.pull(opts)
	if snap.Fetched != 200_000 {
		t.Errorf("fetched %d bytes; want the missing 200000", snap.Fetched)
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".cache", "huggingface", "download", "*"))
	for _, name := range left {
		if strings.HasSuffix(name, ".incomplete") {
			t.Errorf("left over: %s", name)
		}
	}
	if !bytes.Equal(r.files["model.safetensors"][:4], []byte(mustRead(t, filepath.Join(dir, "model.safetensors")))[:4]) {
		t.Error("content differs")
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
