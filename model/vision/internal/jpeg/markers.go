package jpeg

import (
	"errors"
	"fmt"
	"slices"
)

const (
	markerSOF0 = 0xc0
	markerSOF1 = 0xc1
	markerSOF2 = 0xc2
	markerDHT  = 0xc4
	markerRST0 = 0xd0
	markerRST7 = 0xd7
	markerSOI  = 0xd8
	markerEOI  = 0xd9
	markerSOS  = 0xda
	markerDQT  = 0xdb
	markerDNL  = 0xdc
	markerDRI  = 0xdd
	markerAPP0 = 0xe0
	markerAPPE = 0xee
	markerAPPF = 0xef
	markerCOM  = 0xfe
	markerTEM  = 0x01
)

// zigzag maps the order of a file to the natural one. The entries from 64 on catch runs that
// damaged data lets go past the block; those from 80 on are never used.
var zigzag = [128]uint8{
	0, 1, 8, 16, 9, 2, 3, 10,
	17, 24, 32, 25, 18, 11, 4, 5,
	12, 19, 26, 33, 40, 48, 41, 34,
	27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36,
	29, 22, 15, 23, 30, 37, 44, 51,
	58, 59, 52, 45, 38, 31, 39, 46,
	53, 60, 61, 54, 47, 55, 62, 63,
	63, 63, 63, 63, 63, 63, 63, 63,
	63, 63, 63, 63, 63, 63, 63, 63,
}

func (d *Decoder) readHeader() error {
	if len(d.data) < 2 || d.data[0] != 0xff || d.data[1] != markerSOI {
		return errors.New("it does not begin with a JPEG marker")
	}
	d.pos = 2
	marker, err := d.readMarkers()
	if err != nil {
		return err
	}
	if marker != markerSOS {
		return errors.New("it has no picture")
	}
	d.several = d.progressive || len(d.scan) < len(d.comps)
	if !d.progressive {
		d.useStandardTables()
	}
	return nil
}

// readMarkers reads segments until a scan begins (SOS) or the file ends (EOI).
func (d *Decoder) readMarkers() (byte, error) {
	for {
		marker := d.pending
		d.pending = 0
		if marker == 0 {
			var err error
			if marker, err = d.nextMarker(); err != nil {
				return 0, err
			}
		}
		if marker == markerEOI {
			return marker, nil
		}
		if marker == markerTEM || marker >= markerRST0 && marker <= markerRST7 {
			continue
		}
		read := d.reader(marker)
		if read == nil {
			return 0, fmt.Errorf("marker %#x is not supported; convert the image to PNG or baseline JPEG", marker)
		}
		segment, err := d.segment()
		if err != nil {
			return 0, err
		}
		if err := read(segment); err != nil {
			return 0, err
		}
		if marker == markerSOS {
			return marker, nil
		}
	}
}

// nextMarker skips to the byte behind 0xff that is neither stuffing nor fill.
func (d *Decoder) nextMarker() (byte, error) {
	for ; d.pos+1 < len(d.data); d.pos++ {
		if b := d.data[d.pos+1]; d.data[d.pos] == 0xff && b != 0 && b != 0xff {
			d.pos += 2
			return b, nil
		}
	}
	return 0, ErrTruncated
}

func (d *Decoder) segment() ([]byte, error) {
	if len(d.data)-d.pos < 2 {
		return nil, ErrTruncated
	}
	n := int(d.data[d.pos])<<8 | int(d.data[d.pos+1])
	if n < 2 {
		return nil, fmt.Errorf("a segment is %d bytes long", n)
	}
	if len(d.data)-d.pos < n {
		return nil, ErrTruncated
	}
	s := d.data[d.pos+2 : d.pos+n]
	d.pos += n
	return s, nil
}

func (d *Decoder) reader(marker byte) func([]byte) error {
	switch {
	case marker == markerSOF0 || marker == markerSOF1 || marker == markerSOF2:
		d.progressive = marker == markerSOF2
		return d.readFrame
	case marker == markerSOS:
		return d.readScan
	case marker == markerDHT:
		return d.readHuffman
	case marker == markerDQT:
		return d.readQuant
	case marker == markerDRI:
		return d.readRestart
	case marker == markerAPP0:
		return d.readJFIF
	case marker == markerAPPE:
		return d.readAdobe
	case marker > markerAPP0 && marker <= markerAPPF || marker == markerCOM || marker == markerDNL:
		return func([]byte) error { return nil }
	}
	return nil
}

func (d *Decoder) readJFIF(s []byte) error {
	d.jfif = d.jfif || len(s) >= 14 && string(s[:5]) == "JFIF\x00"
	return nil
}

func (d *Decoder) readAdobe(s []byte) error {
	if len(s) >= 12 && string(s[:5]) == "Adobe" {
		d.adobe, d.transform = true, s[11]
	}
	return nil
}

func (d *Decoder) readRestart(s []byte) error {
	if len(s) != 2 {
		return fmt.Errorf("the restart interval is %d bytes long", len(s))
	}
	d.restartInterval = int(s[0])<<8 | int(s[1])
	return nil
}

