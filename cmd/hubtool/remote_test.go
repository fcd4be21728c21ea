package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubserve"
	"github.com/hubtool/hubtool/hub/hubtest"
)

// inProcess runs the program as a function, beside a Hub.
type inProcess struct {
	t    *testing.T
	args []string // global flags
}

func newProcess(t *testing.T, endpoint string) inProcess {
	t.Helper()
	return inProcess{t, []string{"--endpoint", endpoint, "--cache-dir", t.TempDir(), "--json"}}
}

func (p inProcess) run(want int, args ...string) (out map[string]any, stderr string) {
	p.t.Helper()
	var stdout, errs bytes.Buffer
	code := run(p.t.Context(), append(args, p.args...), streams{in: strings.NewReader(""), out: &stdout, err: &errs})
	if code != want {
		p.t.Fatalf("hubtool %q: exit code %d, want %d: %s", args, code, want, errs.String())
	}
	if code == 0 {
		if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
			p.t.Fatal(err)
		}
	}
	return out, errs.String()
}

// counted counts the bytes of bodies that a Hub sends, in all and at most by one answer.
type counted struct {
	http.Handler
	bytes atomic.Int64
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.Handler.ServeHTTP(countedWriter{w, c}, r)
}

type countedWriter struct {
	http.ResponseWriter
	c *counted
}

func (w countedWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.c.bytes.Add(int64(n))
	return n, err
}

func (w countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A model of many gigabytes, whose files are all holes, is described from a few kilobytes.
func TestInspectLarge(t *testing.T) {
	const shards, size = 4, int64(1 << 30)
	dir := t.TempDir()
	s, err := hubserve.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{Handler: s}
	srv := httptest.NewServer(c)
	defer srv.Close()

	client, err := hub.New(hub.WithEndpoint(srv.URL), hub.WithCacheDir(t.TempDir()), hub.WithToken(""))
	if err != nil {
		t.Fatal(err)
	}
	draft, err := client.Draft(t.Context(), hub.Repo{ID: "acme/huge"}, hub.PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	index := &format.Index{WeightMap: map[string]string{}}
	for i := range shards {
		h, err := format.NewHeader([]format.TensorInfo{
			{Name: fmt.Sprintf("layers.%d.weight", i), DType: format.BF16, Shape: []int{1 << 14, 1 << 15}},
			{Name: fmt.Sprintf("layers.%d.bias", i), DType: format.BF16, Shape: []int{1 << 14}},
		}, map[string]string{"format": "pt"})
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, shards)
		for _, e := range h.Entries() {
			index.WeightMap[e.Name] = name
			index.TotalSize += e.End - e.Begin
		}
		sha := fmt.Sprintf("%064x", i+1) // the server hashes what it receives, not what is there
		path := filepath.Join(dir, "blobs", sha[:2], sha)
		prefix := append(binary.LittleEndian.AppendUint64(nil, uint64(len(h.Raw()))), h.Raw()...)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, prefix, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, h.FileSize()); err != nil {
			t.Fatal(err)
		}
		if has, err := draft.Has(t.Context(), name, sha, h.FileSize()); err != nil || !has {
			t.Fatalf("the Hub does not have %q: %v", path, err)
		}
	}
	rest := t.TempDir()
	if err := index.Write(filepath.Join(rest, format.IndexFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(rest, "config.json"), []byte(`{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := draft.Commit(t.Context(), rest); err != nil {
		t.Fatal(err)
	}
	c.bytes.Store(0)

	out, _ := newProcess(t, srv.URL).run(0, "inspect", "acme/huge")
	if out["kind"] != "model" || out["bytes"].(float64) < float64(shards*size) || len(out["shards"].([]any)) != shards {
		t.Errorf("%v", out)
	}
	if n := c.bytes.Load(); n > 1e6 {
		t.Errorf("%d bytes came for headers", n)
	}
}

// largeBase puts a base of two files of 6 MB and a LoRA adapter for it on a Hub.
func largeBase(t *testing.T, h *hubtest.Hub) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	values := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64()) * 0.1
		}
		return v
	}
	dir := t.TempDir()
	write := func(name string, tensors []format.Tensor) []byte {
		path := filepath.Join(dir, name)
		if err := format.Write(t.Context(), path, tensors, map[string]string{"format": "pt"}); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	base := map[string][]byte{"config.json": []byte(`{"model_type": "llama", "tie_word_embeddings": false}`),
		"tokenizer.model": []byte("words"), "README.md": []byte("---\nlicense: apache-2.0\n---\n# Base\n")}
	index := &format.Index{WeightMap: map[string]string{}}
	var lora []format.Tensor
	for i := range 2 {
		var tensors []format.Tensor
		for _, s := range []struct {
			name    string
			out, in int
		}{{"self_attn.q_proj", 1000, 1100}, {"mlp.up_proj", 2001, 1000}} {
			name := fmt.Sprintf("model.layers.%d.%s", i, s.name)
			info := format.TensorInfo{Name: name + ".weight", DType: format.BF16, Shape: []int{s.out, s.in}}
			data, err := format.Narrow(info.DType, values(s.out*s.in))
			if err != nil {
				t.Fatal(err)
			}
			tensors = append(tensors, format.NewTensor(info, data))
			index.WeightMap[info.Name] = fmt.Sprintf("model-%05d-of-00002.safetensors", i+1)
			index.TotalSize += info.Size()
			lora = append(lora, format.FloatTensor("base_model.model."+name+".lora_A.weight", []int{4, s.in}, values(4*s.in)),
				format.FloatTensor("base_model.model."+name+".lora_B.weight", []int{s.out, 4}, values(s.out*4)))
		}
		name := fmt.Sprintf("model-%05d-of-00002.safetensors", i+1)
		base[name] = write(name, tensors)
	}
	text, err := index.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	base[format.IndexFile] = text
	for id, files := range map[string]map[string][]byte{"acme/base": base, "acme/adapter": {
		"adapter_model.safetensors": write("adapter.safetensors", lora),
		"adapter_config.json":       []byte(`{"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "up_proj"], "base_model_name_or_path": "acme/base"}`),
	}} {
		if _, err := h.Commit("model", id, "main", "first", files); err != nil {
			t.Fatal(err)
		}
	}
}

// files reads a folder.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all, err := readFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	for name, data := range all {
		list[name] = string(data)
	}
	return list
}

