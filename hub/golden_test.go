package hub_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubtest"
)

// TestWritesWhatPythonWrites compares with files that huggingface_hub wrote; see
// testdata/make_golden.py.
func TestWritesWhatPythonWrites(t *testing.T) {
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Cache  map[string]string `json:"cache"`
		Local  map[string]string `json:"local"`
		Token  string            `json:"token"`
		Stored string            `json:"stored_tokens"`
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, hubtest.WithRegularLimit(10_000_000))
	r.files = map[string][]byte{
		"README.md":     []byte("# golden\n"),
		"sub/empty.txt": {},
		"sub/deeper/\u00fcn\u00ef \U0001f600 <&>.txt": []byte("names are bytes"),
		"big.bin": []byte(strings.Repeat("x", 11_000_000)),
	}
	commit, err := r.hub.Commit("model", "acme/golden", "main", "golden", r.files)
	if err != nil {
		t.Fatal(err)
	}
	local := t.TempDir()
	for _, opts := range []hub.PullOptions{{}, {LocalDir: local}} {
		if _, err := r.client().Pull(t.Context(), hub.Repo{ID: "acme/golden"}, opts); err != nil {
			t.Fatal(err)
		}
	}
	compare(t, "cache", tree(t, r.cache, commit), golden.Cache)
	compare(t, "local directory", tree(t, local, commit), golden.Local)

	home := t.TempDir()
	t.Setenv("HF_HOME", home)
	if err := hub.SaveToken(golden.Token, "hubtool"); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, filepath.Join(home, "token")); got != golden.Token {
		t.Errorf("token %q; Python writes %q", got, golden.Token)
	}
	if got := mustRead(t, filepath.Join(home, "stored_tokens")); got != golden.Stored {
		t.Errorf("stored_tokens %q; Python writes %q", got, golden.Stored)
	}
}

func compare(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for name, w := range want {
		if g, ok := got[name]; !ok || g != w {
			t.Errorf("%s: %s is %q; Python writes %q", what, name, g, w)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %s is there; Python does not write it", what, name)
		}
	}
}

var unixTime = regexp.MustCompile(`\d{10}\.\d+`)

// tree describes a directory as make_golden.py does.
func tree(t *testing.T, dir, commit string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		name := strings.ReplaceAll(filepath.ToSlash(rel), commit, "COMMIT")
		if target, err := os.Readlink(path); err == nil {
			found[name] = "-> " + target
			return nil
		}
		if found[name] = ""; strings.HasSuffix(name, ".lock") {
			return err
		}
		data := mustRead(t, path)
		if len(data) >= 10_000 {
			data = fmt.Sprintf("%d bytes", len(data))
		}
		found[name] = unixTime.ReplaceAllString(strings.ReplaceAll(data, commit, "COMMIT"), "TIME")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
