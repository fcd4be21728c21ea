package format_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hubtool/hubtool/format"
)

// rewritten is a checkpoint of several MB: a long tensor with rows of an odd size, one that is a
// single row longer than any buffer, small ones, and an empty one.
func rewritten(t *testing.T) (*format.Checkpoint, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.safetensors")
	var tensors []format.Tensor
	for _, s := range [][]int{{900_001, 7}, {1, 5 << 20}, {3}, {0, 4}, {1000, 1000}, {99}} {
		info := format.TensorInfo{Name: fmt.Sprint("t", s), DType: format.U8, Shape: s}
		data := make([]byte, info.Size())
		for i := range data {
			data[i] = byte(i*7 + i>>8)
		}
		tensors = append(tensors, format.NewTensor(info, data))
	}
	if err := format.Write(t.Context(), path, tensors, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	ck, err := format.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ck.Close() })
	return ck, filepath.Join(t.TempDir(), "out.safetensors")
}

func pieces(ck *format.Checkpoint) (list []format.TensorInfo, all map[string]format.Piece) {
	all = map[string]format.Piece{}
	for t := range ck.Tensors() {
		list = append(list, t.Info())
		all[t.Info().Name] = format.Piece{TensorInfo: t.Info(), From: t}
	}
	return list, all
}

// increment is a patch that adds one to every byte and checks what it is given.
func increment(t *testing.T, block, size int64) *format.Patch {
	return &format.Patch{Block: block, Start: func() (func(int64, []byte) error, error) {
		next := int64(0)
		return func(at int64, data []byte) error {
			if at != next || at%block != 0 || int64(len(data))%block != 0 || len(data) == 0 || at+int64(len(data)) > size {
				t.Errorf("block of %d: %d bytes at %d of %d, expected them at %d", block, len(data), at, size, next)
			}
			next = at + int64(len(data))
			for i := range data {
				data[i]++
			}
			return nil
		}, nil
	}}
}

// A copy is the file itself; patches see whole blocks and change only their tensor.
func TestRewrite(t *testing.T) {
	for _, patched := range []bool{false, true} {
		ck, out := rewritten(t)
		list, all := pieces(ck)
		h, err := format.LikeHeader(ck.Shards()[0].Header, list)
		if err != nil {
			t.Fatal(err)
		}
		want := read(t, ck.Shards()[0].Path)
		if patched {
			for name, p := range all {
				p.Patch = increment(t, int64(p.Shape[len(p.Shape)-1]), p.Size())
				all[name] = p
			}
			for i := range want[h.DataOffset():] {
				want[h.DataOffset()+int64(i)]++
			}
		}
		progress := int64(0)
		written, err := format.Rewrite(t.Context(), out, h, all, format.RewriteOptions{Progress: func(n int64) { progress += n }})
		if err != nil {
			t.Fatal(err)
		}
		got := read(t, out)
		if !bytes.Equal(got, want) {
			t.Errorf("patched %t: the file differs", patched)
		}
		sum := sha256.Sum256(want)
		if written.Size != int64(len(want)) || progress != written.Size || written.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("wrote %+v after %d bytes, want %d, %x", written, progress, len(want), sum)
		}
	}
}

// With other names, shapes or tensors there is a new header, which keeps the metadata.
func TestLikeHeader(t *testing.T) {
	ck, out := rewritten(t)
	old := ck.Shards()[0].Header
	list, all := pieces(ck)
	list = append(list, format.TensorInfo{Name: "new", DType: format.F32, Shape: []int{2}})
	all["new"] = format.Piece{From: format.FloatTensor("new", []int{2}, []float32{1, 2})}
	h, err := format.LikeHeader(old, list)
	if err != nil {
		t.Fatal(err)
	}
	if h == old || h.Metadata()["format"] != "pt" {
		t.Errorf("header %s", h.Raw())
	}
	if _, err := format.Rewrite(t.Context(), out, h, all, format.RewriteOptions{}); err != nil {
		t.Fatal(err)
	}
	again, err := format.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for _, info := range list {
		tensor, ok := again.Tensor(info.Name)
		if !ok {
			t.Fatalf("no %s", info.Name)
		}
		got, err := tensor.Bytes()
		want, err2 := all[info.Name].From.Bytes()
		if err := errors.Join(err, err2); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs: %v", info.Name, err)
		}
	}
	renamed := slices.Clone(list[:5])
	renamed[2].Name = "t[4]"
	if h, err := format.LikeHeader(old, renamed); err != nil || h == old {
		t.Errorf("a renamed tensor: %v", err)
	}
}