func sameFiles(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%q differs", name)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
}

// Whatever the line and the servers do, a streamed merge has the bytes of that of the pulled base, and
// fetches no byte twice but those that a cut connection lost.
func TestStreamedMerge(t *testing.T) {
	h, url, _ := hubtest.Start(t, hubtest.WithRegularLimit(10_000))
	largeBase(t, h)
	out := t.TempDir()
	pulled, streamed := filepath.Join(out, "pulled"), filepath.Join(out, "streamed")
	newProcess(t, url).run(0, "merge", "acme/adapter", "--out", pulled)

	const blobs = "/lfs/blob/"
	h.Forget()
	h.Inject(hubtest.Fault{Method: "GET", Path: blobs, Skip: 4, Times: 1, Do: hubtest.Cut(1 << 20)})
	h.Inject(hubtest.Fault{Method: "GET", Path: blobs, Skip: 5, Times: 1, Do: hubtest.Status(503)})
	h.Inject(hubtest.Fault{Method: "GET", Path: blobs, Skip: 6, Do: func(w http.ResponseWriter, r *http.Request, hub http.Handler) {
		if r.Header.Get("Referer") == "" { // the address that a redirect gave before has expired
			w.WriteHeader(http.StatusForbidden)
			return
		}
		hub.ServeHTTP(w, r)
	}})
	p := newProcess(t, url)
	summary, _ := p.run(0, "merge", "acme/adapter", "--out", streamed, "--stream")
	sameFiles(t, files(t, streamed), files(t, pulled))
	size := 0
	for name, data := range files(t, pulled) {
		if strings.HasSuffix(name, ".safetensors") {
			size += len(data)
		}
	}
	if fetched := int(summary["bytes_fetched"].(float64)); fetched != size {
		t.Errorf("fetched %d bytes of a base of %d", fetched, size)
	}
}

