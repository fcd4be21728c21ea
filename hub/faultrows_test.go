package hub_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubtest"
)

// The faults that the client was designed against have numbers, 1 to 90, which the tests name. Here are those that
// need more than a server, and the count that none is forgotten.
func TestEveryFaultHasATest(t *testing.T) {
	named := map[string]bool{
		"36": true, // hubtool and Python on one cache: testdata/python/test_hub_cache.py, test_hub_kill.py
	}
	sources, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range sources {
		for _, m := range regexp.MustCompile(`"([0-9]{2})[ :]`).FindAllStringSubmatch(mustRead(t, path), -1) {
			named[m[1]] = true
		}
	}
	for n := 1; n <= 90; n++ {
		if !named[fmt.Sprintf("%02d", n)] {
			t.Errorf("no test names fault %d", n)
		}
	}
}

func TestLocksThatHoldNobodyOut(t *testing.T) {
	t.Run("37 two full downloads, one sound file", func(t *testing.T) {
		defer hub.BreakLocks()()
		r := newRig(t)
		r.hub.Inject(hubtest.Fault{Method: "GET", Path: "/lfs/blob/", Times: 2, Do: hubtest.Slow(30_000, 20*time.Millisecond)})
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { r.pull(hub.PullOptions{Files: []string{"model.safetensors"}}) })
		}
		both.Wait()
		if n := r.hub.Count("GET", "/lfs/blob/"); n != 2 {
			t.Errorf("%d downloads; want each its own", n)
		}
		if left := r.incomplete(); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	})
	t.Run("37 nothing is adopted from what may be alive", func(t *testing.T) {
		defer hub.BreakLocks()()
		r := newRig(t)
		etag := lfsETag(r, "model.safetensors")
		dir := filepath.Join(r.cache, "models--acme--vit", "blobs")
		os.MkdirAll(dir, 0o777)
		alive := filepath.Join(dir, etag+".0123abcd.incomplete")
		os.WriteFile(alive, r.files["model.safetensors"][:1000], 0o666)
		if got := r.pull(hub.PullOptions{Files: []string{"model.safetensors"}}).Fetched; got != 300_000 {
			t.Errorf("fetched %d bytes", got)
		}
		if _, err := os.Stat(alive); err != nil {
			t.Errorf("the other process' file is gone: %v", err)
		}
	})
}

func TestNamesOfOtherSystems(t *testing.T) {
	t.Run("40 two names that are one on this volume", func(t *testing.T) {
		defer hub.IgnoreCase()()
		r := newRig(t)
		r.hub.Commit("model", repoID, "main", "second", map[string][]byte{"A.bin": []byte("A"), "a.bin": []byte("a")})
		for _, opts := range []hub.PullOptions{{}, {LocalDir: t.TempDir()}} {
			_, err := r.client().Pull(context.Background(), repo, opts)
			wantErr(t, err, hub.ErrDamaged, `"A.bin"`, `"a.bin"`)
		}
		if r.hub.Count("", "/resolve/") != 0 {
			t.Error("something was downloaded before")
		}
	})
	for name, ok := range map[string]bool{
		"aux.txt": false, "sub/NUL": false, "com1.tar.gz": false, "lpt¹": false, "con .x": false, "trailing.": false, "trailing ": false, "a:b": false, "what?": false,
		"auxiliary.txt": true, "com10": true, "console": true, "a.b/c": true, "nul-model.bin": true,
	} {
		t.Run("48 "+name, func(t *testing.T) {
			if err := hub.CheckWindowsPath(name); (err == nil) != ok {
				t.Errorf("error %v; allowed: %v", err, ok)
			}
		})
	}
	t.Run("47 names, and long paths, go up and come back as they are", func(t *testing.T) {
		r := newRig(t)
		// Windows takes more than 255 characters only in extended paths, which package os makes of absolute ones.
		long := strings.Repeat("a-folder-inside/", 20) + "weights.bin"
		files := map[string][]byte{long: blobOf(4, 5000), "caf\u00e9.txt": []byte("composed"), "cafe\u0301.txt": []byte("decomposed"), "a b/#?%&=+.txt": []byte("reserved"), "日本/モデル.bin": blobOf(3, 5000)}
		to := hub.Repo{ID: "acme/names"}
		if _, err := r.client().Push(context.Background(), to, folder(t, files), hub.PushOptions{}); err != nil {
			t.Fatal(err)
		}
		snap, err := r.client().Pull(context.Background(), to, hub.PullOptions{})
		if err != nil || len(snap.Files) != len(files) {
			t.Fatalf("%+v, %v", snap, err)
		}
		for name, want := range files {
			if got := mustRead(t, filepath.Join(snap.Dir, filepath.FromSlash(name))); got != string(want) {
				t.Errorf("%q has %d bytes; want %d", name, len(got), len(want))
			}
		}
	})
}

