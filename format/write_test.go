package format_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nlpodyssey/safetensors"

	"github.com/hubtool/hubtool/format"
)

// Files that Python wrote come out byte for byte when read and written again,
// whatever the order in which the tensors are handed over.
func TestWriteIsByteIdenticalToPython(t *testing.T) {
	files, _ := filepath.Glob("testdata/written/*.safetensors")
	shards, _ := filepath.Glob("testdata/written/sharded/*.safetensors")
	if files = append(files, shards...); len(files) < 8 {
		t.Fatalf("only %d golden files", len(files))
	}
	for _, file := range files {
		ck, err := format.Open(file)
		if err != nil {
			t.Error(err)
			continue
		}
		tensors := slices.Collect(ck.Tensors())
		slices.Reverse(tensors)
		out := filepath.Join(t.TempDir(), "copy.safetensors")
		if err := format.Write(t.Context(), out, tensors, ck.Metadata()); err != nil {
			t.Errorf("%s: %v", file, err)
		} else if got, want := read(t, out), read(t, file); !bytes.Equal(got, want) {
			t.Errorf("%s: wrote\n%q, Python wrote\n%q", file, got, want)
		}
		ck.Close()
	}
}

func TestWriteOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	err := format.Write(t.Context(), path, []format.Tensor{
		tensor("b", format.U8, []int{1}, 1), tensor("a", format.U8, []int{1}, 2),
		tensor("z", format.BF16, []int{1}, 3, 4), tensor("y", format.F32, []int{1}, 5, 6, 7, 8),
	}, map[string]string{"z": "1", "a": "2"})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"__metadata__":{"a":"2","z":"1"},"y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},` +
		`"z":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]},"a":{"dtype":"U8","shape":[1],"data_offsets":[6,7]},` +
		`"b":{"dtype":"U8","shape":[1],"data_offsets":[7,8]}}`
	got := read(t, path)
	if header := strings.TrimRight(string(got[8:len(got)-8]), " "); header != want {
		t.Errorf("header %s\nwant   %s", header, want)
	}
	if data := got[len(got)-8:]; !bytes.Equal(data, []byte{5, 6, 7, 8, 3, 4, 2, 1}) {
		t.Errorf("data %v", data)
	}
	if len(got)%8 != 0 {
		t.Errorf("data starts at %d, not a multiple of 8", len(got)-8)
	}
}

// What the port writes without a check, and nobody can read (spec w1 to w10).
func TestWriteRefuses(t *testing.T) {
	long := strings.Repeat("x", 5000)
	cases := map[string]struct {
		tensors []format.Tensor
		meta    map[string]string
		want    string
	}{
		"w2 shape overflows":        {tensors: []format.Tensor{tensor("a", format.F32, []int{1 << 62, 4})}, want: "no valid size"},
		"w3 invalid dtype":          {tensors: []format.Tensor{tensor("a", 77, []int{1}, 1)}, want: "invalid dtype DType(77)"},
		"w5 shape disagrees":        {tensors: []format.Tensor{tensor("a", format.F32, []int{100}, 1)}, want: "needs 400 bytes, have 1"},
		"w6 length lies":            {tensors: []format.Tensor{liar{}}, want: "delivered 3 bytes, announced 4"},
		"w6 stream ends early":      {tensors: []format.Tensor{shortStream{}}, want: "delivered 3 bytes, announced 4"},
		"w7 reserved name":          {tensors: []format.Tensor{tensor("__metadata__", format.U8, []int{1}, 1)}, want: "reserved"},
		"w8 invalid UTF-8":          {tensors: []format.Tensor{tensor("\xff", format.U8, []int{1}, 1)}, want: "not valid UTF-8"},
		"w9 header over the limit":  {meta: map[string]string{"a": strings.Repeat("x", 100_000_000)}, want: "exceeds the limit of 100000000"},
		"name given twice":          {tensors: []format.Tensor{tensor("a", format.U8, []int{1}, 1), tensor("a", format.F32, []int{0})}, want: `"a": given twice`},
		"negative dimension":        {tensors: []format.Tensor{tensor("a", format.U8, []int{-1})}, want: "no valid size"},
		"two negative dimensions":   {tensors: []format.Tensor{tensor("a", format.U8, []int{-1, -1}, 1)}, want: "no valid size"},
		"packed elements left over": {tensors: []format.Tensor{tensor("a", format.F4, []int{3}, 1, 2)}, want: "no valid size"},
		"too many dimensions":       {tensors: []format.Tensor{tensor("a", format.U8, make([]int, 65))}, want: "65 dimensions"},
		"name too long":             {tensors: []format.Tensor{tensor(long, format.U8, []int{1}, 1)}, want: "limit of 4096 bytes"},
		"metadata not UTF-8":        {meta: map[string]string{"a": "\xff"}, want: "not valid UTF-8"},
		"file size overflows": {tensors: []format.Tensor{
			tensor("a", format.U8, []int{1 << 62}), tensor("b", format.U8, []int{1 << 62})}, want: "overflows"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "x.safetensors")
			err := format.Write(t.Context(), path, c.tensors, c.meta)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one with %q and the path", err, c.want)
			}
			empty(t, dir)
		})
	}
}

