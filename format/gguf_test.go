package format_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hubtool/hubtool/format"
)

// The whole of a small file, by hand after ggml's docs/gguf.md. test_gguf.py reads larger ones with the Python package gguf.
func TestWriteGGUF(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.gguf")
	fields := []format.GGUFField{{"k", "text"}, {"alpha", float32(1)}}
	tensors := []format.Tensor{format.FloatTensor("b", []int{1, 3}, []float32{1, 2, 3}), format.FloatTensor("a", []int{2}, []float32{4, 5})}
	if err := format.WriteGGUF(t.Context(), path, fields, tensors); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := func(b byte) string { return string([]byte{b, 0, 0, 0, 0, 0, 0, 0}) } // 64 bits
	zeros := func(n int) string { return string(make([]byte, n)) }
	head := "GGUF\x03\x00\x00\x00" + n(2) + n(2) +
		n(1) + "k" + "\x08\x00\x00\x00" + n(4) + "text" +
		n(5) + "alpha" + "\x06\x00\x00\x00" + "\x00\x00\x80\x3f" +
		n(1) + "b" + "\x02\x00\x00\x00" + n(3) + n(1) + "\x00\x00\x00\x00" + n(0) + // the last dimension first
		n(1) + "a" + "\x01\x00\x00\x00" + n(2) + "\x00\x00\x00\x00" + n(32)
	want := head + zeros((32-len(head)%32)%32) +
		"\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x40\x40" + zeros(20) +
		"\x00\x00\x80\x40\x00\x00\xa0\x40" + zeros(24)
	if string(got) != want {
		t.Errorf("the file is\n%q, want\n%q", got, want)
	}
}

func TestWriteGGUFFails(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	one := format.FloatTensor("a", []int{1}, []float32{1})
	for name, c := range map[string]struct {
		ctx    context.Context
		field  any
		tensor format.Tensor
		want   error
	}{
		"value":     {t.Context(), 1, one, format.ErrUnsupported},
		"type":      {t.Context(), "", format.NewTensor(format.TensorInfo{Name: "a", DType: format.I8, Shape: []int{1}}, []byte{1}), format.ErrUnsupported},
		"cancelled": {cancelled, "", one, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := format.WriteGGUF(c.ctx, filepath.Join(dir, "a.gguf"), []format.GGUFField{{"k", c.field}}, []format.Tensor{c.tensor})
			if !errors.Is(err, c.want) {
				t.Errorf("error is %v, want %v", err, c.want)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("%s is left", left[0].Name())
			}
		})
	}
}
