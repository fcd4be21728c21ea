package jpeg

import (
	"fmt"
	"image"
)

// decodeScans collects the coefficients of all scans, then transforms the needed blocks.
func (d *Decoder) decodeScans(needed image.Rectangle) error {
	for {
		if err := d.decodeScan(); err != nil {
			return err
		}
		d.pos, d.pending = d.bits.pos, d.bits.marker
		marker, err := d.readMarkers()
		if err != nil {
			return err
		}
		if marker == markerEOI {
			break
		}
	}
	for i := range d.comps {
		c := &d.comps[i]
		for y := needed.Min.Y * c.v; y < needed.Max.Y*c.v; y++ {
			for x := needed.Min.X * c.h; x < needed.Max.X*c.h; x++ {
				c.inverse(&c.blocks[y*(c.stride/8)+x], 63, 8*x, 8*y)
			}
		}
	}
	return nil
}

func (d *Decoder) decodeScan() error {
	read := func(b *block, c *component) { d.readBlock(b, c) }
	if d.progressive {
		var err error
		if read, err = d.progressiveReader(); err != nil {
			return err
		}
	} else if err := d.deriveTables(true, true); err != nil {
		return err
	}
	if len(d.scan) == 1 {
		c := d.scan[0]
		for y := range c.blocksY {
			for x := range c.blocksX {
				if err := d.restart(); err != nil {
					return err
				}
				if !d.bits.dry {
					read(&c.blocks[y*(c.stride/8)+x], c)
				}
				if err := d.bits.check(); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for my := range d.mcusY {
		for mx := range d.mcusX {
			if err := d.restart(); err != nil {
				return err
			}
			for _, c := range d.scan {
				for v := range c.v {
					for h := range c.h {
						if !d.bits.dry {
							read(&c.blocks[(my*c.v+v)*(c.stride/8)+mx*c.h+h], c)
						}
					}
				}
			}
			if err := d.bits.check(); err != nil {
				return err
			}
		}
	}
	return nil
}

// progressiveReader checks the parameters of a scan and returns what reads its blocks.
func (d *Decoder) progressiveReader() (func(*block, *component), error) {
	isDC := d.bandLow == 0
	if isDC && d.bandTop != 0 || !isDC && (d.bandLow > d.bandTop || d.bandTop > 63 || len(d.scan) != 1) ||
		d.bitHigh != 0 && d.bitLow != d.bitHigh-1 || d.bitLow > 13 {
		return nil, fmt.Errorf("a progressive scan has impossible parameters (%d to %d, bits %d to %d)", d.bandLow, d.bandTop, d.bitHigh, d.bitLow)
	}
	switch {
	case isDC && d.bitHigh == 0:
		return d.readFirstDC, d.deriveTables(true, false)
	case isDC:
		return d.refineDC, nil
	case d.bitHigh == 0:
		return d.readFirstAC, d.deriveTables(false, true)
	}
	return d.refineAC, d.deriveTables(false, true)
}

func (d *Decoder) readFirstDC(b *block, c *component) {
	c.prediction += d.bits.difference(&d.dc[c.dc])
	b[0] = int16(c.prediction << d.bitLow)
}

func (d *Decoder) refineDC(b *block, _ *component) {
	b[0] |= int16(d.bits.take(1) << d.bitLow)
}

func (d *Decoder) readFirstAC(b *block, c *component) {
	if d.eobRun > 0 {
		d.eobRun--
		return
	}
	r, t := &d.bits, &d.ac[c.ac]
	for k := d.bandLow; k <= d.bandTop; k++ {
		symbol := r.symbol(t)
		run, size := int(symbol>>4), uint(symbol&15)
		if size == 0 && run < 15 {
			d.eobRun = d.endOfBand(run) - 1
			return
		}
		k += run
		if size > 0 {
			b[zigzag[k&127]&63] = int16(extend(r.take(size), size) << d.bitLow)
		}
	}
}

// endOfBand reads for how many blocks, including this one, the band has ended.
func (d *Decoder) endOfBand(run int) int {
	blocks := 1 << run
	if run > 0 {
		blocks += int(d.bits.take(uint(run)))
	}
	return blocks
}

// refineAC reads one more bit of the coefficients that are not zero yet skipped ones included, and
// the coefficients that become plus or minus one.
func (d *Decoder) refineAC(b *block, c *component) {
	r, t := &d.bits, &d.ac[c.ac]
	one := int16(1) << d.bitLow
	k := d.bandLow
	if d.eobRun == 0 {
		for ; k <= d.bandTop; k++ {
			symbol := r.symbol(t)
			run, size := int(symbol>>4), symbol&15
			if size == 0 && run < 15 {
				d.eobRun = d.endOfBand(run)
				break
			}
			value := int16(0)
			if size > 0 {
				value = one
				if r.take(1) == 0 {
					value = -one
				}
			}
			for ; k <= d.bandTop; k++ {
				at := &b[zigzag[k]&63]
				if *at != 0 {
					r.refine(at, one)
				} else if run--; run < 0 {
					break
				}
			}
			if value != 0 {
				b[zigzag[k&127]&63] = value
			}
		}
	}
	if d.eobRun > 0 {
		for ; k <= d.bandTop; k++ {
			if at := &b[zigzag[k]&63]; *at != 0 {
				r.refine(at, one)
			}
		}
		d.eobRun--
	}
}

// refine reads the next bit of a coefficient and moves it away from zero if the bit is set.
func (r *bitReader) refine(at *int16, one int16) {
	if r.take(1) == 0 || *at&one != 0 {
		return
	}
	if *at >= 0 {
		*at += one
	} else {
		*at -= one
	}
}