// And what the port cannot write although it is sound.
func TestWriteAccepts(t *testing.T) {
	cases := map[string]struct {
		tensors []format.Tensor
		meta    map[string]string
		header  string
	}{
		"w1 scalar":             {tensors: []format.Tensor{tensor("a", format.F32, []int{}, 0, 0, 0, 0)}, header: `{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}`},
		"w4 nil shape":          {tensors: []format.Tensor{tensor("a", format.F32, nil, 0, 0, 0, 0)}, header: `{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}`},
		"w10 empty metadata":    {meta: map[string]string{}, header: `{"__metadata__":{}}`},
		"no metadata":           {header: `{}`},
		"no elements":           {tensors: []format.Tensor{tensor("a", format.F64, []int{5, 0})}, header: `{"a":{"dtype":"F64","shape":[5,0],"data_offsets":[0,0]}}`},
		"packed elements":       {tensors: []format.Tensor{tensor("a", format.F6_E2M3, []int{4}, 1, 2, 3)}, header: `{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}`},
		"empty name, HTML text": {tensors: []format.Tensor{tensor("", format.U8, []int{1}, 1)}, meta: map[string]string{"<": "&\u2028"}, header: "{\"__metadata__\":{\"<\":\"&\u2028\"},\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.safetensors")
			if err := format.Write(t.Context(), path, c.tensors, c.meta); err != nil {
				t.Fatal(err)
			}
			ck, err := format.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer ck.Close()
			if got := strings.TrimRight(string(ck.Shards()[0].Header.Raw()), " "); got != c.header {
				t.Errorf("header %s, want %s", got, c.header)
			}
			if got := ck.Metadata(); !maps.Equal(got, c.meta) || (got == nil) != (c.meta == nil) {
				t.Errorf("metadata %v, want %v", got, c.meta)
			}
		})
	}
}

func TestWriteLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.safetensors")
	good := tensor("a", format.U8, []int{1}, 1)

	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop here")
	cancel(stop)
	if err := format.Write(ctx, path, []format.Tensor{good}, nil); !errors.Is(err, stop) {
		t.Errorf("cancelled before: error %v", err)
	}
	empty(t, dir)

	ctx, cancel = context.WithCancelCause(t.Context())
	err := format.Write(ctx, path, []format.Tensor{stream{size: 64 << 20, at: func(n int64) {
		if n > 8<<20 {
			cancel(stop)
		}
		if n > 32<<20 {
			t.Error("still writing long after the context ended")
		}
	}}}, nil)
	if !errors.Is(err, stop) {
		t.Errorf("cancelled inside a tensor: error %v", err)
	}
	empty(t, dir)

	broken := errors.New("disk on fire")
	if err := format.Write(t.Context(), path, []format.Tensor{good, failing{broken}}, nil); !errors.Is(err, broken) || !strings.Contains(err.Error(), `tensor "bad"`) {
		t.Errorf("failing tensor: error %v", err)
	}
	empty(t, dir)

	if err := format.Write(t.Context(), filepath.Join(dir, "missing", "x"), nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such folder: error %v", err)
	}

	// The target is a folder: found out at the rename only.
	if err := os.MkdirAll(filepath.Join(dir, "folder", "inside"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := format.Write(t.Context(), filepath.Join(dir, "folder"), []format.Tensor{good}, nil); err == nil {
		t.Error("replaced a folder by a file")
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*.partial")); len(names) > 0 {
		t.Errorf("left %v", names)
	}
}

func TestWriteKeepsTheOldFileUntilTheEnd(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.safetensors")
	if err := format.WriteFileAtomic(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := format.Write(t.Context(), path, []format.Tensor{failing{io.ErrUnexpectedEOF}}, nil); err == nil {
		t.Fatal("no error")
	}
	if got := read(t, path); string(got) != "old" {
		t.Errorf("old content became %q", got)
	}
	// A crash leaves a partial file; so may anyone who plants a link.
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path+".partial"); err != nil {
		t.Skip(err)
	}
	// The target itself is a link into a cache whose blobs must not change.
	os.Remove(path)
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if err := format.Write(t.Context(), path, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := read(t, victim); string(got) != "mine" {
		t.Errorf("wrote %q through a link", got)
	}
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v, %v: not a regular file", info.Mode(), err)
	}
}

// Two processes that write the same file: the one that began first must not
// put what the other has so far under the final name.
func TestWriteTwiceAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	var inner error
	err := format.Write(t.Context(), path, []format.Tensor{stream{size: 1 << 20, at: func(int64) {
		inner = format.Write(t.Context(), path, []format.Tensor{stream{size: 2 << 20, at: func(int64) {}}}, nil)
	}}}, nil)
	if inner != nil || err == nil || !strings.Contains(err.Error(), "another process is writing") {
		t.Errorf("first %v, second %v", err, inner)
	}
	ck, err := format.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	if size := ck.Shards()[0].Header.DataSize(); size != 2<<20 {
		t.Errorf("the file holds %d bytes of data", size)
	}
}

// Every file we write, the port reads as the same tensors, where it can.
func TestPortReadsWhatWeWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	values := []float32{1, -2, 0.5, 3e38}
	if err := format.Write(t.Context(), path, []format.Tensor{
		format.FloatTensor("f", []int{2, 2}, values), tensor("i", format.I64, []int{0, 3}), tensor("s", format.BF16, nil, 1, 2),
	}, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	views, err := safetensors.Deserialize(read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	f, _ := views.Tensor("f")
	if views.Len() != 3 || f.DType() != safetensors.F32 || !slices.Equal(f.Shape(), []uint64{2, 2}) {
		t.Errorf("the port reads %v", views.Names())
	}
	back, err := format.FromView("f", f)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := format.Floats(back); err != nil || !slices.Equal(got, values) {
		t.Errorf("%v, %v", got, err)
	}
}

// ---- tensors that misbehave ----

type liar struct{}

func (liar) Info() format.TensorInfo {
	return format.TensorInfo{Name: "liar", DType: format.U8, Shape: []int{4}}
}
func (liar) Bytes() ([]byte, error) { return make([]byte, 3), nil }

type shortStream struct{ liar }

func (shortStream) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(make([]byte, 3))
	return int64(n), err
}

type failing struct{ err error }

func (failing) Info() format.TensorInfo {
	return format.TensorInfo{Name: "bad", DType: format.U8, Shape: []int{4}}
}
func (f failing) Bytes() ([]byte, error) { return nil, f.err }

// stream writes a large tensor in pieces and reports how far it is.
type stream struct {
	size int64
	at   func(int64)
}

func (s stream) Info() format.TensorInfo {
	return format.TensorInfo{Name: "big", DType: format.U8, Shape: []int{int(s.size)}}
}
func (s stream) Bytes() ([]byte, error) { return nil, errors.New("asked for all bytes at once") }
func (s stream) WriteTo(w io.Writer) (n int64, err error) {
	for piece := make([]byte, 1<<20); n < s.size && err == nil; {
		var m int
		m, err = w.Write(piece)
		n += int64(m)
		s.at(n)
	}
	return n, err
}

func tensor(name string, d format.DType, shape []int, data ...byte) format.Tensor {
	return format.NewTensor(format.TensorInfo{Name: name, DType: d, Shape: shape}, data)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func empty(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
