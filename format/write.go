package format

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
)

// Write writes tensors and metadata to a safetensors file, in the layout of
// [NewHeader]. Tensors are asked for their bytes one after another, in the
// order of the file; one that is an [io.WriterTo], as those of a [Checkpoint]
// are, is copied in pieces instead and never held in memory whole.
//
// The file appears under its name only when it is complete and on disk; a
// failure or a cancelled context leaves nothing behind. A tensor that delivers
// more or fewer bytes than its description says fails the write.
func Write(ctx context.Context, path string, tensors []Tensor, meta map[string]string) error {
	infos := make([]TensorInfo, len(tensors))
	byName := make(map[string]Tensor, len(tensors))
	for i, t := range tensors {
		infos[i] = t.Info()
		byName[infos[i].Name] = t
	}
	h, err := NewHeader(infos, meta)
	if err != nil {
		return at("writing", path, err)
	}
	return writeAtomic(path, func(f *os.File) error {
		w := bufio.NewWriterSize(&contextWriter{ctx, f}, 1<<20)
		if _, err := w.Write(h.prefix()); err != nil {
			return err
		}
		for _, e := range h.entries {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := writeTensor(w, byName[e.Name], e.End-e.Begin); err != nil {
				return &Error{Tensor: e.Name, Err: err}
			}
		}
		return w.Flush()
	})
}

func writeTensor(w io.Writer, t Tensor, size int64) error {
	if wt, ok := t.(io.WriterTo); ok {
		n, err := wt.WriteTo(w)
		if err == nil && n != size {
			err = fmt.Errorf("delivered %d bytes, announced %d", n, size)
		}
		return err
	}
	data, err := t.Bytes()
	if err != nil {
		return err
	}
	if int64(len(data)) != size {
		return fmt.Errorf("delivered %d bytes, announced %d", len(data), size)
	}
	_, err = w.Write(data)
	return err
}

// contextWriter stops a long copy between two writes when its context ends.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c *contextWriter) Write(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}
