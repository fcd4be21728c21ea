package hub_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubserve"
	"github.com/hubtool/hubtool/hub/hubtest"
)

// TestMain takes the user's own settings out of the environment, and is the
// program that TestKilledPullResumes kills.
func TestMain(m *testing.M) {
	if os.Getenv("HUBTOOL_TEST_PULL") != "" {
		pullAsChild()
		return
	}
	for _, setting := range os.Environ() {
		if name, _, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "HF_") || strings.HasPrefix(name, "HUGGING") || strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			os.Unsetenv(name)
		}
	}
	home, err := os.MkdirTemp("", "hub-test-home-")
	if err != nil {
		panic(err)
	}
	os.Setenv("HF_HOME", home)
	os.Setenv("HF_HUB_DOWNLOAD_TIMEOUT", "3") // for the tests of silence
	code := m.Run()
	os.RemoveAll(home)
	os.Exit(code)
}

// A rig is a fake Hub with one repository, and a client with an empty cache.
type rig struct {
	t     *testing.T
	hub   *hubtest.Hub
	url   string
	cdn   string
	cache string
	log   *logBuffer
	files map[string][]byte
	head  string
}

const (
	token  = "hf_secretsecretsecret"
	repoID = "acme/vit"
)

var repo = hub.Repo{Type: hub.Model, ID: repoID}

// blobOf gives n reproducible random bytes.
func blobOf(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return b
}

func newRig(t *testing.T, opts ...hubserve.Option) *rig {
	t.Helper()
	r := &rig{t: t, cache: filepath.Join(t.TempDir(), "hub"), log: &logBuffer{}}
	// LFS from 1000 bytes on, so that small contents take every way.
	r.hub, r.url, r.cdn = hubtest.Start(t, append([]hubserve.Option{hubtest.WithToken(token), hubtest.WithRegularLimit(1000)}, opts...)...)
	r.files = map[string][]byte{
		"README.md":         []byte("---\nlicense: mit\n---\n# ViT\n"),
		"config.json":       []byte(`{"model_type": "vit"}`),
		"sub/empty.txt":     {},
		"sub/ünï %#?.txt":   []byte("names are bytes"),
		"model.safetensors": blobOf(1, 300_000),
	}
	var err error
	if r.head, err = r.hub.Commit("model", repoID, "main", "first", r.files); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) client(opts ...hub.Option) *hub.Client {
	r.t.Helper()
	c, err := hub.New(append([]hub.Option{
		hub.WithEndpoint(r.url), hub.WithToken(token), hub.WithCacheDir(r.cache),
		hub.WithRetry(5, time.Millisecond), hub.WithLogger(slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))),
	}, opts...)...)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// pull must succeed and give every selected file with its content.
func (r *rig) pull(opts hub.PullOptions, copts ...hub.Option) *hub.Snapshot {
	r.t.Helper()
	snap, err := r.client(copts...).Pull(context.Background(), repo, opts)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range snap.Files {
		got, err := os.ReadFile(f.Path)
		if err != nil || !f.Kept && !bytes.Equal(got, r.files[f.Name]) {
			r.t.Fatalf("%s has %d bytes, error %v; want %d bytes", f.Name, len(got), err, len(r.files[f.Name]))
		}
	}
	return snap
}

// blobs lists what is in the repository's blobs folder.
func (r *rig) blobs() []string {
	entries, _ := os.ReadDir(filepath.Join(r.cache, "models--acme--vit", "blobs"))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (r *rig) incomplete() []string {
	var names []string
	for _, n := range r.blobs() {
		if strings.HasSuffix(n, ".incomplete") {
			names = append(names, n)
		}
	}
	return names
}

// logBuffer collects log lines; it also proves that no secret is among them.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func wantErr(t *testing.T, err error, sentinel error, texts ...string) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Fatalf("error %v; want one that is %q", err, sentinel)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not mention %q", err, text)
		}
	}
	if strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "sig=") {
		t.Errorf("error shows a secret: %v", err)
	}
}
