package format

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/hubtool/hubtool/internal/hashing"
)

// A Piece is one tensor of a file that [Rewrite] makes.
type Piece struct {
	TensorInfo        // in the new file
	From       Tensor // whose bytes it has; of a [Checkpoint]'s tensor only a few MB are in memory at a time
	Patch      *Patch // what becomes of them on the way; nil: nothing
}

// A Patch changes the bytes of a tensor block by block.
type Patch struct {
	// Block is how many bytes have to be seen together, such as those of a row. It divides the
	// tensor's size.
	Block int64

	// Start is called when the tensor is reached. What it returns is called for one run of whole
	// blocks after the other; at is where in the tensor data begins. It may change data in place.
	Start func() (apply func(at int64, data []byte) error, err error)
}

// RewriteOptions are the settings of [Rewrite].
type RewriteOptions struct {
	Progress func(n int64) // called from one goroutine after each n bytes; nil is silent

	// Readers is how many ranges of a few MB are read at the same time. The default, 1, is best for a
	// disk; more of them fill a line on which every answer takes a while.
	Readers int

	// Flushing is called when the file only waits for the disk, if it comes to that; nil is silent.
	Flushing func()
}

// Written describes a complete file.
type Written struct {
	Size   int64
	SHA256 string
}

// LikeHeader returns the header for a file of these tensors that is made from another file: that
// file's own, with the same text and the same order of data, if it describes them exactly, and else
// a new one with the same metadata. New headers name a format, without which some readers refuse.
func LikeHeader(old *Header, tensors []TensorInfo) (*Header, error) {
	same := len(tensors) == len(old.entries)
	for _, t := range tensors {
		e, ok := old.Lookup(t.Name)
		same = same && ok && e.DType == t.DType && slices.Equal(e.Shape, t.Shape)
	}
	if same {
		return old, nil
	}
	meta := old.Metadata()
	if meta == nil {
		meta = map[string]string{"format": "pt"}
	}
	return NewHeader(tensors, meta)
}

// Rewrite writes a file with the given header, whose tensors are mostly those of other files: data
// moves in pieces of a few MB through reading, patching, hashing and writing, which go on at the
// same time. The space is reserved first; [ErrSpace] says that there is too little. As with [Write]
// the file appears under its name complete and on disk, or not at all. A source that changes while it
// is read is an error, and so is a [HashedSource] that is not what it announced.
func Rewrite(ctx context.Context, path string, h *Header, pieces map[string]Piece, opts RewriteOptions) (Written, error) {
	w := Written{Size: h.FileSize()}
	err := writeAtomic(path, func(f *os.File) error {
		if err := reserve(f, w.Size); err != nil {
			return err
		}
		hash := hashing.NewSHA256()
		r := ring{file: f, hash: hash, readers: max(1, opts.Readers), progress: opts.Progress, behind: map[*diskFile]*behind{}}
		r.sources = append(r.sources, source{size: h.DataOffset(), read: readMemory(h.prefix())})
		for _, e := range h.entries {
			p, ok := pieces[e.Name]
			if !ok {
				return &Error{Tensor: e.Name, Err: errors.New("there is nothing to write for it")}
			}
			s := source{tensor: e.Name, size: e.End - e.Begin, patch: p.Patch}
			if ft, ok := p.From.(*fileTensor); ok && ft.End-ft.Begin == s.size {
				s.file, s.offset, s.fail = ft.file, ft.offset, ft.fail
			} else {
				s.read = readTensor(p.From, s.size)
			}
			r.sources = append(r.sources, s)
		}
		if err := r.run(ctx); err != nil {
			return err
		}
		w.SHA256 = hex.EncodeToString(hash.Sum(nil))
		if opts.Flushing != nil {
			opts.Flushing()
		}
		return nil
	})
	if errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrSpace) { // where space cannot be reserved
		err = &Error{Op: "writing", Path: path, Kind: ErrSpace, Err: syscall.ENOSPC}
	}
	return w, err
}

// readTensor gives ranges of a tensor's data, in their order. It is asked for its bytes when the first
// one is.
func readTensor(t Tensor, size int64) func(dst []byte, at int64) error {
	var data []byte
	return func(dst []byte, at int64) (err error) {
		if at == 0 {
			if data, err = t.Bytes(); err != nil {
				return err
			}
			if int64(len(data)) != size {
				return fmt.Errorf("delivered %d bytes, announced %d", len(data), size)
			}
		}
		copy(dst, data[at:])
		if at+int64(len(dst)) == size {
			data = nil // it may be large, and the rest of the file long
		}
		return nil
	}
}

func readMemory(data []byte) func(dst []byte, at int64) error {
	return func(dst []byte, at int64) error { copy(dst, data[at:]); return nil }
}

// ReadRange fills dst with a tensor's data from a position on. Of a [Checkpoint]'s tensor nothing else
// is read.
func ReadRange(t Tensor, dst []byte, at int64) error {
	size := t.Info().Size()
	if at < 0 || at+int64(len(dst)) > size {
		return &Error{Tensor: t.Info().Name, Err: fmt.Errorf("%d bytes at %d are not within its %d", len(dst), at, size)}
	}
	if ft, ok := t.(*fileTensor); ok {
		if err := readFull(ft.file, dst, ft.offset+at); err != nil {
			return ft.fail(err)
		}
		return nil
	}
	data, err := t.Bytes()
	if err == nil {
		copy(dst, data[at:])
	}
	return err
}
