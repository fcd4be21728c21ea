// Package jpeg decodes baseline, extended and progressive JPEG files to the very RGB bytes that
// libjpeg-turbo, and therefore Pillow, produces: the accurate integer inverse DCT ("islow"),
// triangle-filter chroma upsampling ("fancy") and the 16-bit fixed-point colour conversion.
//
// It is also as lenient as libjpeg-turbo: damaged entropy-coded data decodes to some picture, as
// long as the file does not end early. Arithmetic-coded, lossless and 12-bit files are refused. Two
// things of libjpeg-turbo are missing, which only damaged or unfinished files show: its vector code
// overflows at 16 bits, and it smooths the blocks of progressive files that lack the last scans.
package jpeg

import (
	"errors"
	"fmt"
	"image"
	"sync"
)

// ErrTruncated means that the file ends before its last pixel.
var ErrTruncated = errors.New("the file is truncated")

// Decoder reads one file: [Open], then [Decoder.Decode] or [Decoder.Close].
type Decoder struct {
	Width, Height int // pixels

	data []byte
	pos  int

	progressive bool
	several     bool // scans: coefficients are collected before any block is complete
	comps       []component
	hmax, vmax  int // highest sampling factors
	mcusX       int // MCUs of a scan of all components
	mcusY       int

	scans       int // begun so far
	work        int // blocks in them
	jfif, adobe bool
	transform   byte // of the Adobe marker

	quant           [4]quantTable
	quantDefined    [4]bool
	dc, ac          *[4]table
	restartInterval int // MCUs between restart markers; 0: none

	scan             []*component // components of the current scan
	bandLow, bandTop int          // its first and last coefficient
	bitHigh, bitLow  uint         // its successive approximation
	bits             bitReader
	restartsToGo     int
	nextRestart      byte
	eobRun           int
	pending          byte // marker that ended the last scan's data; 0: none

	rows [4][]uint8 // one output row of each component, upsampled
}

// A quantTable holds the factors of the coefficients, in natural order. libjpeg-turbo's vector
// code multiplies in 16 bits, so the type wraps damaged values around as it does.
type quantTable [64]int16

// A block holds coefficients in natural order.
type block [64]int16

// A component is one colour plane. Its buffers outlive the file, for the next one to use.
type component struct {
	id            byte
	h, v          int // sampling factors
	quantIndex    byte
	quant         quantTable // as it was when the first scan of the component began
	latched       bool
	dc, ac        byte // table numbers of the current scan
	prediction    int32
	width, height int     // samples
	blocksX       int     // blocks with samples
	blocksY       int     // blocks with samples
	stride        int     // samples a row of plane: whole MCUs
	plane         []uint8 // samples
	blocks        []block // of files with several scans; stride/8 a row
}

var pool = sync.Pool{New: func() any { return &Decoder{dc: new([4]table), ac: new([4]table)} }}

// Open reads the header, up to the first scan.
func Open(data []byte) (*Decoder, error) {
	d := pool.Get().(*Decoder)
	d.reset(data)
	if err := d.readHeader(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Close gives the decoder's buffers to the next file.
func (d *Decoder) Close() {
	d.data = nil
	d.bits.data = nil
	pool.Put(d)
}

// reset forgets the last file, but keeps its buffers and derived Huffman tables.
func (d *Decoder) reset(data []byte) {
	*d = Decoder{data: data, comps: d.comps[:0], scan: d.scan[:0], dc: d.dc, ac: d.ac, rows: d.rows}
	for i := range d.dc {
		d.dc[i].defined, d.ac[i].defined = false, false
	}
}

// Decode returns the pixels of a box inside the image, three bytes each, in buf if it is large
// enough, and closes d. The pixels
// are those of the whole image; the inverse DCT is only run where the box needs it.
func (d *Decoder) Decode(box image.Rectangle, buf []uint8) ([]uint8, error) {
	defer d.Close()
	if box.Empty() || !box.In(image.Rect(0, 0, d.Width, d.Height)) {
		return nil, fmt.Errorf("box %v is not inside the image of %d by %d pixels", box, d.Width, d.Height)
	}
	d.allocate()
	var err error
	if d.several {
		err = d.decodeScans(d.needed(box))
	} else {
		err = d.decodeOnly(d.needed(box))
	}
	if err != nil {
		return nil, err
	}
	return d.convert(box, grow(buf, 3*box.Dx()*box.Dy())), nil
}

// needed is the range of MCUs that box depends on: one chroma sample beyond it on each side.
func (d *Decoder) needed(box image.Rectangle) image.Rectangle {
	w, h := 8*d.hmax, 8*d.vmax
	return image.Rect((box.Min.X-d.hmax)/w, (box.Min.Y-d.vmax)/h, (box.Max.X+d.hmax+w-1)/w, (box.Max.Y+d.vmax+h-1)/h).
		Intersect(image.Rect(0, 0, d.mcusX, d.mcusY))
}

func (d *Decoder) allocate() {
	for i := range d.comps {
		c := &d.comps[i]
		size := c.stride * d.mcusY * c.v * 8
		// The margin lets the upsampler read eight samples at a time.
		c.plane = grow(c.plane, size+16)
		if d.several {
			c.blocks = grow(c.blocks, size/64)
			clear(c.blocks)
		}
	}
}

func grow[T any](buf []T, n int) []T {
	if cap(buf) < n {
		return make([]T, n)
	}
	return buf[:n]
}
