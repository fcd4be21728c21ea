package format

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"slices"
)

// Limits bound what a header may cost. A zero field means no limit of its own.
type Limits struct {
	HeaderBytes int64 // length of the JSON; the format itself stops at 100 MB
	Tensors     int   // entries
	Rank        int   // dimensions of one tensor
	NameBytes   int   // length of one tensor name
}

// DefaultLimits are those of [Open]: the header size that the format allows,
// and far more tensors and dimensions than any model has.
var DefaultLimits = Limits{HeaderBytes: 100_000_000, Tensors: 1 << 20, Rank: 64, NameBytes: 4096}

// RemoteLimits are tighter, for headers that are fetched over a network.
var RemoteLimits = Limits{HeaderBytes: 25_000_000, Tensors: 1 << 20, Rank: 64, NameBytes: 4096}

// An Entry is a tensor and the range [Begin, End) of its data, in bytes from
// the start of the data section.
type Entry struct {
	TensorInfo
	Begin, End int64
}

// A Header is the validated header of one safetensors file.
type Header struct {
	raw     []byte
	meta    map[string]string
	entries []Entry        // by offset, then by name
	index   map[string]int // name → position in entries
}

// Raw returns the JSON text, padding included, without the length before it.
func (h *Header) Raw() []byte { return h.raw }

// Entries returns the tensors in the order of their data; those of size zero at
// the same offset are ordered by name. The slice is shared.
func (h *Header) Entries() []Entry { return h.entries }

// Lookup finds a tensor by name.
func (h *Header) Lookup(name string) (Entry, bool) {
	i, ok := h.index[name]
	if !ok {
		return Entry{}, false
	}
	return h.entries[i], true
}

// Metadata returns the "__metadata__" of the file, nil if it has none.
func (h *Header) Metadata() map[string]string { return h.meta }

// DataOffset returns where in the file the data section starts.
func (h *Header) DataOffset() int64 { return 8 + int64(len(h.raw)) }

// DataSize returns the size of the data section in bytes.
func (h *Header) DataSize() int64 {
	if len(h.entries) == 0 {
		return 0
	}
	return h.entries[len(h.entries)-1].End
}

// FileSize returns the size of the whole file in bytes.
func (h *Header) FileSize() int64 { return h.DataOffset() + h.DataSize() }

