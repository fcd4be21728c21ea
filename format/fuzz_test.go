package format_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nlpodyssey/safetensors"

	"github.com/hubtool/hubtool/format"
)

// What we accept, the port accepts as the same tensors, for the element types
// it has; and writing what we read is stable.
func FuzzHeader(f *testing.F) {
	files, _ := filepath.Glob("testdata/hostile/*.safetensors")
	written, _ := filepath.Glob("testdata/written/*.safetensors")
	for _, file := range append(files, written...) {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(raw) < 8 {
			continue
		}
		n := min(binary.LittleEndian.Uint64(raw), uint64(len(raw)-8))
		f.Add(raw[8:8+n], uint16(uint64(len(raw)-8)-n))
	}
	f.Fuzz(func(t *testing.T, text []byte, dataSize uint16) {
		h, err := format.ParseHeader(text, int64(dataSize), format.DefaultLimits)
		if err != nil {
			return
		}
		var infos []format.TensorInfo
		for _, e := range h.Entries() {
			infos = append(infos, e.TensorInfo)
		}
		again, err := format.NewHeader(infos, h.Metadata())
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		parsed, err := format.ParseHeader(again.Raw(), int64(dataSize), format.DefaultLimits)
		if err != nil {
			t.Fatalf("cannot read what was written: %v", err)
		}
		if third, err := format.NewHeader(infos, parsed.Metadata()); err != nil || !bytes.Equal(third.Raw(), again.Raw()) {
			t.Fatalf("unstable: %s then %s, %v", again.Raw(), third.Raw(), err)
		}

		file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
		views, err := safetensors.Deserialize(append(file, make([]byte, dataSize)...))
		for _, e := range h.Entries() {
			if _, err := safetensors.ParseDType(e.DType.String()); err != nil {
				return
			}
		}
		if err != nil {
			t.Fatalf("the port refuses: %v", err)
		}
		if views.Len() != len(infos) {
			t.Fatalf("the port has %d tensors, we have %d", views.Len(), len(infos))
		}
		for _, e := range h.Entries() {
			v, ok := views.Tensor(e.Name)
			if !ok || v.DType().String() != e.DType.String() || int64(v.DataLen()) != e.End-e.Begin ||
				!slices.EqualFunc(v.Shape(), e.Shape, func(a uint64, b int) bool { return a == uint64(b) }) {
				t.Fatalf("the port has another %q", e.Name)
			}
		}
	})
}

func FuzzIndex(f *testing.F) {
	for _, file := range []string{"testdata/written/sharded/" + format.IndexFile, "testdata/written/sharded/config.json"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"metadata":{"total_size":1e3},"weight_map":{"a":"../a.safetensors","\u00e9":"b.safetensors"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		ix, err := format.ParseIndex(text)
		if err != nil {
			return
		}
		for tensor, shard := range ix.WeightMap {
			if filepath.Base(shard) != shard || filepath.Ext(shard) != ".safetensors" || !filepath.IsLocal(shard) {
				t.Fatalf("tensor %q leads to %q", tensor, shard)
			}
		}
		out, err := ix.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		back, err := format.ParseIndex(out)
		if err != nil || len(back.WeightMap) != len(ix.WeightMap) {
			t.Fatalf("cannot read back %s: %v", out, err)
		}
	})
}

func FuzzAdapterConfig(f *testing.F) {
	files, _ := filepath.Glob("testdata/configs/*.json")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"peft_type":"X","rank_pattern":{"a":1},"alpha_pattern":{"b":-0.5e-3},"n":[{},[],"\ud83d\ude00",1e300]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := format.ParseAdapterConfig(text)
		if err != nil {
			return
		}
		out, err := c.MarshalJSON()
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		again, err := format.ParseAdapterConfig(out)
		if err != nil {
			t.Fatalf("cannot read %s: %v", out, err)
		}
		if second, err := again.MarshalJSON(); err != nil || !bytes.Equal(out, second) {
			t.Fatalf("unstable: %s then %s, %v", out, second, err)
		}
		var m loraMethod
		if c.Method(&m) == nil && c.SetMethod(&m) != nil {
			t.Fatal("cannot set what was got")
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"vit.encoder.layer.0.attention.output.dense.weight", "layers.0.mlp.fc2", "vit.vit.layers.1", "encoder.layer..output.dense"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		c := format.Canonical("vit", name)
		if again := format.Canonical("vit", c); again != c {
			t.Fatalf("%q becomes %q becomes %q", name, c, again)
		}
		for _, s := range format.Spellings("vit", c) {
			if back := format.Canonical("vit", s); back != c {
				t.Fatalf("%q is spelled %q, which is canonically %q", c, s, back)
			}
		}
	})
}
