package hub_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubtest"
)

// limitFiles bounds the size of files of this process, where the environment says so.
var limitFiles func()

// pullAsChild is the process that gets killed: it pulls, and says when bytes move.
func pullAsChild() {
	if limitFiles != nil {
		limitFiles()
	}
	c, err := hub.New(hub.WithProgress(func(e hub.Event) {
		if e.File == "model.safetensors" && e.State == hub.Running {
			fmt.Println("running", e.Done)
		}
	}))
	if err == nil {
		_, err = c.Pull(context.Background(), repo, hub.PullOptions{})
	}
	fmt.Println("end", err)
}

func TestKilledPullResumes(t *testing.T) {
	r := newRig(t)
	r.hub.Inject(hubtest.Fault{Method: "GET", Path: "/lfs/blob/", Times: 1, Do: hubtest.Slow(1000, 5*time.Millisecond)})
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "HUBTOOL_TEST_PULL=1", "HF_ENDPOINT="+r.url, "HF_HUB_CACHE="+r.cache, "HF_TOKEN="+token)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; n < 3 && lines.Scan(); n++ {
	}
	child.Process.Kill()
	child.Wait()
	left := r.incomplete()
	if len(left) != 1 {
		t.Fatalf("the killed process left %v; want one file", left)
	}
	info, err := os.Stat(filepath.Join(r.cache, "models--acme--vit", "blobs", left[0]))
	if err != nil || info.Size() == 0 {
		t.Fatalf("nothing to resume: %v, %v", info, err)
	}
	r.hub.Forget()
	snap := r.pull(hub.PullOptions{})
	for _, f := range snap.Files {
		if f.Name == "model.safetensors" && f.Fetched != f.Size-info.Size() {
			t.Errorf("fetched %d bytes of %d with %d there already", f.Fetched, f.Size, info.Size())
		}
	}
	if left := r.incomplete(); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestResumeOfWhatAnotherRunLeft plants the files that dead processes leave.
func TestResumeOfWhatAnotherRunLeft(t *testing.T) {
	tests := []struct {
		name    string
		content func(whole []byte) []byte
		file    string // after the ETag
		fetched int64
	}{
		{"33 everything but the rename", func(b []byte) []byte { return b }, ".0123abcd.incomplete", 0},
		{"32 half", func(b []byte) []byte { return b[:150_000] }, ".0123abcd.incomplete", 150_000},
		{"32 half, under the name of older clients", func(b []byte) []byte { return b[:150_000] }, ".incomplete", 150_000},
		{"34 tampered with", func(b []byte) []byte { c := append([]byte{b[0] ^ 1}, b[1:150_000]...); return c }, ".0123abcd.incomplete", 450_000},
		{"longer than the whole", func(b []byte) []byte { return append(append([]byte{}, b...), 1) }, ".0123abcd.incomplete", 300_000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			etag := lfsETag(r, "model.safetensors")
			dir := filepath.Join(r.cache, "models--acme--vit", "blobs")
			os.MkdirAll(dir, 0o777)
			os.WriteFile(filepath.Join(dir, etag+tt.file), tt.content(r.files["model.safetensors"]), 0o666)
			os.WriteFile(filepath.Join(dir, etag+".ffffffff.incomplete"), []byte("x"), 0o666) // a smaller one: dropped
			snap := r.pull(hub.PullOptions{Files: []string{"model.safetensors"}})
			if got := snap.Fetched; got != tt.fetched {
				t.Errorf("fetched %d bytes; want %d", got, tt.fetched)
			}
			if left := r.incomplete(); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

// lfsETag is a file's SHA-256 as the Hub lists it.
func lfsETag(r *rig, name string) string {
	for f, err := range r.client().Files(context.Background(), repo) {
		if err == nil && f.Path == name {
			return f.ETag()
		}
	}
	r.t.Fatal("no such file: " + name)
	return ""
}

func TestInterruptedPullKeepsItsBytes(t *testing.T) {
	r := newRig(t)
	r.hub.Inject(hubtest.Fault{Method: "GET", Path: "/lfs/blob/", Do: hubtest.Stall(100_000, time.Minute)})
	ctx, cancel := context.WithCancel(context.Background())
	c := r.client(hub.WithProgress(func(e hub.Event) {
		if e.File == "model.safetensors" && e.Done > 0 {
			cancel()
		}
	}))
	start := time.Now()
	_, err := c.Pull(ctx, repo, hub.PullOptions{})
	wantErr(t, err, context.Canceled)
	if time.Since(start) > 5*time.Second || len(r.incomplete()) != 1 {
		t.Errorf("63 took %v, kept %v", time.Since(start), r.incomplete())
	}
	r.hub.Forget()
	if snap := r.pull(hub.PullOptions{Include: []string{"model*"}}); snap.Fetched >= 300_000 {
		t.Errorf("fetched %d bytes again", snap.Fetched)
	}
	if strings.Contains(err.Error(), "network") {
		t.Errorf("an interruption is not a network failure: %v", err)
	}
}