// ReadHeader reads and validates the header of a file of size bytes.
// Only the header is read, in two calls.
func ReadHeader(r io.ReaderAt, size int64, lim Limits) (*Header, error) {
	var prefix [8]byte
	if size < int64(len(prefix)) {
		return nil, damaged("", "%d bytes are too few for a safetensors file", size)
	}
	if err := readFull(r, prefix[:], 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	switch {
	case string(prefix[:]) == "version ":
		return nil, damaged("", "this is a Git LFS pointer, not the file it stands for; run git lfs pull")
	case n > uint64(lim.headerBytes()):
		return nil, damaged("", "header length %d exceeds the limit of %d; is this a safetensors file?", n, lim.headerBytes())
	case int64(n) > size-8:
		return nil, damaged("", "header length %d exceeds the file size %d", n, size)
	}
	raw := make([]byte, n)
	if err := readFull(r, raw, 8); err != nil {
		return nil, err
	}
	return ParseHeader(raw, size-8-int64(n), lim)
}

// ParseHeader validates the JSON text of a header, which is kept, not copied.
// dataSize is the size in bytes of the data section; negative if not known.
func ParseHeader(raw []byte, dataSize int64, lim Limits) (*Header, error) {
	if int64(len(raw)) > lim.headerBytes() {
		return nil, damaged("", "header length %d exceeds the limit of %d", len(raw), lim.headerBytes())
	}
	if len(raw) == 0 || raw[0] != '{' {
		return nil, damaged("", "header does not begin with '{'")
	}
	s, err := newScanner(raw)
	if err != nil {
		return nil, damaged("", "%w", err)
	}
	h := &Header{raw: raw}
	if err := h.scan(s, lim); err != nil {
		var e *Error
		if errors.As(err, &e) {
			return nil, e
		}
		return nil, damaged("", "%w", err)
	}
	for _, c := range raw[s.pos:] {
		if c != ' ' {
			return nil, damaged("", "header is followed by %q, only spaces may pad it", c)
		}
	}
	if err := h.layOut(); err != nil {
		return nil, err
	}
	if covered := h.DataSize(); dataSize >= 0 && covered != dataSize {
		return nil, damaged("", "header describes %d bytes of data, file has %d", covered, dataSize)
	}
	return h, nil
}

func (l Limits) headerBytes() int64 {
	return min(cmp.Or(l.HeaderBytes, DefaultLimits.HeaderBytes), DefaultLimits.HeaderBytes)
}

func (h *Header) scan(s *scanner, lim Limits) error {
	return s.object(func(key string) error {
		if key == "__metadata__" {
			if h.meta != nil {
				return damaged("", `duplicate "__metadata__"`)
			}
			h.meta = map[string]string{}
			return s.object(func(key string) error {
				if _, dup := h.meta[key]; dup {
					return damaged("", "duplicate metadata key %q", key)
				}
				value, err := s.str()
				h.meta[key] = value
				return err
			})
		}
		if lim.NameBytes > 0 && len(key) > lim.NameBytes {
			return damaged("", "tensor name of %d bytes exceeds the limit of %d", len(key), lim.NameBytes)
		}
		if lim.Tensors > 0 && len(h.entries) >= lim.Tensors {
			return damaged("", "more than %d tensors", lim.Tensors)
		}
		e := Entry{TensorInfo: TensorInfo{Name: key}}
		if err := e.scan(s, lim); err != nil {
			return err
		}
		h.entries = append(h.entries, e)
		return nil
	})
}

func (e *Entry) scan(s *scanner, lim Limits) error {
	var seen [3]bool
	once := func(field int, name string) error {
		if seen[field] {
			return damaged(e.Name, "duplicate field %q", name)
		}
		seen[field] = true
		return nil
	}
	err := s.object(func(key string) error {
		switch key {
		case "dtype":
			if err := once(0, key); err != nil {
				return err
			}
			name, err := s.str()
			if err != nil {
				return err
			}
			if e.DType, err = ParseDType(name); err != nil {
				return &Error{Tensor: e.Name, Kind: ErrUnsupported, Err: err}
			}
			return nil
		case "shape":
			if err := once(1, key); err != nil {
				return err
			}
			e.Shape = []int{}
			return s.array(func() error {
				if lim.Rank > 0 && len(e.Shape) >= lim.Rank {
					return damaged(e.Name, "more than %d dimensions", lim.Rank)
				}
				d, err := s.natural(math.MaxInt)
				e.Shape = append(e.Shape, int(d))
				return err
			})
		case "data_offsets":
			if err := once(2, key); err != nil {
				return err
			}
			var offsets []int64
			err := s.array(func() error {
				if len(offsets) == 2 {
					return damaged(e.Name, "data_offsets has more than two numbers")
				}
				n, err := s.natural(math.MaxInt64)
				offsets = append(offsets, int64(n))
				return err
			})
			if err == nil && len(offsets) != 2 {
				return damaged(e.Name, "data_offsets has %d numbers, not two", len(offsets))
			}
			if err == nil {
				e.Begin, e.End = offsets[0], offsets[1]
			}
			return err
		}
		return damaged(e.Name, "unknown field %q", key)
	})
	if err != nil {
		return inTensor(e.Name, err)
	}
	for i, name := range []string{"dtype", "shape", "data_offsets"} {
		if !seen[i] {
			return damaged(e.Name, "missing field %q", name)
		}
	}
	return nil
}

// inTensor names the tensor in an error that the scanner reported without it.
func inTensor(name string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return damaged(name, "%w", err)
}

// layOut sorts the entries and checks that they tile the data without holes,
// each with the size its dtype and shape ask for.
func (h *Header) layOut() error {
	slices.SortFunc(h.entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End), cmp.Compare(a.Name, b.Name))
	})
	h.index = make(map[string]int, len(h.entries))
	at := int64(0)
	for i, e := range h.entries {
		if _, dup := h.index[e.Name]; dup {
			return damaged(e.Name, "defined twice")
		}
		h.index[e.Name] = i
		switch {
		case e.End < e.Begin:
			return damaged(e.Name, "data ends at %d before it begins at %d", e.End, e.Begin)
		case e.Begin < at:
			return damaged(e.Name, "data at [%d, %d) overlaps the tensor before it, which ends at %d", e.Begin, e.End, at)
		case e.Begin > at:
			return damaged(e.Name, "data at [%d, %d) leaves a hole from %d", e.Begin, e.End, at)
		}
		if size := e.Size(); size < 0 {
			return damaged(e.Name, "%s of shape %v has no valid size", e.DType, e.Shape)
		} else if size != e.End-e.Begin {
			return damaged(e.Name, "%s of shape %v needs %d bytes, header gives it %d", e.DType, e.Shape, size, e.End-e.Begin)
		}
		at = e.End
	}
	return nil
}

// readFull fills p from offset off; a short file is an error, never a short slice.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF || err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}