// A base that is another one suddenly, or has one wrong byte, leaves no merged file.
func TestStreamedMergeOfAWrongBase(t *testing.T) {
	for _, tt := range []struct {
		kind string
		code int
		do   func(http.ResponseWriter, *http.Request, http.Handler)
	}{
		{"changed", 1, hubtest.Headers("ETag", `"another"`)},
		{"damaged-file", 6, hubtest.Corrupt(1_000_000)},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			h, url, _ := hubtest.Start(t, hubtest.WithRegularLimit(10_000))
			largeBase(t, h)
			h.Inject(hubtest.Fault{Method: "GET", Path: "/lfs/blob/", Skip: 5, Times: 1, Do: tt.do})
			out := filepath.Join(t.TempDir(), "out")
			_, stderr := newProcess(t, url).run(tt.code, "merge", "acme/adapter", "--out", out, "--stream")
			if !strings.Contains(stderr, `"kind":"`+tt.kind+`"`) || !strings.Contains(stderr, "model-0000") {
				t.Errorf("%s", stderr)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("the merged model is there")
			}
		})
	}
}

// Remote in, remote out: never more than one file of weights is on this disk, and a run that was cut
// short goes on: what was sent is neither fetched nor merged nor sent again.
func TestSentMerge(t *testing.T) {
	h, url, _ := hubtest.Start(t, hubtest.WithRegularLimit(10_000))
	largeBase(t, h)
	pulled := filepath.Join(t.TempDir(), "pulled")
	newProcess(t, url).run(0, "merge", "acme/adapter", "--out", pulled)

	p := newProcess(t, url)
	cache := p.args[3]
	var most atomic.Int64
	watch := func(w http.ResponseWriter, r *http.Request, hub http.Handler) {
		found := 0
		_ = filepath.WalkDir(cache, func(path string, _ os.DirEntry, _ error) error {
			if strings.Contains(filepath.Base(path), "model-0000") {
				found++
			}
			return nil
		})
		most.Store(max(most.Load(), int64(found)))
		dirs, _ := filepath.Glob(filepath.Join(cache, "hubtool-merges", "*"))
		for _, dir := range dirs {
			if f, free := (pendingMerge{Path: dir}).tryLock(); free {
				f.Close()
				t.Errorf("%s: prune could remove what is being merged", r.URL.Path)
			}
		}
		hub.ServeHTTP(w, r)
	}
	h.Forget()
	h.Inject(hubtest.Fault{Method: "PUT", Skip: 1, Times: 1, Do: hubtest.Status(400)}) // the second file
	h.Inject(hubtest.Fault{Do: watch})
	args := []string{"merge", "acme/adapter", "--stream", "--push", "me/merged"}
	_, stderr := p.run(1, args...)
	if !strings.Contains(stderr, "this goes on: hubtool merge acme/adapter --push me/merged --stream") {
		t.Errorf("%s", stderr)
	}
	if n := most.Load(); n != 1 {
		t.Errorf("%d files of weights were on the disk", n)
	}
	pending, _ := p.run(0, "cache", "prune", "--dry-run")
	if merges := pending["merges"].([]any); len(merges) != 1 || merges[0].(map[string]any)["size"].(float64) == 0 {
		t.Errorf("prune knows %v of what is left", merges)
	}
	h.Forget()
	summary, stderr := p.run(0, args...)
	if n := h.Count("PUT", "/lfs/blob/"); n != 1 {
		t.Errorf("%d uploads, want that of the second file", n)
	}
	if fetched := summary["bytes_fetched"].(float64); fetched > 200_000 { // headers
		t.Errorf("fetched %.0f bytes for files that were merged before", fetched)
	}
	if !strings.Contains(stderr, "1 of 2 files were finished before") {
		t.Errorf("%s", stderr)
	}
	got, want := filepath.Join(t.TempDir(), "got"), files(t, pulled)
	p.run(0, "pull", "me/merged", "--local-dir", got, "--exclude", "README.md", "--exclude", ".gitattributes")
	for name, data := range want {
		if text, err := os.ReadFile(filepath.Join(got, name)); err != nil || string(text) != data {
			t.Errorf("%q differs, %v", name, err)
		}
	}
	card, err := h.Read("model", "me/merged", "main", "README.md")
	if err != nil || !bytes.Contains(card, []byte("license: apache-2.0")) || !bytes.Contains(card, []byte("base_model: acme/base")) {
		t.Errorf("card %q, %v", card, err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "hubtool-merges", "*")); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}
