package jpeg

import (
	"bytes"
	"errors"
	"image"
)

// decodeOnly decodes the one scan of a file with a single scan, block by block into the planes.
// Blocks outside of the needed MCUs are read, but not transformed.
func (d *Decoder) decodeOnly(needed image.Rectangle) error {
	if err := d.deriveTables(true, true); err != nil {
		return err
	}
	var b block
	r := &d.bits
	for my := range d.mcusY {
		if my >= needed.Max.Y && d.endMarked() {
			return nil
		}
		for mx := range d.mcusX {
			if err := d.restart(); err != nil {
				return err
			}
			wanted := my >= needed.Min.Y && my < needed.Max.Y && mx >= needed.Min.X && mx < needed.Max.X
			for _, c := range d.scan {
				for v := range c.v {
					for h := range c.h {
						last := 0
						if !r.dry {
							last = d.readBlock(&b, c)
						}
						if wanted {
							c.inverse(&b, last, 8*(mx*c.h+h), 8*(my*c.v+v))
						}
						if last > 0 {
							b = block{}
						}
						b[0] = 0
					}
				}
			}
			if err := r.check(); err != nil {
				return err
			}
		}
	}
	// libjpeg reads ahead, so Pillow takes nearly every file without an end marker for truncated.
	if r.end {
		return ErrTruncated
	}
	return nil
}

// endMarked reports whether an end marker follows somewhere. Decoding cannot run out of data then,
// so that the file is not truncated is known without reading on.
func (d *Decoder) endMarked() bool {
	return bytes.LastIndex(d.data[d.bits.pos:], []byte{0xff, markerEOI}) >= 0
}

func (d *Decoder) deriveTables(dc, ac bool) error {
	for _, c := range d.scan {
		if dc && c.dc > 3 || ac && c.ac > 3 {
			return errors.New("a scan uses an impossible Huffman table")
		}
		if dc {
			if err := d.dc[c.dc].derive(true); err != nil {
				return err
			}
		}
		if ac {
			if err := d.ac[c.ac].derive(false); err != nil {
				return err
			}
		}
	}
	return nil
}

// readBlock reads a block of a sequential file and returns the zigzag place of its last
// coefficient. The block must be zero before.
func (d *Decoder) readBlock(b *block, c *component) (last int) {
	r := &d.bits
	c.prediction += r.difference(&d.dc[c.dc])
	b[0] = int16(c.prediction)
	ac := &d.ac[c.ac]
	acc, n := r.acc, r.n
	for k := 1; k < 64; k++ {
		if n < 32 {
			r.acc, r.n = acc, n
			r.fill()
			acc, n = r.acc, r.n
		}
		e := ac.look[acc>>(64-lookBits)]
		length := uint(e & 63)
		value := e >> 16
		if value != 0 {
			acc <<= length
			n -= length
			k += int(e >> 6 & 15)
		} else {
			run, size := int(e>>6&15), uint(e>>10&15)
			if length == 0 {
				var symbol uint8
				length, symbol = ac.search(acc)
				run, size = int(symbol>>4), uint(symbol&15)
			}
			acc <<= length
			n -= length
			if size == 0 {
				if run != 15 {
					break
				}
				k += run
				continue
			}
			k += run
			value = extend(uint32(acc>>(64-size)), size)
			acc <<= size
			n -= size
		}
		b[zigzag[k&127]&63] = int16(value)
		last = k
	}
	r.acc, r.n = acc, n
	return last
}

// difference reads the change of a DC coefficient.
func (r *bitReader) difference(t *table) int32 {
	if r.n < 32 {
		r.fill()
	}
	if e := t.look[r.acc>>(64-lookBits)]; e>>16 != 0 {
		r.acc <<= uint(e & 63)
		r.n -= uint(e & 63)
		return e >> 16
	}
	if size := uint(r.symbol(t) & 15); size > 0 {
		return extend(r.take(size), size)
	}
	return 0
}

// restart reads the restart marker, if one is due before this MCU.
func (d *Decoder) restart() error {
	if d.restartInterval == 0 {
		return nil
	}
	if d.restartsToGo == 0 {
		if err := d.readRestartMarker(); err != nil {
			return err
		}
		for _, c := range d.scan {
			c.prediction = 0
		}
		d.eobRun, d.restartsToGo = 0, d.restartInterval
	}
	d.restartsToGo--
	return nil
}

// readRestartMarker finds the next marker. If it is not the expected one it guesses, as libjpeg
// does, whether data was lost or a marker damaged: reading goes on behind the marker, or the marker
// stays and the MCUs up to its own place remain empty.
func (d *Decoder) readRestartMarker() error {
	r := &d.bits
	r.acc, r.n, r.fake = 0, 0, 0
	expected := d.nextRestart
	d.nextRestart = (expected + 1) & 7
	for {
		if r.marker == 0 {
			d.pos = r.pos
			marker, err := d.nextMarker()
			if err != nil {
				return err
			}
			r.pos, r.marker = d.pos, marker
		}
		ahead := (r.marker - markerRST0 - expected) & 7
		switch {
		case r.marker < markerSOF0, restarts(r.marker) && ahead >= 6: // nonsense, or a marker of the past
			r.marker = 0
		case !restarts(r.marker) || ahead == 1 || ahead == 2: // a marker of the future
			return nil
		default:
			r.marker, r.dry = 0, false
			return nil
		}
	}
}

func restarts(marker byte) bool { return marker >= markerRST0 && marker <= markerRST7 }
