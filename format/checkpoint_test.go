package format_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hubtool/hubtool/format"
)

// Three ways to name the same checkpoint, which transformers split in two.
func TestOpenSharded(t *testing.T) {
	dir := "testdata/written/sharded"
	for _, path := range []string{dir, filepath.Join(dir, format.IndexFile)} {
		ck, err := format.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ck.Close()
		var names []string
		for _, s := range ck.Shards() {
			names = append(names, s.Name)
		}
		if want := []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}; !slices.Equal(names, want) {
			t.Errorf("shards %v, want %v", names, want)
		}
		n := 0
		for tensor := range ck.Tensors() {
			data, err := tensor.Bytes()
			if info := tensor.Info(); err != nil || int64(len(data)) != info.Size() {
				t.Errorf("%s: %d bytes, %v", info.Name, len(data), err)
			}
			n++
		}
		if n != 40 || ck.Path() != path || ck.Metadata()["format"] != "pt" || len(ck.Warnings()) != 0 {
			t.Errorf("%d tensors, path %s, metadata %v, warnings %v", n, ck.Path(), ck.Metadata(), ck.Warnings())
		}
		w, ok := ck.Tensor("vit.encoder.layer.1.output.dense.weight")
		if !ok || !slices.Equal(w.Info().Shape, []int{8, 16}) {
			t.Errorf("tensor found: %v", ok)
		}
		if _, ok := ck.Tensor("vit.encoder.layer.2.output.dense.weight"); ok {
			t.Error("found a tensor that does not exist")
		}
	}
}

func TestOpenPicksTheFile(t *testing.T) {
	cases := []struct {
		files []string
		want  string // the file opened, or part of the error
		is    error
	}{
		{[]string{"adapter_model.safetensors"}, "adapter_model.safetensors", nil},
		{[]string{"adapter_model.safetensors", "adapter_model.bin"}, "adapter_model.safetensors", nil},
		{[]string{"adapter_model.safetensors", "model.safetensors"}, "model.safetensors", nil},
		{[]string{"pytorch_model.bin"}, "save with safe_serialization=True", format.ErrUnsupported},
		{[]string{"pytorch_model-00001-of-00002.bin"}, "pytorch_model-00001-of-00002.bin", format.ErrUnsupported},
		{[]string{"adapter_model.bin"}, "adapter_model.bin", format.ErrUnsupported},
		{[]string{"README.md"}, "no model.safetensors", fs.ErrNotExist},
	}
	for _, c := range cases {
		dir := filepath.Join(t.TempDir(), "[odd]*")
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		for _, name := range c.files {
			if err := format.Write(t.Context(), filepath.Join(dir, name), nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		ck, err := format.Open(dir)
		if c.is != nil {
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: error %v, want one with %q", c.files, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if got := ck.Shards()[0].Name; got != c.want {
			t.Errorf("%v: opened %s, want %s", c.files, got, c.want)
		}
		ck.Close()
	}
	if _, err := format.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing path: %v", err)
	}
}

// The Hub's cache is a folder of links out of it, and blobs without extension.
func TestOpenFollowsLinks(t *testing.T) {
	root := t.TempDir()
	snapshot := filepath.Join(root, "snapshots", "abc")
	for _, dir := range []string{snapshot, filepath.Join(root, "blobs")} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", format.IndexFile} {
		blob := filepath.Join("..", "..", "blobs", fmt.Sprint(i))
		if err := os.WriteFile(filepath.Join(snapshot, blob), read(t, "testdata/written/sharded/"+name), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(blob, filepath.Join(snapshot, name)); err != nil {
			t.Skip(err)
		}
	}
	ck, err := format.Open(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	ck.Close()
}

func TestTensorsAreReadConcurrently(t *testing.T) {
	ck, err := format.Open("testdata/written/sharded")
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for tensor := range ck.Tensors() {
				data, err := tensor.Bytes()
				again, _ := ck.Tensor(tensor.Info().Name)
				data2, err2 := again.Bytes()
				if err != nil || err2 != nil || !bytes.Equal(data, data2) {
					t.Error("two reads differ", err, err2)
				}
			}
		})
	}
	wg.Wait()
}

