package format_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/hubtool/hubtool/format"
)

// Diff tells what differs and by how much, over types and shapes, and sees through a prefix before all names.
func TestDiff(t *testing.T) {
	open := func(tensors ...format.Tensor) *format.Checkpoint {
		t.Helper()
		path := filepath.Join(t.TempDir(), "model.safetensors")
		if err := format.Write(t.Context(), path, tensors, nil); err != nil {
			t.Fatal(err)
		}
		ck, err := format.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ck.Close() })
		return ck
	}
	one, two := []byte{0, 0, 128, 63}, []byte{0, 0, 0, 64} // 1 and 2 in float32
	vector := func(name string, values ...[]byte) format.Tensor {
		return tensor(name, format.F32, []int{len(values)}, slices.Concat(values...)...)
	}
	changed := format.Difference{Name: "b", Status: "changed", Elements: 4, Different: 1, MaxAbs: 1, RMS: 0.5}
	prefixed := changed
	prefixed.Name = "vit.b"
	classifier := open(vector("classifier", one), vector("vit.a", one), vector("vit.b", one, one, one, one))
	for _, tt := range []struct {
		name  string
		a, b  *format.Checkpoint
		equal int
		want  []format.Difference
	}{
		{"values", open(vector("a", one), vector("b", one, one, one, one)), open(vector("a", one), vector("b", one, two, one, one)), 1, []format.Difference{changed}},
		{"shapes and types", open(vector("a", one), vector("b", one)), open(vector("a", one, one), tensor("b", format.BF16, []int{1}, 128, 63)), 0, []format.Difference{
			{Name: "a", Status: "shape", Detail: "[1] and [2]"}, {Name: "b", Status: "dtype", Detail: "F32 and BF16", Elements: 1},
		}},
		{"packed bytes", open(tensor("a", format.U8, []int{2}, 1, 2)), open(tensor("a", format.U8, []int{2}, 1, 3)), 0, []format.Difference{{Name: "a", Status: "changed", Elements: 2, Different: 1}}},
		{"names", open(vector("a", one), vector("b", one)), open(vector("a", one), vector("c", one)), 1, []format.Difference{{Name: "b", Status: "only in first"}, {Name: "c", Status: "only in second"}}},
		{"prefix in the first", classifier, open(vector("a", one), vector("b", one, two, one, one), vector("pooler", one)), 1, []format.Difference{
			{Name: "classifier", Status: "only in first"}, prefixed, {Name: "pooler", Status: "only in second"},
		}},
		{"prefix in the second", open(vector("a", one), vector("b", one, two, one, one), vector("pooler", one)), classifier, 1, []format.Difference{
			changed, {Name: "pooler", Status: "only in first"}, {Name: "classifier", Status: "only in second"},
		}},
	} {
		got, equal, err := format.Diff(t.Context(), tt.a, tt.b, nil)
		byName := func(a, b format.Difference) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) }
		slices.SortFunc(got, byName)
		slices.SortFunc(tt.want, byName)
		if err != nil || equal != tt.equal || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %d equal and %+v, %v; want %d and %+v", tt.name, equal, got, err, tt.equal, tt.want)
		}
	}
}
