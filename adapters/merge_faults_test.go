package adapters_test

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

// wholeFiles fails if a file under a final name is not what it will be at the end.
func wholeFiles(t *testing.T, out string, want map[string]string) {
	t.Helper()
	for name, text := range content(t, out) {
		if text != want[name] {
			t.Fatalf("%s stands in the result and is not complete", name)
		}
	}
	partial := content(t, out+".partial")
	for name, text := range partial {
		hidden := strings.HasPrefix(name, "/.") || strings.HasSuffix(name, ".partial")
		if !hidden && text != want[name] {
			t.Fatalf("%s has its final name and is not complete", name)
		}
		if name == "/"+format.IndexFile {
			for shard := range want {
				if _, ok := partial[shard]; strings.HasSuffix(shard, ".safetensors") && !ok {
					t.Fatalf("there is an index, but no %s", shard)
				}
			}
		}
	}
}

// A merge that is killed at any time, again and again, comes to the same end.
func TestMergeKilledAnywhere(t *testing.T) {
	base, adapter := synthetic(t, format.BF16, 6)
	dir := t.TempDir()
	fresh, out := filepath.Join(dir, "fresh"), filepath.Join(dir, "out")
	if _, err := mergeText(t, base, adapter, fresh, adapters.MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	want := content(t, fresh)
	start := func() *exec.Cmd { // returns when the merge begins
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "HUBTOOL_TEST_MERGE="+strings.Join([]string{base, adapter, out}, "\n"))
		said, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err == nil {
			_, err = said.Read(make([]byte, 1))
		}
		if err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	cmd := start()
	begun := time.Now()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	takes := time.Since(begun)
	rng := rand.New(rand.NewPCG(1, 2))
	kills, ends := 0, 1
	for kills < 30 {
		if len(content(t, out)) > 0 {
			wholeFiles(t, out, want)
			if err := os.RemoveAll(out); err != nil {
				t.Fatal(err)
			}
			ends++
		}
		cmd := start()
		time.Sleep(time.Duration(rng.Float64() * float64(takes)))
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		if cmd.Wait() != nil {
			kills++
			takes += takes / 8
		} else { // too late: other work on the machine changes how long it takes
			takes /= 2
		}
		wholeFiles(t, out, want)
	}
	if len(content(t, out)) == 0 {
		if _, err := mergeText(t, base, adapter, out, adapters.MergeOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if !maps.Equal(content(t, out), want) {
		t.Error("the result differs from that of an undisturbed merge")
	}
	t.Logf("%d kills, %d merges came to their end", kills, ends)
}

// edited applies a change to a file.
func edited(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// setElement changes one element of a BF16 tensor.
func setElement(t *testing.T, path, tensor string, i int, bits uint16) {
	t.Helper()
	tensors, meta, err := format.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range tensors {
		if other.Info().Name == tensor {
			data, err := other.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			binary.LittleEndian.PutUint16(data[2*i:], bits)
		}
	}
	if err := format.Write(t.Context(), path, tensors, meta); err != nil {
		t.Fatal(err)
	}
}

// What is wrong with a base, before or while it is read, is named, and nothing is left of the merge.
func TestMergeOfADamagedBase(t *testing.T) {
	const second, weight = "model-00002-of-00003.safetensors", "model.layers.1.mlp.up_proj.weight"
	index := func(change func(ix *format.Index)) func(t *testing.T, base string) {
		return func(t *testing.T, base string) {
			ix, err := format.ReadIndex(filepath.Join(base, format.IndexFile))
			if err != nil {
				t.Fatal(err)
			}
			change(ix)
			if err := ix.Write(filepath.Join(base, format.IndexFile)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		before func(t *testing.T, base string) // the base is opened
		during func(t *testing.T, base string) // after a part was written
		is     error
		says   []string
	}{
		"truncated": {before: func(t *testing.T, base string) {
			edited(t, filepath.Join(base, second), func(b []byte) []byte { return b[:len(b)-1] })
		}, is: format.ErrDamaged, says: []string{second, "901200", "901199"}},
		"padded": {before: func(t *testing.T, base string) {
			edited(t, filepath.Join(base, second), func(b []byte) []byte { return append(b, 0) })
		}, is: format.ErrDamaged, says: []string{second, "901200", "901201"}},
		"header of 2^63 bytes": {before: func(t *testing.T, base string) {
			edited(t, filepath.Join(base, second), func(b []byte) []byte { binary.LittleEndian.PutUint64(b, 1<<63); return b })
		}, is: format.ErrDamaged, says: []string{second}},
		"index leads elsewhere": {before: index(func(ix *format.Index) { ix.WeightMap[weight] = "../" + second }),
			is: format.ErrDamaged, says: []string{"plain file name"}},
		"tensor missing": {before: index(func(ix *format.Index) { ix.WeightMap["missing.weight"] = second }),
			is: format.ErrDamaged, says: []string{"missing.weight", second}},
		"tensor twice": {before: func(t *testing.T, base string) {
			edited(t, filepath.Join(base, second), func([]byte) []byte {
				data, err := os.ReadFile(filepath.Join(base, "model-00001-of-00003.safetensors"))
				if err != nil {
					t.Fatal(err)
				}
				return data
			})
		}, is: format.ErrDamaged, says: []string{"model.layers.0", "also defined"}},
		"file missing": {before: func(t *testing.T, base string) {
			if err := os.Remove(filepath.Join(base, second)); err != nil {
				t.Fatal(err)
			}
		}, is: os.ErrNotExist, says: []string{second}},
		"not a number": {before: func(t *testing.T, base string) { setElement(t, filepath.Join(base, second), weight, 1000, 0x7fc0) },
			is: adapters.ErrBaseNonFinite, says: []string{weight, "element 1000 is NaN"}},
		"written to while it is read": {during: func(t *testing.T, base string) {
			later := time.Now().Add(time.Hour)
			if err := os.Chtimes(filepath.Join(base, second), later, later); err != nil {
				t.Fatal(err)
			}
		}, says: []string{second, "changed while it was read"}},
		"cut while it is read": {during: func(t *testing.T, base string) {
			if err := os.Truncate(filepath.Join(base, second), 5000); err != nil {
				t.Fatal(err)
			}
		}, says: []string{second}},
		"replaced while it is read": {during: func(t *testing.T, base string) {
			path := filepath.Join(base, second)
			data, err := os.ReadFile(path)
			if err := errors.Join(err, os.WriteFile(path+".new", data[:len(data)-2], 0o644), os.Rename(path+".new", path)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			base, adapter := synthetic(t, format.BF16, 3)
			if c.before != nil {
				c.before(t, base)
			}
			out := filepath.Join(t.TempDir(), "out")
			err := mergeOnce(t, base, adapter, out, adapters.MergeOptions{Jobs: 1, Progress: func(e adapters.MergeEvent) {
				if c.during != nil && strings.Contains(e.Shard, "00001") {
					c.during(t, base)
				}
			}})
			if c.before == nil && c.is == nil && c.says == nil { // the file that was opened is still whole
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("error %v", err)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %v does not say %q", err, part)
				}
			}
			if left := content(t, filepath.Dir(out)); len(left) > 0 {
				t.Errorf("left %q", slices.Collect(maps.Keys(left)))
			}
		})
	}
}

// mergeOnce opens a base and an adapter and merges them.
func mergeOnce(t *testing.T, base, adapter, out string, opts adapters.MergeOptions) error {
	ck, err := format.Open(base)
	if err != nil {
		return err
	}
	defer ck.Close()
	cfg, err := format.ReadModelConfig(base)
	if err != nil {
		return err
	}
	b, err := adapters.CheckpointBase(cfg, ck, adapter)
	if err != nil {
		return err
	}
	a, err := adapters.OpenToMerge(adapter, b)
	if err != nil {
		return err
	}
	defer a.Close()
	_, err = adapters.Merge(context.WithoutCancel(t.Context()), ck, cfg, []*adapters.Adapter{a}, out, opts)
	return err
}

// What is not finite in the base may stay so, where that is asked for; what the merge makes of finite
// numbers may not.
func TestMergeNonFiniteBase(t *testing.T) {
	const weight = "model.layers.0.self_attn.q_proj.weight"
	base, adapter := synthetic(t, format.BF16, 1)
	file := filepath.Join(base, "model-00001-of-00001.safetensors")
	setElement(t, file, weight, 700, 0xff80)
	out := filepath.Join(t.TempDir(), "out")
	if err := mergeOnce(t, base, adapter, out, adapters.MergeOptions{AllowNonFinite: true}); err != nil {
		t.Fatal(err)
	}
	for i, v := range values(t, filepath.Join(out, "model-00001-of-00001.safetensors"), weight) {
		if infinite := math.IsInf(float64(v), -1); infinite != (i == 700) {
			t.Errorf("element %d is %v", i, v)
		}
	}
	err := mergeOnce(t, base, adapter, filepath.Join(t.TempDir(), "out"), adapters.MergeOptions{AllowNonFinite: true, Weights: []float64{1e39}})
	if !errors.Is(err, adapters.ErrNonFinite) || errors.Is(err, adapters.ErrBaseNonFinite) {
		t.Errorf("an overflow: %v", err)
	}
}
