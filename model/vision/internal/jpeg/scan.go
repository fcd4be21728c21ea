package jpeg

import (
	"bytes"
	"fmt"
	"image"
)

// decodeOnly decodes the single scan of a file, block by block into the planes. Blocks outside of
// the needed MCUs are read, but not transformed.
func (d *Decoder) decodeOnly(needed image.Rectangle) error {
	if err := d.deriveTables(); err != nil {
		return err
	}
	var block [64]int32
	r := &d.bits
	for my := range d.mcusY {
		if my >= needed.Max.Y && d.endMarked() {
			return nil
		}
		for mx := range d.mcusX {
			if err := d.restart(); err != nil {
				return err
			}
			wanted := image.Pt(mx, my).In(needed)
			empty := r.dry()
			for _, c := range d.scan {
				for v := range c.v {
					for h := range c.h {
						last := 0
						if !empty {
							last = r.block(&block, c, &d.dc[c.dc], &d.ac[c.ac])
						}
						if wanted {
							x, y := 8*(mx*c.h+h), 8*(my*c.v+v)
							inverse(&block, last, c.plane[y*c.stride+x:], c.stride)
						}
						if last > 0 {
							block = [64]int32{}
						}
						block[0] = 0
					}
				}
			}
			if r.dry() && r.end {
				return ErrTruncated
			}
		}
	}
	return d.checkEnd()
}

// checkEnd refuses a file that ends with its last pixel, without a marker. libjpeg reads ahead, so
// Pillow takes nearly all such files for truncated.
func (d *Decoder) checkEnd() error {
	if d.bits.end {
		return ErrTruncated
	}
	return nil
}

// endMarked reports whether there is an end marker after the current position. Decoding cannot
// run out of data then, so whether the file is truncated is known without reading on.
func (d *Decoder) endMarked() bool {
	return bytes.LastIndex(d.data[d.bits.pos:], []byte{0xff, markerEOI}) >= 0
}

func (d *Decoder) deriveTables() error {
	for _, c := range d.scan {
		if c.dc > 3 || c.ac > 3 {
			return fmt.Errorf("a Huffman table is missing")
		}
		if err := d.dc[c.dc].derive(true); err != nil {
			return err
		}
		if err := d.ac[c.ac].derive(false); err != nil {
			return err
		}
	}
	return nil
}

// block decodes a block, dequantized in natural order, and returns the zigzag place of its last
// coefficient. The block must be zero before.
func (r *bitReader) block(block *[64]int32, c *component, dc, ac *table) (last int) {
	if size := uint(r.symbol(dc) & 15); size > 0 {
		c.prediction += extend(r.take(size), int(size))
	}
	// The vector code of libjpeg-turbo multiplies in 16 bits.
	block[0] = int32(int16(int32(int16(c.prediction)) * c.quant[0]))
	data, pos, acc, n := r.data, r.pos, r.acc, r.n
	for k := 1; k < 64; k++ {
		if n < 32 {
			r.pos, r.acc, r.n = pos, acc, n
			r.fill()
			pos, acc, n = r.pos, r.acc, r.n
		}
		e := ac.look[acc>>(64-lookBits)]
		length := uint(e & 63)
		value := e >> 16
		if value != 0 {
			acc <<= length & 63
			n -= length
			k += int(e >> 6 & 15)
		} else {
			run, size := int(e>>6&15), uint(e>>10&15)
			if length == 0 {
				var symbol uint8
				length, symbol = ac.search(acc)
				run, size = int(symbol>>4), uint(symbol&15)
			}
			acc <<= length & 63
			n -= length
			k += run
			if size == 0 {
				if run != 15 {
					break
				}
				continue
			}
			value = extend(uint32(acc>>(64-size)), int(size))
			acc <<= size
			n -= size
		}
		at := zigzag[k&127%80] & 63
		block[at] = int32(int16(value * c.quant[k&63]))
		last = k
	}
	_ = data
	r.pos, r.acc, r.n = pos, acc, n
	return last
}