// Whatever fails leaves nothing behind.
func TestRewriteFails(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		change func(ck *format.Checkpoint, all map[string]format.Piece) context.Context
		want   string
	}{
		"patch does not start": {func(_ *format.Checkpoint, all map[string]format.Piece) context.Context {
			all["t[3]"] = format.Piece{From: all["t[3]"].From, Patch: &format.Patch{Block: 3, Start: func() (func(int64, []byte) error, error) { return nil, broken }}}
			return nil
		}, `tensor "t[3]": broken`},
		"patch fails": {func(_ *format.Checkpoint, all map[string]format.Piece) context.Context {
			all["t[3]"] = format.Piece{From: all["t[3]"].From, Patch: &format.Patch{Block: 3, Start: func() (func(int64, []byte) error, error) {
				return func(int64, []byte) error { return broken }, nil
			}}}
			return nil
		}, `tensor "t[3]": broken`},
		"nothing to write": {func(_ *format.Checkpoint, all map[string]format.Piece) context.Context {
			delete(all, "t[3]")
			return nil
		}, `tensor "t[3]": there is nothing`},
		"too few bytes": {func(_ *format.Checkpoint, all map[string]format.Piece) context.Context {
			all["t[3]"] = format.Piece{From: format.NewTensor(format.TensorInfo{Name: "t[3]", DType: format.U8, Shape: []int{2}}, []byte{1, 2})}
			return nil
		}, `tensor "t[3]": delivered 2 bytes, announced 3`},
		"source changes": {func(ck *format.Checkpoint, _ map[string]format.Piece) context.Context {
			later := time.Now().Add(time.Hour)
			if err := os.Chtimes(ck.Shards()[0].Path, later, later); err != nil {
				panic(err)
			}
			return nil
		}, "changed while it was read"},
		"source cut": {func(ck *format.Checkpoint, _ map[string]format.Piece) context.Context {
			if err := os.Truncate(ck.Shards()[0].Path, 1000); err != nil {
				panic(err)
			}
			return nil
		}, "unexpected EOF"},
		"cancelled": {func(*format.Checkpoint, map[string]format.Piece) context.Context {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			return ctx
		}, "canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			ck, out := rewritten(t)
			list, all := pieces(ck)
			h, err := format.LikeHeader(ck.Shards()[0].Header, list)
			if err != nil {
				t.Fatal(err)
			}
			ctx := c.change(ck, all)
			if ctx == nil {
				ctx = t.Context()
			}
			_, err = format.Rewrite(ctx, out, h, all, format.RewriteOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if left, _ := os.ReadDir(filepath.Dir(out)); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

// A disk without room is found before anything is written.
func TestRewriteChecksSpace(t *testing.T) {
	ck, out := rewritten(t)
	list, all := pieces(ck)
	list = append(list, format.TensorInfo{Name: "huge", DType: format.U8, Shape: []int{1 << 50}})
	h, err := format.NewHeader(list, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := format.CheckSpace(filepath.Join(out, "not", "there"), h.FileSize()); !errors.Is(err, format.ErrSpace) {
		t.Errorf("checking: %v", err)
	}
	all["huge"] = format.Piece{From: format.NewTensor(list[len(list)-1], nil)}
	progress := int64(0)
	if _, err := format.Rewrite(t.Context(), out, h, all, format.RewriteOptions{Progress: func(n int64) { progress += n }}); err == nil || progress > 0 {
		t.Errorf("wrote %d bytes: %v", progress, err)
	}
	if left, _ := os.ReadDir(filepath.Dir(out)); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
