package hub_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
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

const weights = "model.safetensors"

func (r *rig) open(name string, copts ...hub.Option) (*hub.Remote, *hub.RemoteFile) {
	r.t.Helper()
	remote, err := r.client(copts...).Remote(r.t.Context(), repo)
	if err != nil {
		r.t.Fatal(err)
	}
	f, err := remote.Open(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return remote, f
}

// The first read near the beginning brings what a header needs; no byte comes twice, and the
// address that the Hub redirects to is asked from then on.
func TestRemoteFile(t *testing.T) {
	r := newRig(t)
	remote, f := r.open(weights, hub.WithParallelRanges(64<<20, 100_000))
	want := r.files[weights]
	first := make([]byte, 8)
	if _, err := f.ReadAt(first, 0); err != nil || !bytes.Equal(first, want[:8]) {
		t.Fatalf("%x, %v", first, err)
	}
	got := make([]byte, len(want)-8)
	if _, err := f.ReadAt(got, 8); err != nil || !bytes.Equal(got, want[8:]) {
		t.Fatalf("the rest differs: %v", err)
	}
	if n, err := f.ReadAt(got[:20], f.Size-10); n != 10 || !errors.Is(err, io.EOF) || !bytes.Equal(got[:10], want[len(want)-10:]) {
		t.Errorf("at the end %d bytes, %v", n, err)
	}
	if n, err := f.ReadAt(got[:1], f.Size+1); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("behind the end %d bytes, %v", n, err)
	}
	if n := remote.Fetched(); n != f.Size+10 {
		t.Errorf("fetched %d of %d bytes", n, f.Size)
	}
	if n := r.hub.Count("GET", "/resolve/"); n != 1 {
		t.Errorf("the Hub was asked %d times for the address", n)
	}
	for _, q := range r.hub.Requests() {
		if q.Header.Get("Authorization") != "" && !strings.HasPrefix(r.url, "http://"+q.Host) {
			t.Errorf("the token went to %s", q.Host)
		}
	}
	small, err := remote.Open(t.Context(), "config.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(io.NewSectionReader(small, 0, small.Size))
	if err != nil || !bytes.Equal(text, r.files["config.json"]) {
		t.Errorf("config.json is %q, %v", text, err)
	}
	if _, err := remote.Open(t.Context(), "nothing"); err == nil {
		t.Error("a file that does not exist was opened")
	} else {
		wantErr(t, err, hub.ErrEntry, "nothing")
	}
	if blobs := r.blobs(); len(blobs) > 0 {
		t.Errorf("reading stored %v", blobs)
	}
}

func TestRemoteCached(t *testing.T) {
	r := newRig(t)
	remote, _ := r.open(weights)
	if _, ok := remote.Cached(weights); ok {
		t.Error("the cache has what was never pulled")
	}
	snap := r.pull(hub.PullOptions{Files: []string{weights}})
	if path, ok := remote.Cached(weights); !ok || path != filepath.Join(snap.Dir, weights) {
		t.Errorf("cached in %q, %v", path, ok)
	}
	_, err := r.client(hub.WithOffline(true)).Remote(t.Context(), repo)
	wantErr(t, err, hub.ErrOffline)
}

// expired refuses an address that is used again; the Hub's redirect leads to it with a Referer.
func expired(w http.ResponseWriter, r *http.Request, h http.Handler) {
	if r.Header.Get("Referer") == "" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	h.ServeHTTP(w, r)
}

// Readers that ask for many ranges at the same time get them all, whatever happens to some.
func TestRemoteFileFaults(t *testing.T) {
	const cdn = "/lfs/blob/"
	other := func(headers ...string) []hubtest.Fault {
		return []hubtest.Fault{{Method: "GET", Path: cdn, Skip: 2, Do: hubtest.Headers(headers...)}}
	}
	tests := []struct {
		name   string
		faults []hubtest.Fault
		want   error
		text   string
	}{
		{name: "cut inside ranges", faults: []hubtest.Fault{{Method: "GET", Path: cdn, Skip: 1, Times: 3, Do: hubtest.Cut(1000)}}},
		{name: "503 and 500", faults: []hubtest.Fault{{Method: "GET", Path: cdn, Skip: 1, Times: 2, Do: hubtest.Status(503)},
			{Method: "GET", Path: cdn, Skip: 2, Times: 2, Do: hubtest.Status(500)}}},
		{name: "silence", faults: []hubtest.Fault{{Method: "GET", Path: cdn, Skip: 2, Times: 1, Do: hubtest.Stall(500, 10*time.Second)}}},
		{name: "the address expires under all readers", faults: []hubtest.Fault{{Method: "GET", Path: cdn, Skip: 2, Do: expired}}},
		{name: "broken connections for ever", faults: []hubtest.Fault{{Method: "GET", Path: cdn, Skip: 1, Do: hubtest.Hang()}}, want: hub.ErrNetwork},
		{name: "no right to read any more", faults: []hubtest.Fault{{Method: "GET", Path: cdn, Skip: 2, Do: hubtest.Status(403)}}, want: hub.ErrAuth},
		{name: "ranges are ignored", faults: []hubtest.Fault{{Method: "GET", Path: cdn, Do: hubtest.NoRanges()}}, want: hub.ErrNoRanges},
		{name: "another range", faults: []hubtest.Fault{{Method: "GET", Path: cdn, Skip: 1, Do: hubtest.Range("bytes=5-9")}}, want: hub.ErrNoRanges},
		{name: "another ETag", faults: other("ETag", `"another"`), want: hub.ErrChanged, text: "another"},
		{name: "another size", faults: other("Content-Range", "bytes 150000-199999/299999"), want: hub.ErrChanged, text: "299999"},
		{name: "the Hub names another content", want: hub.ErrChanged, text: "0123",
			faults: []hubtest.Fault{{Method: "GET", Path: "/resolve/", Do: hubtest.Headers("X-Linked-Etag", `"0123"`)}}},
		{name: "another content of the same kind from the beginning", want: hub.ErrChanged,
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Do: hubtest.Headers("ETag", `"`+strings.Repeat("a", 64)+`"`)}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for _, fault := range tt.faults {
				r.hub.Inject(fault)
			}
			_, f := r.open(weights)
			got := make([]byte, f.Size)
			_, first := f.ReadAt(got[:100], 0)
			var wg sync.WaitGroup
			var once sync.Once
			var err error
			for from := 100; from < len(got) && first == nil; from += 50_000 {
				part := got[from:min(from+50_000, len(got))]
				wg.Go(func() {
					if _, failed := f.ReadAt(part, int64(from)); failed != nil {
						once.Do(func() { err = failed })
					}
				})
				if from == 100 {
					wg.Wait() // the order of the first requests is that of the faults
				}
			}
			wg.Wait()
			if first != nil {
				err = first
			}
			if tt.want != nil {
				wantErr(t, err, tt.want, tt.text)
				return
			}
			if err != nil || !bytes.Equal(got, r.files[weights]) {
				t.Errorf("content differs, or %v", err)
			}
		})
	}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Files go one by one, are gone from the disk before the commit, and a second run sends none of them.
