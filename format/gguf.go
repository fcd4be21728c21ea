package format

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"
)

// ggufAlignment is what the positions of tensors in a GGUF file are multiples
// of where its metadata do not say otherwise.
const ggufAlignment = 32

// A GGUFField is an entry of the metadata of a GGUF file.
type GGUFField struct {
	Key   string
	Value any // a string or a float32
}

// WriteGGUF writes F32 tensors and metadata to a GGUF file of version 3,
// little-endian, in the order given, as ggml's docs/gguf.md lays it out. Other
// types of tensors and of values are [ErrUnsupported]. The file appears as one
// of [Write] does.
func WriteGGUF(ctx context.Context, path string, fields []GGUFField, tensors []Tensor) error {
	head, err := ggufHead(fields, tensors)
	if err != nil {
		return at("writing", path, err)
	}
	return writeAtomic(path, func(f *os.File) error {
		w := bufio.NewWriterSize(&contextWriter{ctx, f}, 1<<20)
		if _, err := w.Write(head); err != nil {
			return err
		}
		for _, t := range tensors {
			info := t.Info()
			if err := writeTensor(w, t, info.Size()); err != nil {
				return &Error{Tensor: info.Name, Err: err}
			}
			if _, err := w.Write(make([]byte, ggufAligned(info.Size())-info.Size())); err != nil {
				return err
			}
		}
		return w.Flush()
	})
}

// ggufHead is all that comes before the data of tensors.
func ggufHead(fields []GGUFField, tensors []Tensor) ([]byte, error) {
	const (
		version     = 3
		float32Type = 6 // of values
		stringType  = 8
		f32         = 0 // of tensors
	)
	le := binary.LittleEndian
	text := func(head []byte, s string) []byte { return append(le.AppendUint64(head, uint64(len(s))), s...) }
	head := le.AppendUint32([]byte("GGUF"), version)
	head = le.AppendUint64(head, uint64(len(tensors)))
	head = le.AppendUint64(head, uint64(len(fields)))
	for _, field := range fields {
		head = text(head, field.Key)
		switch v := field.Value.(type) {
		case string:
			head = text(le.AppendUint32(head, stringType), v)
		case float32:
			head = le.AppendUint32(le.AppendUint32(head, float32Type), math.Float32bits(v))
		default:
			return nil, fmt.Errorf("%w: metadata %q is a %T, but must be a string or a float32", ErrUnsupported, field.Key, v)
		}
	}
	position := int64(0) // from the end of the head
	for _, t := range tensors {
		info := t.Info()
		if info.DType != F32 {
			return nil, &Error{Tensor: info.Name, Err: fmt.Errorf("%w: dtype %s in a GGUF file; F32 can be written", ErrUnsupported, info.DType)}
		}
		head = le.AppendUint32(text(head, info.Name), uint32(len(info.Shape)))
		for _, n := range slices.Backward(info.Shape) { // ggml counts dimensions from the fastest
			head = le.AppendUint64(head, uint64(n))
		}
		head = le.AppendUint64(le.AppendUint32(head, f32), uint64(position))
		position += ggufAligned(info.Size())
	}
	return append(head, make([]byte, ggufAligned(int64(len(head)))-int64(len(head)))...), nil
}

func ggufAligned(n int64) int64 { return (n + ggufAlignment - 1) / ggufAlignment * ggufAlignment }