// What an index must not get away with.
func TestHostileIndex(t *testing.T) {
	cases := map[string]struct {
		index, want string
		is          error
	}{
		"path up":              {`{"weight_map":{"a":"../a.safetensors"}}`, "not a plain file name", format.ErrDamaged},
		"path down":            {`{"weight_map":{"a":"x/a.safetensors"}}`, "not a plain file name", format.ErrDamaged},
		"absolute path":        {`{"weight_map":{"a":"/etc/a.safetensors"}}`, "not a plain file name", format.ErrDamaged},
		"drive":                {`{"weight_map":{"a":"C:a.safetensors"}}`, "not a plain file name", format.ErrDamaged},
		"backslash":            {`{"weight_map":{"a":"..\\a.safetensors"}}`, "not a plain file name", format.ErrDamaged},
		"nul byte":             {`{"weight_map":{"a":"a\u0000.safetensors"}}`, "not a plain file name", format.ErrDamaged},
		"hidden file":          {`{"weight_map":{"a":".safetensors"}}`, "not a plain file name", format.ErrDamaged},
		"device":               {`{"weight_map":{"a":"/dev/zero"}}`, "not a .safetensors file", format.ErrDamaged},
		"pickle":               {`{"weight_map":{"a":"pytorch_model.bin"}}`, "not a .safetensors file", format.ErrDamaged},
		"no weight map":        {`{"metadata":{}}`, `missing "weight_map"`, format.ErrDamaged},
		"weight map is a list": {`{"weight_map":[]}`, "expected '{'", format.ErrDamaged},
		"two weight maps":      {`{"weight_map":{},"weight_map":{}}`, `duplicate key "weight_map"`, format.ErrDamaged},
		"tensor twice":         {`{"weight_map":{"a":"1.safetensors","\u0061":"2.safetensors"}}`, `tensor "a": listed twice`, format.ErrDamaged},
		"number for a shard":   {`{"weight_map":{"a":1}}`, `expected '"'`, format.ErrDamaged},
		"size is a string":     {`{"metadata":{"total_size":"9"},"weight_map":{}}`, `"total_size" is "9"`, format.ErrDamaged},
		"not JSON":             {`weights`, "expected '{'", format.ErrDamaged},
		"trailing text":        {`{"weight_map":{}} x`, "unexpected text after", format.ErrDamaged},
		"invalid UTF-8":        {"{\"weight_map\":{\"\xff\":\"1.safetensors\"}}", "not valid UTF-8", format.ErrDamaged},
		"shard missing":        {`{"weight_map":{"a":"3.safetensors"}}`, `3.safetensors": no such file`, fs.ErrNotExist},
		"tensor missing":       {`{"weight_map":{"a":"1.safetensors","x":"1.safetensors"}}`, `tensor "x": the index places it in "1.safetensors"`, format.ErrDamaged},
		"tensor elsewhere":     {`{"weight_map":{"a":"2.safetensors","b":"1.safetensors"}}`, `tensor "a": the index places it in "2.safetensors"`, format.ErrDamaged},
		"tensor in two shards": {`{"weight_map":{"a":"1.safetensors","b":"twin.safetensors"}}`, `tensor "a": also defined in "1.safetensors"`, format.ErrDamaged},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := twoShards(t, c.index)
			_, err := format.Open(dir)
			if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.is) || !strings.Contains(err.Error(), dir) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestIndexWarnings(t *testing.T) {
	ck, err := format.Open(twoShards(t, `{"metadata":{"total_size":7.0},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	want := []string{`tensor "c" of "2.safetensors" is not in the index`, "the index announces 7 bytes of tensors, the shards have 3"}
	if got := ck.Warnings(); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
	if _, ok := ck.Tensor("c"); !ok {
		t.Error("the tensor that the index forgot is not there")
	}
}

// twoShards makes a folder with tensor a in shard 1, b and c in shard 2, and
// both a and b in a shard called twin.
func twoShards(t *testing.T, index string) string {
	t.Helper()
	dir := t.TempDir()
	a, b, c := tensor("a", format.U8, []int{1}, 1), tensor("b", format.U8, []int{1}, 2), tensor("c", format.U8, []int{1}, 3)
	for name, tensors := range map[string][]format.Tensor{"1": {a}, "2": {b, c}, "twin": {a, b}} {
		if err := format.Write(t.Context(), filepath.Join(dir, name+".safetensors"), tensors, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, format.IndexFile), []byte(index), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestIndexIsWrittenAsTransformersDoes(t *testing.T) {
	path := "testdata/written/sharded/" + format.IndexFile
	ix, err := format.ReadIndex(path)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), format.IndexFile)
	if err := ix.Write(out); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, out), read(t, path); !bytes.Equal(got, want) {
		t.Errorf("wrote\n%s\nwant\n%s", got, want)
	}
}

// A file that shrinks under our hands is an error, not zeros.
func TestTruncatedWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := format.Write(t.Context(), path, []format.Tensor{tensor("a", format.U8, []int{4}, 1, 2, 3, 4)}, nil); err != nil {
		t.Fatal(err)
	}
	ck, err := format.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	if err := os.Truncate(path, int64(len(read(t, path))-1)); err != nil {
		t.Fatal(err)
	}
	a, _ := ck.Tensor("a")
	if _, err := a.Bytes(); err == nil || !strings.Contains(err.Error(), "unexpected EOF") || !strings.Contains(err.Error(), path) {
		t.Errorf("Bytes: %v", err)
	}
	out := filepath.Join(t.TempDir(), "y.safetensors")
	if err := format.Write(t.Context(), out, []format.Tensor{a}, nil); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("Write: %v", err)
	}
}

// A device or a pipe has no size, and may block whoever opens it.
func TestOpenRefusesSpecialFiles(t *testing.T) {
	if _, err := os.Stat("/dev/null"); err != nil {
		t.Skip(err)
	}
	if _, err := format.Open("/dev/null"); !errors.Is(err, format.ErrUnsupported) {
		t.Errorf("error %v", err)
	}
	if _, _, err := format.Load("/dev/null"); !errors.Is(err, format.ErrUnsupported) {
		t.Errorf("error %v", err)
	}
}

func TestHeaderLimits(t *testing.T) {
	entry := func(name, shape string) string {
		return fmt.Sprintf(`%q:{"dtype":"U8","shape":[%s],"data_offsets":[0,0]}`, name, shape)
	}
	many := func(n int) string {
		var b strings.Builder
		b.WriteByte('{')
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(entry(fmt.Sprint(i), "0"))
		}
		return b.String() + "}"
	}
	zeros := func(n int) string { return strings.TrimSuffix(strings.Repeat("0,", n), ",") }
	lim := format.Limits{HeaderBytes: 10_000_000, Tensors: 1000, Rank: 8, NameBytes: 10}
	cases := map[string]struct {
		header, want string
	}{
		"just right":       {many(1000), ""},
		"tensors":          {many(1001), "more than 1000 tensors"},
		"rank ok":          {"{" + entry("a", zeros(8)) + "}", ""},
		"rank":             {"{" + entry("a", zeros(9)) + "}", "more than 8 dimensions"},
		"rank bomb":        {"{" + entry("a", zeros(4_000_000)) + "}", "more than 8 dimensions"},
		"name":             {"{" + entry("0123456789x", "0") + "}", "name of 11 bytes"},
		"bytes":            {"{" + strings.Repeat(" ", 10_000_000) + "}", "exceeds the limit of 10000000"},
		"offsets bomb":     {`{"a":{"data_offsets":[` + zeros(1_000_000) + `]}}`, "more than two numbers"},
		"metadata in full": {`{"__metadata__":{"a":"` + strings.Repeat("x", 1_000_000) + `"}}`, ""},
	}
	for name, c := range cases {
		_, err := format.ParseHeader([]byte(c.header), 0, lim)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
	h, err := format.ParseHeader([]byte("{"+entry("a", zeros(100))+"}"), -1, format.Limits{})
	if err != nil || len(h.Entries()[0].Shape) != 100 {
		t.Errorf("without limits: %v", err)
	}
}

func TestFloats(t *testing.T) {
	ck, err := format.Open("testdata/written/floats.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	for _, name := range []string{"f16", "bf16", "f64"} {
		narrow, _ := ck.Tensor(name)
		wide, _ := ck.Tensor(name + ".f32")
		got, err := format.Floats(narrow)
		want, err2 := format.Floats(wide)
		if err != nil || err2 != nil || len(got) == 0 {
			t.Fatal(err, err2)
		}
		for i := range want { // bits, for the sign of zero
			if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
				t.Errorf("%s[%d] is %g, torch says %g", name, i, got[i], want[i])
			}
		}
	}
	if _, err := format.Floats(tensor("i", format.I32, nil, 0, 0, 0, 0)); !errors.Is(err, format.ErrUnsupported) {
		t.Errorf("I32: %v", err)
	}
	if _, err := format.Floats(tensor("i", format.F32, []int{1 << 40}, 0, 0, 0, 0)); err == nil {
		t.Error("allocated for a shape that the data does not have")
	}
}

// Files are widened piece by piece.
func TestFloatsOfManyPieces(t *testing.T) {
	values := make([]float32, 100_003)
	for i := range values {
		values[i] = float32(i%251) - 17
	}
	path := filepath.Join(t.TempDir(), "long.safetensors")
	var list []format.Tensor
	for _, d := range []format.DType{format.F32, format.BF16, format.F16, format.F64} {
		data, err := format.Narrow(d, values)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, format.NewTensor(format.TensorInfo{Name: d.String(), DType: d, Shape: []int{len(values)}}, data))
	}
	if err := format.Write(t.Context(), path, list, nil); err != nil {
		t.Fatal(err)
	}
	ck, err := format.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	for stored := range ck.Tensors() {
		if got, err := format.Floats(stored); err != nil || !slices.Equal(got, values) {
			t.Errorf("%s: %d other values, %v", stored.Info().Name, len(got), err)
		}
	}
}

func TestDTypes(t *testing.T) {
	// The list of the reference implementation, in its order.
	want := strings.Fields("BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ " +
		"I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64")
	for i, name := range want {
		d, err := format.ParseDType(name)
		if err != nil || int(d) != i || d.String() != name || d.Bits() == 0 {
			t.Errorf("%s: %d %s of %d bits, %v", name, d, d, d.Bits(), err)
		}
	}
	if _, err := format.ParseDType("f32"); err == nil {
		t.Error("read a lower-case dtype")
	}
	if d := format.DType(22); d.Bits() != 0 || d.String() != "DType(22)" {
		t.Errorf("invalid dtype: %s of %d bits", d, d.Bits())
	}
}

func TestShapesAreNotShared(t *testing.T) {
	ck, err := format.Open("testdata/written/one.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	w, _ := ck.Tensor("w")
	w.Info().Shape[0] = 99
	if got := w.Info().Shape; !slices.Equal(got, []int{2, 3}) {
		t.Errorf("a caller changed the shape to %v", got)
	}
}
