package jpeg

import "encoding/binary"

// row returns the samples of image row y and columns x0 to x1 of a component, upsampled to the
// size of the image. Twofold upsampling uses libjpeg's triangle filter, other factors replicate.
func (d *Decoder) row(i, y, x0, x1 int) []uint8 {
	c := &d.comps[i]
	sx, sy := d.hmax/c.h, d.vmax/c.v
	near := c.plane[y/sy*c.stride:]
	if sx == 1 && sy == 1 {
		return near[x0:x1]
	}
	d.rows[i] = grow(d.rows[i], x1-x0+64)
	out := d.rows[i]
	smooth := sx <= 2 && sy <= 2 && (sx == 1 || c.width > 2)
	if !smooth {
		for x := x0; x < x1; x++ {
			out[x-x0] = near[x/sx]
		}
		return out[:x1-x0]
	}
	far := near
	if sy == 2 {
		other := min(max(y/2-1+2*(y&1), 0), c.height-1)
		far = c.plane[other*c.stride:]
	}
	if sx == 1 {
		bias := int32(1 + y&1)
		for x := x0; x < x1; x++ {
			out[x-x0] = uint8((3*int32(near[x]) + int32(far[x]) + bias) >> 2)
		}
		return out[:x1-x0]
	}
	// One sample more on each side keeps the ends, which widen treats as the image's, out of view.
	first, end := max(x0/2-1, 0), min((x1+1)/2+1, c.width)
	left, right := uint64(8), uint64(7)
	if sy == 1 {
		left = 4
		right = 8
	}
	widen(out, near[first:], far[first:], end-first, left, right)
	return out[x0-2*first:][:x1-x0]
}

// widen doubles n samples horizontally: each becomes two, of three parts its own value and one
// part the left or right neighbour's. Its own value is three parts near and one part far. The
// biases are added, in sixteenths, before rounding down. It works on eight samples at a time, in
// 16-bit lanes, and may read and write a few beyond the end.
func widen(dst, near, far []uint8, n int, left, right uint64) {
	const lanes = 0x00ff00ff00ff00ff
	left *= 0x0001000100010001
	right *= 0x0001000100010001
	sum := func(i int) uint64 { return 3*uint64(near[i]) + uint64(far[i]) }
	previous := sum(0)
	i := 0
	for ; i+8 <= n; i += 8 {
		a, b := binary.LittleEndian.Uint64(near[i:]), binary.LittleEndian.Uint64(far[i:])
		even, odd := a&lanes*3+b&lanes, a>>8&lanes*3+b>>8&lanes
		next := sum(min(i+8, n-1))
		p0 := (3*even + odd<<16 + previous + left) >> 4 & lanes
		p1 := (3*even + odd + right) >> 4 & lanes
		p2 := (3*odd + even + left) >> 4 & lanes
		p3 := (3*odd + even>>16 + next<<48 + right) >> 4 & lanes
		previous = odd >> 48
		binary.LittleEndian.PutUint64(dst[2*i:], interleave(p0|p1<<8, p2|p3<<8))
		binary.LittleEndian.PutUint64(dst[2*i+8:], interleave((p0|p1<<8)>>32, (p2|p3<<8)>>32))
	}
	left &= 0xffff
	right &= 0xffff
	for ; i < n; i++ {
		own, next := sum(i), sum(min(i+1, n-1))
		dst[2*i] = uint8((3*own + previous + left) >> 4)
		dst[2*i+1] = uint8((3*own + next + right) >> 4)
		previous = own
	}
}

// interleave merges the low two 16-bit units of a and b: a0, b0, a1, b1.
func interleave(a, b uint64) uint64 {
	return a&0xffff | b&0xffff<<16 | a&0xffff0000<<16 | b&0xffff0000<<32
}
