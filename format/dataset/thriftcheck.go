package dataset

import (
	"encoding/binary"
)

// checkThrift walks a struct in thrift's compact protocol and makes sure that what it claims fits into the bytes: a list
// of two thousand million row groups in a footer of a hundred bytes would make the decoder allocate for them, and Go ends
// the program when memory runs out. It returns the length of the struct.
func checkThrift(b []byte) (int, error) {
	w := thriftWalk{rest: b}
	if err := w.structure(0); err != nil {
		return 0, err
	}
	return len(b) - len(w.rest), nil
}

type thriftWalk struct{ rest []byte }

// Field types of the compact protocol.
const (
	thriftStop = iota
	thriftTrue
	thriftFalse
	thriftByte
	thriftI16
	thriftI32
	thriftI64
	thriftDouble
	thriftBinary
	thriftList
	thriftSet
	thriftMap
	thriftStruct
	thriftUUID
)

const maxThriftDepth = 64

func (w *thriftWalk) structure(depth int) error {
	if depth > maxThriftDepth {
		return damaged("thrift structures nested %d deep", depth)
	}
	for {
		header, err := w.byte()
		if err != nil {
			return err
		}
		kind := header & 0x0f
		if kind == thriftStop {
			return nil
		}
		if header>>4 == 0 { // the field number follows instead of a difference to the last one
			if _, err := w.varint(); err != nil {
				return err
			}
		}
		if kind == thriftTrue || kind == thriftFalse {
			continue // the type is the value
		}
		if err := w.value(kind, depth+1); err != nil {
			return err
		}
	}
}

func (w *thriftWalk) value(kind byte, depth int) error {
	switch kind {
	case thriftTrue, thriftFalse, thriftByte:
		return w.skip(1)
	case thriftI16, thriftI32, thriftI64:
		_, err := w.varint()
		return err
	case thriftDouble:
		return w.skip(8)
	case thriftUUID:
		return w.skip(16)
	case thriftBinary:
		n, err := w.varint()
		if err != nil {
			return err
		}
		return w.skip(n)
	case thriftList, thriftSet:
		return w.list(depth)
	case thriftStruct:
		return w.structure(depth)
	}
	return damaged("thrift type %d, which parquet does not use", kind)
}

func (w *thriftWalk) list(depth int) error {
	if depth > maxThriftDepth {
		return damaged("thrift lists nested %d deep", depth)
	}
	header, err := w.byte()
	if err != nil {
		return err
	}
	count := uint64(header >> 4)
	if count == 15 {
		if count, err = w.varint(); err != nil {
			return err
		}
	}
	// Every element takes at least a byte.
	if count > uint64(len(w.rest)) {
		return damaged("a thrift list of %d elements in %d bytes", count, len(w.rest))
	}
	for range count {
		if err := w.value(header&0x0f, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *thriftWalk) byte() (byte, error) {
	if len(w.rest) == 0 {
		return 0, damaged("a thrift structure ends too early")
	}
	b := w.rest[0]
	w.rest = w.rest[1:]
	return b, nil
}

func (w *thriftWalk) varint() (uint64, error) {
	v, n := binary.Uvarint(w.rest)
	if n <= 0 {
		return 0, damaged("a thrift number ends too early")
	}
	w.rest = w.rest[n:]
	return v, nil
}

func (w *thriftWalk) skip(n uint64) error {
	if n > uint64(len(w.rest)) {
		return damaged("a thrift value of %d bytes in %d", n, len(w.rest))
	}
	w.rest = w.rest[n:]
	return nil
}
