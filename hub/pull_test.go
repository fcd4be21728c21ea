package hub_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/hubtool/hubtool/hub"
)

func TestPullWritesPythonsCacheLayout(t *testing.T) {
	r := newRig(t)
	snap := r.pull(hub.PullOptions{})
	if snap.Commit != r.head || len(snap.Files) != len(r.files) {
		t.Fatalf("commit %s with %d files; want %s with %d", snap.Commit, len(snap.Files), r.head, len(r.files))
	}
	base := filepath.Join(r.cache, "models--acme--vit")
	ref, _ := os.ReadFile(filepath.Join(base, "refs", "main"))
	if string(ref) != r.head {
		t.Errorf("refs/main holds %q; want the bare commit", ref)
	}
	link, err := os.Readlink(filepath.Join(base, "snapshots", r.head, "sub", "empty.txt"))
	if want := "../../../blobs/e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"; err != nil || link != want {
		t.Errorf("45 link of an empty file %q, %v; want %q", link, err, want)
	}
	if _, err := os.Stat(filepath.Join(base, "trees", r.head+".json")); err != nil {
		t.Error(err)
	}
	if left := r.incomplete(); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	r.hub.Forget()
	again := r.pull(hub.PullOptions{})
	if n := len(r.hub.Requests()); n != 1 || again.Fetched != 0 {
		t.Errorf("a second pull made %d requests and fetched %d bytes; want 1 and 0", n, again.Fetched)
	}
	r.hub.Forget()
	if _, err := r.client().Pull(context.Background(), hub.Repo{ID: repoID, Revision: r.head}, hub.PullOptions{}); err != nil || len(r.hub.Requests()) != 0 {
		t.Errorf("pulling a cached commit made %d requests, error %v; want none", len(r.hub.Requests()), err)
	}
}