func TestDraft(t *testing.T) {
	r := newRig(t)
	target := hub.Repo{ID: "acme/merged"}
	shards := map[string][]byte{"a.safetensors": blobOf(7, 5000), "b.safetensors": blobOf(8, 500)}
	rest := folder(t, map[string][]byte{"config.json": []byte("{}"), "README.md": []byte("# merged\n"), "tokenizer.json": blobOf(9, 2000)})
	put := func(d *hub.Draft, name string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "shard")
		if err := os.WriteFile(path, shards[name], 0o644); err != nil {
			t.Fatal(err)
		}
		if err := d.Put(t.Context(), name, digest(shards[name]), path); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	draft := func() *hub.Draft {
		t.Helper()
		d, err := r.client().Draft(t.Context(), target, hub.PushOptions{Message: "Merge", Private: true})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	has := func(d *hub.Draft, name string, want bool) {
		t.Helper()
		if got, err := d.Has(t.Context(), name, digest(shards[name]), int64(len(shards[name]))); err != nil || got != want {
			t.Fatalf("has %s: %v, %v", name, got, err)
		}
	}
	d := draft()
	has(d, "a.safetensors", false)
	put(d, "a.safetensors")

	d = draft() // another process
	has(d, "a.safetensors", true)
	has(d, "b.safetensors", false)
	put(d, "b.safetensors")
	if head, err := r.hub.Files("model", target.ID, "main"); err != nil || slices.Contains(head, "a.safetensors") {
		t.Errorf("before the commit there is %q, %v", head, err)
	}
	commit, err := d.Commit(t.Context(), rest)
	if err != nil {
		t.Fatal(err)
	}
	if len(commit.Uploaded) != 5 || commit.Sent != 500+2000+2+9 || commit.URL != r.url+"/acme/merged/commit/"+commit.OID {
		t.Errorf("%+v", commit)
	}
	for name, data := range shards {
		if got, err := r.hub.Read("model", target.ID, commit.OID, name); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s differs, %v", name, err)
		}
	}
	d = draft()
	has(d, "a.safetensors", true)
	has(d, "b.safetensors", true)
	again, err := d.Commit(t.Context(), rest)
	if err != nil || again.OID != commit.OID || len(again.Uploaded) != 0 || len(again.Skipped) != 5 {
		t.Errorf("second commit %+v, %v", again, err)
	}
}

func TestDraftRefused(t *testing.T) {
	r := newRig(t)
	if _, err := r.client(hub.WithToken("hf_wrongwrongwrong")).Draft(context.Background(), repo, hub.PushOptions{}); err == nil {
		t.Error("a token that may not write got a draft")
	} else {
		wantErr(t, err, hub.ErrAuth)
	}
	if n := r.hub.Count(http.MethodPost, "/commit/"); n != 0 {
		t.Errorf("%d commits", n)
	}
	_, err := r.client().Draft(context.Background(), repo, hub.PushOptions{Exclude: []string{"*.bin"}})
	wantErr(t, err, hub.ErrInvalid)
}
