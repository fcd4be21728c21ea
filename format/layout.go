package format

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

// NewHeader lays tensors out as the reference implementation does: by dtype,
// widest first, then by name bytewise; "__metadata__" first in the text, the
// tensors in the order of their data, spaces up to a multiple of eight bytes.
// A nil meta writes no "__metadata__", an empty one writes an empty object.
// Python orders two or more metadata keys at random; here they are sorted.
func NewHeader(tensors []TensorInfo, meta map[string]string) (*Header, error) {
	if len(tensors) > DefaultLimits.Tensors {
		return nil, fmt.Errorf("%d tensors exceed the limit of %d", len(tensors), DefaultLimits.Tensors)
	}
	h := &Header{meta: maps.Clone(meta), entries: make([]Entry, 0, len(tensors)), index: make(map[string]int, len(tensors))}
	for _, t := range tensors {
		if err := checkInfo(t); err != nil {
			return nil, &Error{Tensor: t.Name, Err: err}
		}
		t.Shape = slices.Clone(t.Shape)
		h.entries = append(h.entries, Entry{TensorInfo: t})
	}
	slices.SortFunc(h.entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(b.DType, a.DType), cmp.Compare(a.Name, b.Name))
	})
	at := int64(0)
	for i := range h.entries {
		e := &h.entries[i]
		if _, dup := h.index[e.Name]; dup {
			return nil, &Error{Tensor: e.Name, Err: fmt.Errorf("given twice")}
		}
		h.index[e.Name] = i
		e.Begin, e.End = at, at+e.Size()
		if at = e.End; at < 0 {
			return nil, &Error{Tensor: e.Name, Err: fmt.Errorf("file size overflows")}
		}
	}
	size := 0
	for k, v := range meta {
		size += len(k) + len(v)
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return nil, fmt.Errorf("metadata %q is not valid UTF-8", k)
		}
	}
	if int64(size) <= DefaultLimits.HeaderBytes {
		h.raw = h.text()
		size = len(h.raw)
	}
	if int64(size) > DefaultLimits.HeaderBytes {
		return nil, fmt.Errorf("header of %d bytes exceeds the limit of %d", size, DefaultLimits.HeaderBytes)
	}
	return h, nil
}

// checkInfo refuses what no reader would accept.
func checkInfo(t TensorInfo) error {
	switch {
	case t.Name == "__metadata__":
		return fmt.Errorf("the name is reserved")
	case !utf8.ValidString(t.Name):
		return fmt.Errorf("the name is not valid UTF-8")
	case len(t.Name) > DefaultLimits.NameBytes:
		return fmt.Errorf("the name exceeds the limit of %d bytes", DefaultLimits.NameBytes)
	case len(t.Shape) > DefaultLimits.Rank:
		return fmt.Errorf("%d dimensions exceed the limit of %d", len(t.Shape), DefaultLimits.Rank)
	case !t.DType.valid():
		return fmt.Errorf("invalid dtype %s", t.DType)
	case t.Size() < 0:
		return fmt.Errorf("%s of shape %v has no valid size", t.DType, t.Shape)
	}
	return nil
}

func (h *Header) text() []byte {
	b := []byte{'{'}
	if h.meta != nil {
		b = append(b, `"__metadata__":{`...)
		for i, key := range slices.Sorted(maps.Keys(h.meta)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendSerdeString(b, key)
			b = append(b, ':')
			b = appendSerdeString(b, h.meta[key])
		}
		b = append(b, '}')
	}
	for i, e := range h.entries {
		if i > 0 || h.meta != nil {
			b = append(b, ',')
		}
		b = appendSerdeString(b, e.Name)
		b = append(b, `:{"dtype":"`...)
		b = append(b, e.DType.String()...)
		b = append(b, `","shape":[`...)
		for i, d := range e.Shape {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(d), 10)
		}
		b = append(b, `],"data_offsets":[`...)
		b = strconv.AppendInt(b, e.Begin, 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, e.End, 10)
		b = append(b, ']', '}')
	}
	b = append(b, '}')
	for len(b)%8 != 0 {
		b = append(b, ' ')
	}
	return b
}

// prefix returns the first bytes of a file: the header's length and its text.
func (h *Header) prefix() []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(h.raw)), uint64(len(h.raw)))
	return append(b, h.raw...)
}

// appendSerdeString quotes s as Rust's serde_json does: only quotes, backslashes
// and control characters are escaped, unlike encoding/json.
func appendSerdeString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\b':
			b = append(b, '\\', 'b')
		case c == '\f':
			b = append(b, '\\', 'f')
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < 0x20:
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
