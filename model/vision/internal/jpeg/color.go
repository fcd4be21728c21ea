package jpeg

import "image"

// convert assembles the pixels of a box in out as Pillow's convert("RGB") gives them.
func (d *Decoder) convert(box image.Rectangle, out []uint8) []uint8 {
	w := box.Dx()
	var rows [4][]uint8
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for i := range d.comps {
			rows[i] = d.row(i, y, box.Min.X, box.Max.X)
		}
		dst := out[3*w*(y-box.Min.Y):][:3*w]
		switch {
		case len(d.comps) == 1:
			interleaveRGB(dst, rows[0], rows[0], rows[0])
		case len(d.comps) == 4:
			d.convertCMYK(dst, rows)
		case d.isRGB():
			interleaveRGB(dst, rows[0], rows[1], rows[2])
		default:
			convertYCC(dst, rows[0], rows[1], rows[2])
		}
	}
	return out
}

// isRGB reports whether three components are red, green and blue instead of YCbCr.
func (d *Decoder) isRGB() bool {
	switch {
	case d.jfif:
		return false
	case d.adobe:
		return d.transform == 0
	}
	return d.comps[0].id == 'R' && d.comps[1].id == 'G' && d.comps[2].id == 'B'
}

func interleaveRGB(dst, r, g, b []uint8) {
	for i := range r {
		dst[3*i], dst[3*i+1], dst[3*i+2] = r[i], g[i], b[i]
	}
}

// A pixel is computed in three lanes of one word: red in the bits from 48 on, blue from 32, green
// with 16 fraction bits from 0. Every lane has an offset of 256, which keeps it positive.
const (
	redLane, blueLane, greenLane = 48, 32, 16
	lumaParts                    = 1<<redLane + 1<<blueLane + 1<<greenLane

	// A lane from 256 to 511 is a sample already.
	outOfRange = 0x300 * lumaParts
	inRange    = 0x100 * lumaParts
)

// crParts and cbParts are what Cr and Cb add to a pixel, by the coefficients of JFIF with 16
// fraction bits, rounded as in libjpeg's jdcolor.c.
var crParts, cbParts = func() (cr, cb [256]uint64) {
	const half = 1 << 15
	for i := range cr {
		x := int64(i - 128)
		red, blue := (91881*x+half)>>16, (116130*x+half)>>16
		greenCr, greenCb := -46802*x, -22554*x+half
		cr[i] = uint64(256+red)<<redLane + uint64(greenCr+128<<16)
		cb[i] = uint64(256+blue)<<blueLane + uint64(greenCb+128<<16)
	}
	return cr, cb
}()

// clamp maps a lane to a sample.
var clamp = func() (t [1024]uint8) {
	for i := range t {
		t[i] = uint8(min(max(i-256, 0), 255))
	}
	return t
}()

func convertYCC(dst, ys, cbs, crs []uint8) {
	cbs, crs = cbs[:len(ys)], crs[:len(ys)]
	for i, y := range ys {
		if len(dst) < 3 {
			break
		}
		v := crParts[crs[i]] + cbParts[cbs[i]] + uint64(y)*lumaParts
		if v&outOfRange == inRange {
			dst[0], dst[1], dst[2] = uint8(v>>redLane), uint8(v>>greenLane), uint8(v>>blueLane)
		} else {
			dst[0], dst[1], dst[2] = clamp[v>>redLane&1023], clamp[v>>greenLane&1023], clamp[v>>blueLane&1023]
		}
		dst = dst[3:]
	}
}

// convertCMYK multiplies the inks out. The samples are inverted, as Adobe writes them and Pillow
// assumes, so each is the share of light that its ink lets through.
func (d *Decoder) convertCMYK(dst []uint8, rows [4][]uint8) {
	w := len(rows[3])
	if d.adobe && d.transform != 0 {
		convertYCC(dst, rows[0][:w], rows[1], rows[2])
		for i, v := range dst {
			dst[i] = 255 - v
		}
	} else {
		interleaveRGB(dst, rows[0][:w], rows[1], rows[2])
	}
	for i, k := range rows[3] {
		for j := range 3 {
			ink := uint32(255 - dst[3*i+j])
			t := ink*uint32(k) + 128
			dst[3*i+j] = uint8(uint32(k) - (t>>8+t)>>8)
		}
	}
}
