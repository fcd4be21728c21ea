package jpeg

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// lookBits is the width of the index into table.look.
const lookBits = 10

// A table is a Huffman code. Each entry of look answers for the next lookBits bits of the data:
//
//	bits 0-5    length of the code, plus that of the value's bits if the value is given; 0: too long a code
//	bits 6-9    run: zero coefficients before this one
//	bits 10-13  size: number of bits of the value that follow the code
//	bits 16-31  the value, signed, if code and value fit into lookBits; never 0 then
type table struct {
	defined bool
	derived bool // look, top and offset belong to counts and symbols
	counts  [16]uint8
	symbols [256]uint8
	look    [1 << lookBits]int32
	top     [18]int32 // highest code of each length; -1: none. The last entry ends every search
	offset  [17]int32 // of each length, what to add to a code for its place in symbols
}

func (d *Decoder) readHuffman(s []byte) error {
	for len(s) > 0 {
		if len(s) < 17 {
			return errors.New("the Huffman tables are damaged")
		}
		index, n := s[0], 0
		for _, c := range s[1:17] {
			n += int(c)
		}
		if index&^0x13 != 0 || n > 256 || len(s) < 17+n {
			return fmt.Errorf("damaged Huffman table %#x", index)
		}
		t := &d.dc[index&3]
		if index&0x10 != 0 {
			t = &d.ac[index&3]
		}
		t.define([16]uint8(s[1:17]), string(s[17:17+n]))
		s = s[17+n:]
	}
	return nil
}

// define keeps the derived entries when the same table comes again, as it does from file to file.
func (t *table) define(counts [16]uint8, symbols string) {
	var all [256]uint8
	copy(all[:], symbols)
	if t.counts != counts || t.symbols != all {
		t.counts, t.symbols, t.derived = counts, all, false
	}
	t.defined = true
}

func (t *table) derive(dc bool) error {
	if !t.defined {
		return errors.New("a Huffman table is missing")
	}
	if t.derived {
		return nil
	}
	clear(t.look[:])
	code, p := int32(0), int32(0)
	for length := 1; length <= 16; length++ {
		t.offset[length], t.top[length] = p-code, -1
		for range t.counts[length-1] {
			// No code may consist of ones only.
			if code+1 >= 1<<length {
				return fmt.Errorf("a Huffman table has too many codes of %d bits", length)
			}
			if dc && t.symbols[p] > 15 {
				return fmt.Errorf("a Huffman table has the impossible symbol %d", t.symbols[p])
			}
			if length <= lookBits {
				t.fill(uint32(code), length, t.symbols[p])
			}
			t.top[length] = code
			code++
			p++
		}
		code <<= 1
	}
	t.top[17] = 1<<31 - 1
	t.derived = true
	return nil
}

// fill enters one code under every index that begins with it.
func (t *table) fill(code uint32, length int, symbol uint8) {
	run, size := int32(symbol>>4), uint(symbol&15)
	rest := uint(lookBits - length)
	for i := range uint32(1) << rest {
		e := int32(length) | run<<6 | int32(size)<<10
		if size > 0 && size <= rest {
			e = int32(uint(length)+size) | run<<6 | int32(size)<<10 | extend(i>>(rest-size), size)<<16
		}
		t.look[code<<rest|i] = e
	}
}

// extend gives the value of a coefficient from its size and bits.
func extend(bits uint32, size uint) int32 {
	v := int32(bits)
	if v < 1<<(size-1) {
		v -= 1<<size - 1
	}
	return v
}

// A bitReader reads entropy-coded data. Behind a marker it supplies zeros, as libjpeg does.
type bitReader struct {
	data   []byte
	pos    int
	acc    uint64 // the next bits, from the highest down
	n      uint   // how many of acc are valid
	fake   uint   // how many of those, the last ones, were not in the file
	marker byte   // the marker that was met; 0: none
	end    bool   // the file ended without a marker
	dry    bool   // the data of this segment was used up
}

// fill makes at least 32 bits available.
func (r *bitReader) fill() {
	if r.pos+8 <= len(r.data) {
		w := binary.BigEndian.Uint64(r.data[r.pos:])
		if !hasFF(w) && r.marker == 0 {
			r.acc |= w >> r.n
			k := (63 - r.n) >> 3
			r.pos += int(k)
			r.n += k << 3
			return
		}
	}
	r.fillSlow()
}

func hasFF(w uint64) bool {
	return (^w-0x0101010101010101)&w&0x8080808080808080 != 0
}

func (r *bitReader) fillSlow() {
	// Bits below the valid ones may be left from a fast fill.
	r.acc &^= 1<<(64-r.n) - 1
	for r.n <= 56 && r.marker == 0 && !r.end {
		if r.pos >= len(r.data) {
			r.end = true
			break
		}
		b := r.data[r.pos]
		r.pos++
		if b == 0xff {
			for b == 0xff && r.pos < len(r.data) {
				b = r.data[r.pos]
				r.pos++
			}
			if b == 0xff {
				r.end = true
				break
			}
			if b != 0 {
				r.marker = b
				break
			}
			b = 0xff
		}
		r.acc |= uint64(b) << (56 - r.n)
		r.n += 8
	}
	if r.n <= 56 {
		r.fake += 64 - r.n
		r.n = 64
	}
}

// check notes, between MCUs, whether bits were used that the file does not have.
func (r *bitReader) check() error {
	if r.fake > r.n {
		if r.end {
			return ErrTruncated
		}
		r.dry = true
	}
	return nil
}

// take returns the next size bits, at most 32.
func (r *bitReader) take(size uint) uint32 {
	if r.n < 32 {
		r.fill()
	}
	v := uint32(r.acc >> (64 - size))
	r.acc <<= size
	r.n -= size
	return v
}

// symbol decodes one Huffman code; damaged data gives 0.
func (r *bitReader) symbol(t *table) uint8 {
	if r.n < 32 {
		r.fill()
	}
	e := t.look[r.acc>>(64-lookBits)]
	run, size, length := uint8(e>>6&15), uint8(e>>10&15), uint(e&63)
	symbol := run<<4 | size
	if length == 0 {
		length, symbol = t.search(r.acc)
	} else if e>>16 != 0 {
		length -= uint(size)
	}
	r.acc <<= length
	r.n -= length
	return symbol
}

// search decodes a code of any length, bit by bit.
func (t *table) search(acc uint64) (length uint, symbol uint8) {
	for length = 1; ; length++ {
		code := int32(acc >> (64 - length))
		if code <= t.top[length] {
			if length > 16 {
				return length, 0
			}
			return length, t.symbols[uint8(code+t.offset[length])]
		}
	}
}
