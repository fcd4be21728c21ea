package format_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hubtool/hubtool/format"
)

// afar is a folder on a server: it counts requests and may refuse some.
type afar struct {
	dir  string
	fail error // of reads behind the header

	mu       sync.Mutex
	reads    []int // sizes
	open     atomic.Int32
	together chan struct{} // reads behind the header wait until so many are open; nil: they do not
}

type distant struct {
	*afar
	data []byte
}

func (a *afar) folder(names ...string) format.Folder {
	return format.Folder{Path: "hf://acme/model@1", Names: names, Open: func(name string) (format.Source, error) {
		data, err := os.ReadFile(filepath.Join(a.dir, name))
		return distant{a, data}, err
	}}
}

func (d distant) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	d.reads = append(d.reads, len(p))
	d.mu.Unlock()
	if d.fail != nil && off > 10_000 {
		return 0, d.fail
	}
	if d.together != nil && len(p) > 1<<20 {
		if d.open.Add(1) == int32(cap(d.together)) {
			close(d.together)
		}
		<-d.together
	}
	return bytes.NewReader(d.data).ReadAt(p, off)
}

func (d distant) Size() int64      { return int64(len(d.data)) }
func (d distant) Version() string  { return fmt.Sprint(len(d.data)) }
func (d distant) Unchanged() error { return nil }
func (d distant) Close() error     { return nil }

func TestOpenFolder(t *testing.T) {
	a := &afar{dir: "testdata/written/sharded"}
	ck, err := format.OpenFolder(a.folder("config.json", "README.md", format.IndexFile), "")
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	local, err := format.Open(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	for want := range local.Tensors() {
		got, ok := ck.Tensor(want.Info().Name)
		if !ok {
			t.Fatalf("%q is missing", want.Info().Name)
		}
		x, err1 := got.Bytes()
		y, err2 := want.Bytes()
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(x, y) {
			t.Errorf("%q differs, %v", want.Info().Name, err)
		}
	}
	if s := ck.Shards()[0]; s.Path != "hf://acme/model@1/"+s.Name || s.Version == "" || ck.Path() != "hf://acme/model@1" {
		t.Errorf("%q of %q, version %q", s.Path, ck.Path(), s.Version)
	}
	if local.Shards()[0].Path != filepath.Join(a.dir, local.Shards()[0].Name) {
		t.Errorf("a local shard is %q", local.Shards()[0].Path)
	}

	for _, tt := range []struct {
		names []string
		file  string
		want  error
	}{
		{[]string{"config.json"}, "", fs.ErrNotExist},
		{[]string{"pytorch_model.bin"}, "", format.ErrUnsupported},
		{[]string{format.ModelFile}, "", fs.ErrNotExist}, // announced, but not there
		{nil, "config.json", format.ErrDamaged},
	} {
		if _, err := format.OpenFolder(a.folder(tt.names...), tt.file); !errors.Is(err, tt.want) {
			t.Errorf("%q, %q: %v", tt.names, tt.file, err)
		}
	}
}

// Readers read chunks at the same time and out of order; the file is the same, tensors that follow
// each other cost one read, and no byte is read twice.
func TestRewriteReaders(t *testing.T) {
	const readers = 3
	ck, out := rewritten(t)
	path := ck.Shards()[0].Path
	a := &afar{dir: filepath.Dir(path), together: make(chan struct{}, readers)}
	far, err := format.OpenFolder(a.folder(), filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	list, all := pieces(far)
	all["t[3]"] = format.Piece{From: lateTensor{all["t[3]"].From.Info(), []byte{9, 8, 7}}}
	h, err := format.LikeHeader(far.Shards()[0].Header, list)
	if err != nil {
		t.Fatal(err)
	}
	a.reads = nil
	written, err := format.Rewrite(t.Context(), out, h, all, format.RewriteOptions{Readers: readers})
	if err != nil {
		t.Fatal(err)
	}
	want := read(t, path)
	e, _ := h.Lookup("t[3]")
	copy(want[h.DataOffset()+e.Begin:], []byte{9, 8, 7})
	if !bytes.Equal(read(t, out), want) {
		t.Error("the file differs")
	}
	total := int64(0)
	for _, n := range a.reads {
		total += int64(n)
	}
	if limit := int(written.Size>>21) + 4; total != h.DataSize()-3 || len(a.reads) > limit {
		t.Errorf("%d reads of %d bytes for %d; want at most %d", len(a.reads), total, h.DataSize(), limit)
	}

	a.together, a.fail = nil, io.ErrClosedPipe
	if _, err := format.Rewrite(t.Context(), out+"2", h, all, format.RewriteOptions{Readers: readers}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a source that fails: %v", err)
	}
	if _, err := os.Stat(out + "2"); err == nil {
		t.Error("the file is there although its source failed")
	}
}

// lateTensor is computed, so that it has no place in a file.
type lateTensor struct {
	info format.TensorInfo
	data []byte
}

func (l lateTensor) Info() format.TensorInfo { return l.info }
func (l lateTensor) Bytes() ([]byte, error)  { return l.data, nil }

// hashed announces a hash.
type hashed struct {
	distant
	want string
}

func (h hashed) Hash() (hash.Hash, string) { return sha256.New(), h.want }

// What is read of a file is compared with the hash that was announced, also where some of it is not
// wanted; where it is read in another order there is nothing to compare, and one can ask.
func TestRewriteChecksHashes(t *testing.T) {
	ck, _ := rewritten(t)
	path := ck.Shards()[0].Path
	sum := sha256.Sum256(read(t, path))
	right := hex.EncodeToString(sum[:])
	a := &afar{dir: filepath.Dir(path)}
	for _, tt := range []struct {
		name      string
		want      string
		change    func(map[string]format.Piece)
		unchecked bool
		err       error
	}{
		{name: "the announced content", want: right},
		{name: "another content", want: strings.Repeat("0", 64), err: format.ErrDamaged},
		{name: "a small tensor in the middle is replaced", want: strings.Repeat("0", 64), err: format.ErrDamaged,
			change: func(all map[string]format.Piece) {
				all["t[3]"] = format.Piece{From: lateTensor{all["t[3]"].From.Info(), []byte{9, 8, 7}}}
			}},
		{name: "the end is not wanted", want: strings.Repeat("0", 64), err: format.ErrDamaged,
			change: func(all map[string]format.Piece) {
				delete(all, "t[1000 1000]")
				delete(all, "t[99]")
			}},
		{name: "a large part in the middle is not wanted", want: strings.Repeat("0", 64), unchecked: true,
			change: func(all map[string]format.Piece) { delete(all, "t[1 5242880]") }},
	} {
		folder := a.folder()
		open := folder.Open
		folder.Open = func(name string) (format.Source, error) {
			src, err := open(name)
			return hashed{src.(distant), tt.want}, err
		}
		far, err := format.OpenFolder(folder, filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		_, all := pieces(far)
		if tt.change != nil {
			tt.change(all)
		}
		var list []format.TensorInfo
		for _, p := range all {
			list = append(list, p.From.Info())
		}
		h, err := format.LikeHeader(far.Shards()[0].Header, list)
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "out")
		_, err = format.Rewrite(t.Context(), out, h, all, format.RewriteOptions{Readers: 2})
		if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, there := os.Stat(out); (there == nil) != (err == nil) {
			t.Errorf("%s: the file is there, or not: %v", tt.name, there)
		}
		if got := len(far.Unchecked()) > 0; got != tt.unchecked {
			t.Errorf("%s: unchecked %t", tt.name, got)
		}
	}
}
