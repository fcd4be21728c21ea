package adapters_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

// shelf is a store in memory that may fail at some file.
type shelf struct {
	t     *testing.T
	files map[string]string // by hash
	puts  []string          // names
	fail  map[string]error  // of putting a file
}

func (s *shelf) Has(_ context.Context, m adapters.MergedShard) (bool, error) {
	return int64(len(s.files[m.SHA256])) == m.Size, nil
}

func (s *shelf) Put(_ context.Context, m adapters.MergedShard, path string) error {
	if here, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.safetensors*")); len(here) != 1 {
		s.t.Errorf("%q are on the disk at once", here)
	}
	if err := s.fail[m.Name]; err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != m.SHA256 || int64(len(data)) != m.Size {
		s.t.Errorf("%s is not %+v", path, m)
	}
	s.files[m.SHA256] = string(data)
	s.puts = append(s.puts, m.Name)
	return nil
}

func send(t *testing.T, base, adapter, work string, to adapters.Store, opts adapters.MergeOptions) (string, adapters.MergeResult, error) {
	t.Helper()
	ck, cfg, a := openText(t, base, adapter)
	p, err := adapters.PlanMerge(ck, cfg, []*adapters.Adapter{a}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return p.Send(t.Context(), work, to)
}

// A merge that is sent has the files of one that is written. One that fails goes on: a file that was
// stored is not made again, one that was only finished is not either, unless the inputs are others.
func TestSend(t *testing.T) {
	base, adapter := synthetic(t, format.BF16, 3)
	out, work := filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "work")
	if _, err := mergeText(t, base, adapter, out, adapters.MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	names := []string{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"}
	broken := errors.New("broken")
	s := &shelf{t: t, files: map[string]string{}, fail: map[string]error{names[1]: broken}}
	if _, _, err := send(t, base, adapter, work, s, adapters.MergeOptions{}); !errors.Is(err, broken) || !slices.Equal(s.puts, names[:1]) {
		t.Fatalf("put %q, then %v", s.puts, err)
	}

	s.fail = nil
	var progress []string
	rest, result, err := send(t, base, adapter, work, s, adapters.MergeOptions{Progress: func(e adapters.MergeEvent) {
		progress = append(progress, e.Shard)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.puts, names) || result.Resumed != 1 {
		t.Errorf("put %q, %d resumed", s.puts, result.Resumed)
	}
	if progress[0] != names[0] || progress[1] != names[1] || progress[2] != names[2] {
		t.Errorf("files that were finished were made again: progress %q", progress)
	}
	got, want := content(t, rest), content(t, out)
	for _, shard := range result.Shards {
		got["/"+shard.Name] = s.files[shard.SHA256]
	}
	if !maps.Equal(got, want) {
		t.Errorf("files %q, want %q, or their content differs", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}

	s.puts = nil
	if _, result, err = send(t, base, adapter, work, s, adapters.MergeOptions{Weights: []float64{2}}); err != nil || len(s.puts) != 3 || result.Resumed != 0 {
		t.Errorf("with another weight put %q, %d resumed, %v", s.puts, result.Resumed, err)
	}
}

// far is a base on a server that lies about one file, or breaks off.
type far struct {
	format.Source
	wrong bool
	limit int64 // where it breaks off; 0 is nowhere
}

var errLine = errors.New("the line is down")

func (f far) ReadAt(p []byte, off int64) (int, error) {
	if f.limit > 0 && off+int64(len(p)) > f.limit {
		return 0, errLine
	}
	return f.Source.ReadAt(p, off)
}

func (f far) Hash() (hash.Hash, string) {
	if f.wrong {
		return sha256.New(), strings.Repeat("0", 64)
	}
	data := make([]byte, f.Size())
	if _, err := f.Source.ReadAt(data, 0); err != nil {
		return nil, ""
	}
	sum := sha256.Sum256(data)
	return sha256.New(), hex.EncodeToString(sum[:])
}

func openFar(t *testing.T, dir string, change func(name string, f *far)) *format.Checkpoint {
	t.Helper()
	ck, err := format.OpenFolder(format.Folder{Path: "hf://acme/base", Open: func(name string) (format.Source, error) {
		src, err := format.OpenDisk(filepath.Join(dir, name))
		f := &far{Source: src}
		change(name, f)
		return *f, err
	}}, format.IndexFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ck.Close() })
	return ck
}

// Of a base afar finished files are kept when the line breaks, and used by the next merge; nothing is
// kept when the base is not what it was announced to be.
func TestMergeFromAfar(t *testing.T) {
	base, adapter := synthetic(t, format.BF16, 3)
	want := filepath.Join(t.TempDir(), "want")
	if _, err := mergeText(t, base, adapter, want, adapters.MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	_, _, a := openText(t, base, adapter)
	merge := func(out string, change func(name string, f *far)) (adapters.MergeResult, error) {
		t.Helper()
		return adapters.Merge(t.Context(), openFar(t, base, change), config(t, base), []*adapters.Adapter{a}, out,
			adapters.MergeOptions{Jobs: 1, Readers: 3, Keep: true, SideFiles: base})
	}
	last := "model-00003-of-00003.safetensors"
	out := filepath.Join(t.TempDir(), "out")
	if _, err := merge(out, func(name string, f *far) {
		if name == last {
			f.limit = 400_000
		}
	}); !errors.Is(err, errLine) {
		t.Fatalf("error %v", err)
	}
	if left := content(t, filepath.Dir(out)); len(left) != 3 { // two files and the journal
		t.Errorf("left %q", slices.Sorted(maps.Keys(left)))
	}
	result, err := merge(out, func(name string, f *far) {
		if name != last && !strings.HasSuffix(name, ".json") {
			f.limit = 2000 // enough for the header
		}
	})
	if err != nil || result.Resumed != 2 || len(result.Unchecked) > 0 {
		t.Errorf("%+v, %v", result, err)
	}
	if got := content(t, out); !maps.Equal(got, content(t, want)) {
		t.Error("the merged files differ")
	}

	other := filepath.Join(t.TempDir(), "out")
	if _, err := merge(other, func(name string, f *far) { f.wrong = name == last }); !errors.Is(err, format.ErrDamaged) || !strings.Contains(err.Error(), last) {
		t.Errorf("error %v", err)
	}
	if left := content(t, filepath.Dir(other)); len(left) > 0 {
		t.Errorf("left %q", slices.Sorted(maps.Keys(left)))
	}
	work := t.TempDir()
	p, err := adapters.PlanMerge(openFar(t, base, func(name string, f *far) { f.wrong = name == last }), config(t, base), []*adapters.Adapter{a},
		adapters.MergeOptions{SideFiles: base})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Send(t.Context(), work, &shelf{t: t, files: map[string]string{}}); !errors.Is(err, format.ErrDamaged) {
		t.Errorf("error %v", err)
	}
	if left := content(t, work); len(left) > 0 {
		t.Errorf("left %q", slices.Sorted(maps.Keys(left)))
	}
}

func config(t *testing.T, dir string) *format.ModelConfig {
	t.Helper()
	cfg, err := format.ReadModelConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}
