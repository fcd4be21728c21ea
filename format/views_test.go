package format_test

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nlpodyssey/safetensors"

	"github.com/hubtool/hubtool/format"
)

// Loaded whole or opened lazily, a file has the same tensors in the same order.
func TestLoadEqualsOpen(t *testing.T) {
	files, _ := filepath.Glob("testdata/written/*.safetensors")
	for _, file := range files {
		if strings.Contains(file, "all-dtypes") {
			continue
		}
		tensors, meta, err := format.Load(file)
		if err != nil {
			t.Error(err)
			continue
		}
		ck, err := format.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for want := range ck.Tensors() {
			info, got := want.Info(), tensors[i].Info()
			a, err := want.Bytes()
			b, err2 := tensors[i].Bytes()
			if err != nil || err2 != nil || string(a) != string(b) || info.Name != got.Name || info.DType != got.DType || !slices.Equal(info.Shape, got.Shape) {
				t.Errorf("%s: tensor %d is %v, opened %v (%v, %v)", file, i, got, info, err, err2)
			}
			i++
		}
		if i != len(tensors) || !maps.Equal(meta, ck.Metadata()) {
			t.Errorf("%s: %d tensors, opened %d; metadata %v", file, len(tensors), i, meta)
		}
		ck.Close()
	}
}

// The port has no type for these.
func TestLoadRefusesTypesOfThePort(t *testing.T) {
	_, _, err := format.Load("testdata/written/all-dtypes.safetensors")
	if !errors.Is(err, format.ErrUnsupported) || !strings.Contains(err.Error(), "convert the file to F32, F16 or BF16") {
		t.Errorf("error %v", err)
	}
	if _, _, err := format.Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("loaded a file that does not exist")
	}
}

func TestViews(t *testing.T) {
	views, err := format.Views(read(t, "testdata/written/odd-shapes.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	row, ok := views.Tensor("row")
	if !ok || row.DType() != safetensors.I64 || !slices.Equal(row.Shape(), []uint64{1, 2}) || views.Len() != 5 {
		t.Errorf("tensors %v", views.Names())
	}
	// And back: what that package made, we write.
	tensor, err := format.FromView("row", row)
	if err != nil {
		t.Fatal(err)
	}
	if got := tensor.Info(); got.DType != format.I64 || !slices.Equal(got.Shape, []int{1, 2}) {
		t.Errorf("%+v", got)
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := format.Write(t.Context(), path, []format.Tensor{tensor}, nil); err != nil {
		t.Error(err)
	}
	if _, err := format.FromView("huge", view{shape: []uint64{1 << 63}}); !errors.Is(err, format.ErrUnsupported) {
		t.Errorf("dimension 2^63: %v", err)
	}
	short, err := format.FromView("short", view{shape: []uint64{4}})
	if err != nil {
		t.Fatal(err)
	}
	if err := format.Write(t.Context(), path, []format.Tensor{short}, nil); err == nil || !strings.Contains(err.Error(), "needs 4 bytes, have 1") {
		t.Errorf("a view that is shorter than its shape: %v", err)
	}
}

// view is a safetensors.View of one byte.
type view struct{ shape []uint64 }

func (view) DType() safetensors.DType { return safetensors.U8 }
func (v view) Shape() []uint64        { return v.shape }
func (view) Data() []byte             { return []byte{1} }
func (view) DataLen() uint64          { return 1 }

func TestHeaderLookup(t *testing.T) {
	ck, err := format.Open("testdata/written/odd-shapes.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	h := ck.Shards()[0].Header
	for _, e := range h.Entries() {
		got, ok := h.Lookup(e.Name)
		if !ok || got.Begin != e.Begin || got.End != e.End || got.Size() != e.End-e.Begin {
			t.Errorf("%+v, entry %+v", got, e)
		}
	}
	if _, ok := h.Lookup("none"); ok {
		t.Error("found what is not there")
	}
	if want := int64(len(read(t, "testdata/written/odd-shapes.safetensors"))); h.FileSize() != want || h.DataOffset()+h.DataSize() != want {
		t.Errorf("file size %d, want %d", h.FileSize(), want)
	}
}
