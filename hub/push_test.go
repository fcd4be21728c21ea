package hub_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hubtool/hubtool/hub"
)

// folder writes files below a new directory.
func folder(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPushCreatesAndThenSendsOnlyWhatChanged(t *testing.T) {
	r := newRig(t)
	files := map[string][]byte{
		"README.md": []byte("# adapter\n"), "empty": {}, "sub/adapter.safetensors": blobOf(2, 200_000), "a b%.txt": []byte("x"),
	}
	dir := folder(t, files)
	to := hub.Repo{ID: "acme/adapter"}
	first, err := r.client().Push(context.Background(), to, dir, hub.PushOptions{Private: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got, err := r.hub.Read("model", "acme/adapter", "main", name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes on the Hub, error %v; want %d", name, len(got), err, len(want))
		}
	}
	if first.URL != r.url+"/acme/adapter/commit/"+first.OID || len(first.Uploaded) != 4 {
		t.Errorf("result %+v", first)
	}

	r.hub.Forget()
	again, err := r.client().Push(context.Background(), to, dir, hub.PushOptions{})
	if err != nil || again.OID != first.OID || len(again.Skipped) != 4 || again.Sent != 0 {
		t.Errorf("70 pushing the same again: %+v, %v", again, err)
	}
	if r.hub.Count("POST", "/commit/") != 0 || r.hub.Count("POST", "/batch") != 0 {
		t.Error("an unchanged push asked for LFS or made a commit")
	}

	os.WriteFile(filepath.Join(dir, "README.md"), []byte("# better\n"), 0o666)
	third, err := r.client().Push(context.Background(), to, dir, hub.PushOptions{Delete: []string{"a *", "README.md"}, Exclude: []string{"a b*"}})
	if err != nil || !slices.Equal(third.Uploaded, []string{"README.md"}) || !slices.Equal(third.Deleted, []string{"a b%.txt"}) {
		t.Errorf("third push: %+v, %v", third, err)
	}
	left, _ := r.hub.Files("model", "acme/adapter", "main")
	if !slices.Equal(left, []string{"README.md", "empty", "sub/adapter.safetensors"}) {
		t.Errorf("on the Hub: %v", left)
	}
}

func TestPushPullRequest(t *testing.T) {
	r := newRig(t)
	dir := folder(t, map[string][]byte{"new.txt": []byte("new")})
	got, err := r.client().Push(context.Background(), repo, dir, hub.PushOptions{CreatePR: true, Message: "try"})
	if err != nil || got.PullRequest != r.url+"/acme/vit/discussions/1" {
		t.Fatalf("%+v, %v", got, err)
	}
	if head, _ := r.hub.Head("model", repoID, "main"); head != r.head {
		t.Error("main moved")
	}
	if data, err := r.hub.Read("model", repoID, "refs/pr/1", "new.txt"); err != nil || string(data) != "new" {
		t.Errorf("on the pull request: %q, %v", data, err)
	}
}

func TestPushInParts(t *testing.T) {
	r := newRig(t)
	dir := folder(t, map[string][]byte{"big.bin": blobOf(3, 2_500_000)})
	_, err := r.client().Push(context.Background(), repo, dir, hub.PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
}