func TestFilesInXetAlone(t *testing.T) {
	inXet := hubtest.Replace(func(listing []byte) []byte {
		entry := []byte(`"path":"model.safetensors"`)
		return bytes.Replace(listing, entry, fmt.Appendf(nil, `"xetHash":"%064x",%s`, 1, entry), 1)
	})
	const explained = "keeps the file in Xet"
	for _, c := range []struct {
		name    string
		listing bool // that says Xet
		refusal hubtest.Fault
		kind    error
		xet     bool
	}{
		{"forbidden", true, hubtest.Fault{Do: hubtest.Text(403, "text/plain", "use a client that knows Xet")}, hub.ErrAuth, true},
		{"not found", true, hubtest.Fault{Do: hubtest.Text(404, "text/plain", "no such key")}, hub.ErrNotFound, true},
		{"unprocessable", true, hubtest.Fault{Do: hubtest.Text(422, "text/plain", "Xet only")}, nil, true},
		{"gated, which has another reason", true, hubtest.Fault{Do: hubtest.Status(403, "X-Error-Code", "GatedRepo")}, hub.ErrGated, false},
		{"no Xet", false, hubtest.Fault{Do: hubtest.Text(403, "text/plain", "no")}, hub.ErrAuth, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			if c.listing {
				r.hub.Inject(hubtest.Fault{Path: "/tree/", Do: inXet})
			}
			c.refusal.Method, c.refusal.Path = "GET", "/model.safetensors"
			r.hub.Inject(c.refusal)
			_, err := r.client().Pull(context.Background(), repo, hub.PullOptions{})
			if err == nil || c.kind != nil && !errors.Is(err, c.kind) || strings.Contains(err.Error(), explained) != c.xet {
				t.Errorf("error %v", err)
			}
			if n := r.hub.Count("GET", "/model.safetensors"); n != 1 {
				t.Errorf("asked %d times; want 1: it will be refused again", n)
			}
			if left := r.incomplete(); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
	t.Run("served as all others", func(t *testing.T) {
		r := newRig(t)
		r.hub.Inject(hubtest.Fault{Path: "/tree/", Do: inXet})
		r.pull(hub.PullOptions{})
	})
}

// expiredCertificate is what a server's certificate seems to be where the clock is wrong.
type expiredCertificate struct{ tries int }

func (e *expiredCertificate) RoundTrip(*http.Request) (*http.Response, error) {
	e.tries++
	return nil, x509.CertificateInvalidError{Reason: x509.Expired, Detail: "current time 2027-01-01 is after 2026-12-01"}
}

func TestWrongClock(t *testing.T) {
	t.Run("61 a certificate that seems to have expired is explained", func(t *testing.T) {
		server := &expiredCertificate{}
		r := newRig(t)
		_, err := r.client(hub.WithEndpoint("https://hub.test"), hub.WithHTTPClient(&http.Client{Transport: server})).Info(context.Background(), repo)
		wantErr(t, err, hub.ErrNetwork, "expired", "clock")
		if server.tries != 1 {
			t.Errorf("%d tries; want 1", server.tries)
		}
	})
}