func (d *Decoder) readQuant(s []byte) error {
	for len(s) > 0 {
		index, size := s[0]&15, 64*(1+int(min(s[0]>>4, 1)))
		if index > 3 || len(s) < 1+size {
			return fmt.Errorf("the quantization table %d is damaged", index)
		}
		for i := range 64 {
			if size == 64 {
				d.quant[index][zigzag[i]] = int16(s[1+i])
			} else {
				d.quant[index][zigzag[i]] = int16(s[1+2*i])<<8 | int16(s[2+2*i])
			}
		}
		d.quantDefined[index] = true
		s = s[1+size:]
	}
	return nil
}

func (d *Decoder) readFrame(s []byte) error {
	switch {
	case len(d.comps) > 0:
		return errors.New("there are two frame headers")
	case len(s) < 6 || len(s) != 6+3*int(s[5]):
		return fmt.Errorf("the frame header is %d bytes long", len(s))
	case s[0] != 8:
		return fmt.Errorf("samples of %d bits are not supported; convert the image to 8 bits", s[0])
	case s[5] != 1 && s[5] != 3 && s[5] != 4:
		return fmt.Errorf("it has %d colour components, but only 1, 3 and 4 are supported", s[5])
	}
	d.Height, d.Width = int(s[1])<<8|int(s[2]), int(s[3])<<8|int(s[4])
	if d.Width == 0 || d.Height == 0 {
		return fmt.Errorf("the image is %d by %d pixels", d.Width, d.Height)
	}
	n := int(s[5])
	d.comps = slices.Grow(d.comps[:0], 4)[:n]
	d.hmax, d.vmax = 1, 1
	for i := range d.comps {
		c, s := &d.comps[i], s[6+3*i:]
		*c = component{id: s[0], h: int(s[1] >> 4), v: int(s[1] & 15), quantIndex: s[2], plane: c.plane, blocks: c.blocks}
		if c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4 {
			return fmt.Errorf("the sampling factors %d by %d are not possible", c.h, c.v)
		}
		if n == 1 {
			c.h, c.v = 1, 1 // a scan of one component is coded block by block whatever its factors
		}
		d.hmax, d.vmax = max(d.hmax, c.h), max(d.vmax, c.v)
	}
	d.mcusX, d.mcusY = ceilDiv(d.Width, 8*d.hmax), ceilDiv(d.Height, 8*d.vmax)
	for i := range d.comps {
		c := &d.comps[i]
		if d.hmax%c.h != 0 || d.vmax%c.v != 0 {
			return fmt.Errorf("sampling factors %d by %d of %d by %d are not supported", c.h, c.v, d.hmax, d.vmax)
		}
		c.width, c.height = ceilDiv(d.Width*c.h, d.hmax), ceilDiv(d.Height*c.v, d.vmax)
		c.blocksX, c.blocksY = ceilDiv(c.width, 8), ceilDiv(c.height, 8)
		c.stride = d.mcusX * c.h * 8
	}
	return nil
}

// maxScans and maxWork, in blocks over all scans, bound the work that a small progressive file can demand. Real files have
// about ten scans, which even for the largest image that Pillow reads is less than half of maxWork. A test lowers it.
const maxScans = 1000

var maxWork = 1 << 28

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func (d *Decoder) readScan(s []byte) error {
	if len(d.comps) == 0 {
		return errors.New("a scan comes before the frame header")
	}
	if len(s) < 1 || len(s) != 4+2*int(s[0]) || s[0] < 1 || s[0] > 4 {
		return errors.New("the scan header is damaged")
	}
	if d.scans++; d.scans > maxScans {
		return fmt.Errorf("it has more than %d scans", maxScans)
	}
	n := int(s[0])
	d.scan = d.scan[:0]
	blocks := 0
	for i := range n {
		id, tables := s[1+2*i], s[2+2*i]
		at := slices.IndexFunc(d.comps, func(c component) bool { return c.id == id })
		if at < 0 || slices.Contains(d.scan, &d.comps[at]) {
			return fmt.Errorf("the scan names component %d wrongly", id)
		}
		c := &d.comps[at]
		c.dc, c.ac, c.prediction = tables>>4, tables&15, 0
		if !c.latched {
			if c.quantIndex > 3 || !d.quantDefined[c.quantIndex] {
				return fmt.Errorf("quantization table %d is missing", c.quantIndex)
			}
			c.quant, c.latched = d.quant[c.quantIndex], true
		}
		d.scan = append(d.scan, c)
		blocks += c.h * c.v
	}
	if n > 1 && blocks > 10 {
		return fmt.Errorf("a scan has %d blocks an MCU, but at most 10 are possible", blocks)
	}
	if n > 1 {
		d.work += blocks * d.mcusX * d.mcusY
	} else {
		d.work += d.scan[0].blocksX * d.scan[0].blocksY
	}
	if d.work > maxWork {
		return fmt.Errorf("it has %d by %d pixels in more than %d scans, as decompression bombs do", d.Width, d.Height, d.scans-1)
	}
	s = s[1+2*n:]
	d.bandLow, d.bandTop, d.bitHigh, d.bitLow = int(s[0]), int(s[1]), uint(s[2]>>4), uint(s[2]&15)
	d.eobRun, d.nextRestart, d.restartsToGo = 0, 0, d.restartInterval
	d.bits = bitReader{data: d.data, pos: d.pos}
	return nil
}
