package hub_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubtest"
)

// What a server may do to a download, and what must come of it. Numbers are those
// of the list of faults that the client was designed against.
func TestDownloadFaults(t *testing.T) {
	const cdn = "/lfs/blob/"
	const small = "config.json"
	gz := func(b []byte) []byte {
		var buf bytes.Buffer
		w := gzip.NewWriter(&buf)
		w.Write(b)
		w.Close()
		return buf.Bytes()
	}
	tests := []struct {
		name   string
		faults []hubtest.Fault
		want   error  // nil: the pull succeeds
		text   string // in the error
		check  func(t *testing.T, r *rig)
	}{
		{name: "01 body cut, ranges served: the rest is fetched from the exact byte",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Times: 1, Do: hubtest.Cut(100_000)}},
			check: func(t *testing.T, r *rig) {
				var ranges []string
				for _, q := range r.hub.Requests() {
					if strings.Contains(q.Path, cdn) {
						ranges = append(ranges, q.Header.Get("Range"))
					}
				}
				if len(ranges) != 2 || ranges[1] != "bytes=100000-" {
					t.Errorf("ranges %q", ranges)
				}
			}},
		{name: "02 cut on every try with progress: goes on",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Times: 9, Do: hubtest.Cut(30_000)}}},
		{name: "02 cut on every try without progress: gives up and keeps what came",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Times: 1, Do: hubtest.Cut(30_000)}, {Method: "GET", Path: cdn, Do: hubtest.Cut(0)}},
			want:   hub.ErrNetwork,
			check: func(t *testing.T, r *rig) {
				if left := r.incomplete(); len(left) != 1 {
					t.Errorf("kept %v; want one file to resume", left)
				}
			}},
		{name: "02 hardly any progress on every try: gives up",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Do: hubtest.Cut(10)}}, want: hub.ErrNetwork},
		{name: "03 server ignores Range",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Times: 1, Do: hubtest.Cut(100_000)}, {Method: "GET", Path: cdn, Do: hubtest.NoRanges()}}},
		{name: "04 another range than asked for",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Times: 1, Do: hubtest.Cut(100_000)}, {Method: "GET", Path: cdn, Times: 1, Do: hubtest.Range("bytes=5-")}}},
		{name: "04 a total other than the size",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Times: 1, Do: hubtest.Cut(100_000)},
				{Method: "GET", Path: cdn, Times: 1, Do: hubtest.Headers("Content-Range", "bytes 100000-299999/300001")}}},
		{name: "05 416 for the rest",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Times: 1, Do: hubtest.Cut(100_000)},
				{Method: "GET", Path: cdn, Times: 1, Do: hubtest.Status(416, "Content-Range", "bytes */300000")}}},
		{name: "06 more bytes than announced",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Do: hubtest.Replace(func(b []byte) []byte { return append(b, 1) })}},
			want:   hub.ErrDamaged, check: noBlobOf(300_000)},
		{name: "07 fewer bytes than announced",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Do: hubtest.Replace(func(b []byte) []byte { return b[:1000] })}},
			want:   hub.ErrDamaged, check: noBlobOf(1000)},
		{name: "08 wrong bytes of the right size, SHA-256",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Do: hubtest.Corrupt(5)}},
			want:   hub.ErrDamaged, text: "announced", check: noBlobOf(300_000)},
		{name: "08 wrong bytes once",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Times: 1, Do: hubtest.Corrupt(5)}}},
		{name: "09 wrong bytes of the right size, git's SHA-1",
			faults: []hubtest.Fault{{Method: "GET", Path: small, Do: hubtest.Corrupt(5)}},
			want:   hub.ErrDamaged, text: "announced"},
		{name: "12 the token does not go to the second host",
			check: func(t *testing.T, r *rig) {
				for _, q := range r.hub.Requests() {
					onHub := strings.HasSuffix(r.url, q.Host)
					if has := q.Header.Get("Authorization") != ""; has != onHub {
						t.Errorf("%s %s at %s: token sent %v", q.Method, q.Path, q.Host, has)
					}
				}
			}},
		{name: "17 renamed repository",
			check: func(t *testing.T, r *rig) {
				if err := r.hub.Move("model", repoID, "acme/renamed"); err != nil {
					t.Fatal(err)
				}
				os.RemoveAll(r.cache)
				snap := r.pull(hub.PullOptions{})
				if !strings.Contains(snap.Dir, "models--acme--vit") || !strings.Contains(r.log.String(), "acme/renamed") {
					t.Errorf("directory %s; log does not name the new id: %v", snap.Dir, !strings.Contains(r.log.String(), "acme/renamed"))
				}
			}},
		{name: "21 compressed although identity was asked for",
			faults: []hubtest.Fault{{Method: "GET", Path: small, Do: func(w http.ResponseWriter, req *http.Request, h http.Handler) {
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, req)
				w.Header().Set("Content-Encoding", "gzip")
				w.Header().Set("X-Repo-Commit", rec.Header().Get("X-Repo-Commit"))
				w.Write(gz(rec.Body.Bytes()))
			}}}},
		{name: "26 503, 503, then the listing", faults: []hubtest.Fault{{Path: "/tree/", Times: 2, Do: hubtest.Status(503)}}},
		{name: "26 503, 503, then the content", faults: []hubtest.Fault{{Method: "GET", Path: "/resolve/", Times: 2, Do: hubtest.Status(503)}}},
		{name: "26 503, 503, then the revision", faults: []hubtest.Fault{{Path: "/revision/", Times: 2, Do: hubtest.Status(503)}}},
		{name: "27 500 forever", faults: []hubtest.Fault{{Path: "/revision/", Do: hubtest.Status(500, "X-Request-Id", "Root=quoteme")}},
			want: hub.ErrNetwork, text: "quoteme",
			check: func(t *testing.T, r *rig) {
				if n := r.hub.Count("GET", "/revision/"); n != 5 {
					t.Errorf("%d tries; want 5", n)
				}
			}},
		{name: "30 silence counts as a cut", faults: []hubtest.Fault{{Method: "GET", Path: cdn, Times: 1, Do: hubtest.Stall(50_000, 10*time.Second)}}},
		{name: "30 slow but steady never times out", faults: []hubtest.Fault{{Method: "GET", Path: cdn, Do: hubtest.Slow(20_000, 50*time.Millisecond)}}},
		{name: "52 no such file", want: nil,
			check: func(t *testing.T, r *rig) {
				_, err := r.client().Pull(context.Background(), repo, hub.PullOptions{Files: []string{"config.json", "nope.bin"}})
				wantErr(t, err, hub.ErrEntry, "nope.bin")
			}},
		{name: "90 HTML instead of JSON", faults: []hubtest.Fault{{Path: "/revision/", Do: hubtest.Text(200, "text/html", "<html>log in</html>")}},
			want: hub.ErrNetwork, text: "text/html"},
		{name: "90 JSON that breaks off", faults: []hubtest.Fault{{Path: "/tree/", Do: hubtest.Text(200, "application/json", `[{"type":"fi`)}},
			want: hub.ErrNetwork, text: "unexpected response"},
		{name: "an expired address is asked for again",
			faults: []hubtest.Fault{{Method: "GET", Path: cdn, Times: 1, Do: hubtest.Cut(100_000)}, {Method: "GET", Path: cdn, Times: 1, Do: hubtest.Status(403)}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for _, f := range tt.faults {
				r.hub.Inject(f)
			}
			snap, err := r.client().Pull(context.Background(), repo, hub.PullOptions{})
			if tt.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range snap.Files {
					if got, _ := os.ReadFile(f.Path); !bytes.Equal(got, r.files[f.Name]) {
						t.Errorf("%s differs", f.Name)
					}
				}
				if left := r.incomplete(); len(left) > 0 {
					t.Errorf("left over: %v", left)
				}
			} else {
				wantErr(t, err, tt.want, tt.text)
				if _, err := os.Stat(filepath.Join(r.cache, "models--acme--vit", "refs", "main")); err == nil {
					t.Error("the ref was written although the pull failed")
				}
			}
			if tt.check != nil {
				tt.check(t, r)
			}
			if log := r.log.String(); strings.Contains(log, token) || strings.Contains(log, "sig=") {
				t.Error("86 the log shows a secret")
			}
		})
	}
}

// noBlobOf checks that content that failed its check is nowhere in the cache.
func noBlobOf(size int64) func(*testing.T, *rig) {
	return func(t *testing.T, r *rig) {
		for _, name := range r.blobs() {
			info, err := os.Stat(filepath.Join(r.cache, "models--acme--vit", "blobs", name))
			if err == nil && (info.Size() == size || strings.HasSuffix(name, ".incomplete")) {
				t.Errorf("blobs has %s of %d bytes", name, info.Size())
			}
		}
	}
}
