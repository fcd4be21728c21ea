package hubserve

import (
	"encoding/binary"
	"errors"
)

var errLZ4 = errors.New("malformed LZ4 data")

// lz4Frame unpacks an LZ4 frame to exactly size bytes. Its checksums are not
// checked: what is made of the chunks is checked by SHA-256.
func lz4Frame(src []byte, size int) ([]byte, error) {
	if len(src) < 7 || binary.LittleEndian.Uint32(src) != 0x184D2204 {
		return nil, errLZ4
	}
	flags := src[4]
	at := 7 // after magic, flags, block sizes and the header's checksum
	if flags&0x08 != 0 {
		at += 8 // content size
	}
	if flags&0x01 != 0 {
		at += 4 // dictionary
	}
	// Blocks may refer back into earlier ones, so all share one buffer.
	dst := make([]byte, 0, size)
	for {
		if at+4 > len(src) {
			return nil, errLZ4
		}
		n := binary.LittleEndian.Uint32(src[at:])
		at += 4
		if n == 0 {
			break
		}
		packed := n&0x80000000 == 0
		length := int(n & 0x7fffffff)
		if length > len(src)-at {
			return nil, errLZ4
		}
		block := src[at : at+length]
		at += length
		if flags&0x10 != 0 {
			at += 4 // the block's checksum
		}
		if !packed {
			if len(dst)+length > size {
				return nil, errLZ4
			}
			dst = append(dst, block...)
			continue
		}
		var err error
		if dst, err = lz4Block(dst, block, size); err != nil {
			return nil, err
		}
	}
	if len(dst) != size {
		return nil, errLZ4
	}
	return dst, nil
}

// lz4Block appends what a block unpacks to. A block is a sequence of: token, bytes
// as they are, and a copy of earlier output.
func lz4Block(dst, src []byte, limit int) ([]byte, error) {
	for at := 0; at < len(src); {
		token := src[at]
		at++
		n, next, ok := lz4Length(src, at, int(token>>4))
		if !ok || n > len(src)-next || len(dst)+n > limit {
			return nil, errLZ4
		}
		dst = append(dst, src[next:next+n]...)
		if at = next + n; at == len(src) {
			return dst, nil // the last sequence has no copy
		}
		if at+2 > len(src) {
			return nil, errLZ4
		}
		back := int(src[at]) | int(src[at+1])<<8
		n, at, ok = lz4Length(src, at+2, int(token&15))
		n += 4
		if !ok || back == 0 || back > len(dst) || len(dst)+n > limit {
			return nil, errLZ4
		}
		// Byte by byte where the copy overlaps what it writes, which repeats a pattern.
		for from := len(dst) - back; n > 0; {
			k := min(n, len(dst)-from)
			dst = append(dst, dst[from:from+k]...)
			from += k
			n -= k
		}
	}
	return dst, nil
}

// lz4Length reads the continuation of a length: 15 means that more bytes follow.
func lz4Length(src []byte, at, n int) (length, next int, ok bool) {
	if n < 15 {
		return n, at, true
	}
	for at < len(src) {
		b := src[at]
		at++
		if n += int(b); b != 255 {
			return n, at, true
		}
	}
	return 0, at, false
}

// ungroup undoes the grouping of every fourth byte, which makes floating-point
// numbers compress better.
func ungroup(src []byte) []byte {
	dst := make([]byte, len(src))
	at := 0
	for g := range 4 {
		for i := g; i < len(dst); i += 4 {
			dst[i] = src[at]
			at++
		}
	}
	return dst
}
