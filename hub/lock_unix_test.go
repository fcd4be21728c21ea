//go:build !windows

package hub_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/hub"
	"golang.org/x/sys/unix"
)

func TestLockHeldForever(t *testing.T) {
	r := newRig(t)
	dir := filepath.Join(r.cache, ".locks", "models--acme--vit")
	os.MkdirAll(dir, 0o777)
	f, err := os.Create(filepath.Join(dir, lfsETag(r, "model.safetensors")+".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	waited := false
	c := r.client(hub.WithProgress(func(e hub.Event) {
		if e.State == hub.Waiting {
			waited = true
			cancel()
		}
	}))
	_, err = c.Pull(ctx, repo, hub.PullOptions{})
	wantErr(t, err, context.Canceled)
	if !waited || !strings.Contains(r.log.String(), "another process") {
		t.Error("38 nobody was told about the wait")
	}
}

func TestPruneKeepsWhatIsBeingDownloaded(t *testing.T) {
	r := newRig(t)
	first, _ := twoCommits(r)
	blobs := filepath.Join(r.cache, "models--acme--vit", "blobs")
	dead, live := filepath.Join(blobs, "aa.00000000.incomplete"), filepath.Join(blobs, "bb.00000000.incomplete")
	os.WriteFile(dead, []byte("dead"), 0o666)
	f, err := os.Create(live)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unix.Flock(int(f.Fd()), unix.LOCK_EX)
	plan := r.scan().PlanPrune()
	if len(plan.Revisions) != 1 || !strings.Contains(plan.Revisions[0], first) || plan.Freed != 21+4 {
		t.Errorf("%+v", plan)
	}
	if err := plan.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); err == nil {
		t.Error("the abandoned file is still there")
	}
	if _, err := os.Stat(live); err != nil {
		t.Error("a file that a process was writing is gone")
	}
	r.pull(hub.PullOptions{}, hub.WithOffline(true))
	if !r.scan().PlanPrune().Empty() {
		t.Error("there is more to prune")
	}
}
