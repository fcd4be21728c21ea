package vision

import (
	"encoding/binary"
	"image"
)

// half rounds a sum of weighted samples when precision bits are cut off.
const half = 1 << (precision - 1)

// clipped maps a rounded sum, with an offset of 256, to a sample. The sums of filters that
// overshoot reach about a quarter beyond either end.
var clipped = func() (t [1024]uint8) {
	for i := range t {
		t[i] = uint8(min(max(i-256, 0), 255))
	}
	return t
}()

// A sum over samples may be negative in between, but with its offset of 256 ends as a positive
// number of 32 bits. So two sums fit into a word, and one multiplication serves both.
const (
	twoSums = (half + 256<<precision) * (1 + 1<<32)
	twoLow  = 0x000000ff000000ff
)

func lowSum(a uint64) uint8  { return clipped[uint32(a)>>precision] }
func highSum(a uint64) uint8 { return clipped[a>>(32+precision)] }

// horizontal makes every pixel of the rows from top to bottom from the window of its column. It
// takes two rows at a time, spread to words of two samples each; spread has room for them.
func horizontal(dst, src plane, top, bottom int, ws []window, spread []uint64) {
	first, end := span(ws)
	for y := top; y < bottom; y += 2 {
		other := min(y+1, bottom-1)
		spreadRows(spread, src.at(first, y), src.at(first, other), end-first)
		out1, out2 := dst.at(0, y)[:3*len(ws)], dst.at(0, other)[:3*len(ws)]
		for i := range ws {
			t := spread[3*(ws[i].start-first):]
			var rg1, rg2, bb uint64 = twoSums, twoSums, twoSums
			for _, k := range ws[i].weights {
				if len(t) < 3 {
					break
				}
				k := uint64(k)
				rg1 += t[0] * k
				rg2 += t[1] * k
				bb += t[2] * k
				t = t[3:]
			}
			if len(out1) < 3 || len(out2) < 3 {
				break
			}
			out1[0], out1[1], out1[2] = lowSum(rg1), highSum(rg1), lowSum(bb)
			out2[0], out2[1], out2[2] = lowSum(rg2), highSum(rg2), highSum(bb)
			out1, out2 = out1[3:], out2[3:]
		}
	}
}

// spreadRows writes three words for each of n pixels: red and green of the one row, of the other
// row, and blue of both.
func spreadRows(spread []uint64, row1, row2 []uint8, n int) {
	row1, row2, spread = row1[:3*n], row2[:3*n], spread[:3*n]
	for len(row1) >= 3 && len(row2) >= 3 && len(spread) >= 3 {
		spread[0] = uint64(row1[0]) | uint64(row1[1])<<32
		spread[1] = uint64(row2[0]) | uint64(row2[1])<<32
		spread[2] = uint64(row1[2]) | uint64(row2[2])<<32
		row1, row2, spread = row1[3:], row2[3:], spread[3:]
	}
}

// vertical makes the columns from left to right of every row of dst from the window of that row.
func vertical(dst, src plane, left, right int, ws []window) {
	n := 3 * (right - left)
	for y := range ws {
		out := dst.pix[y*dst.stride:][:n]
		at := src.offset(left, ws[y].start)
		if n < 8 {
			verticalNarrow(out, src.pix[at:], src.stride, ws[y].weights)
			continue
		}
		for i := 0; i < n; i += 8 {
			i = min(i, n-8) // the last eight overlap
			verticalEight(out[i:i+8], src.pix[at+i:], src.stride, ws[y].weights)
		}
	}
}

// verticalEight makes eight neighbouring samples at a time, in four words of two sums.
func verticalEight(out, in []uint8, stride int, weights []int32) {
	var a0, a1, a2, a3 uint64 = twoSums, twoSums, twoSums, twoSums
	at := 0
	for _, k := range weights {
		x, k := binary.LittleEndian.Uint64(in[at:]), uint64(k)
		a0 += x & twoLow * k
		a1 += x >> 8 & twoLow * k
		a2 += x >> 16 & twoLow * k
		a3 += x >> 24 & twoLow * k
		at += stride
	}
	_ = out[7]
	out[0], out[1], out[2], out[3] = lowSum(a0), lowSum(a1), lowSum(a2), lowSum(a3)
	out[4], out[5], out[6], out[7] = highSum(a0), highSum(a1), highSum(a2), highSum(a3)
}

func verticalNarrow(out, in []uint8, stride int, weights []int32) {
	for i := range out {
		sum, at := int32(half), i
		for _, k := range weights {
			sum += int32(in[at]) * k
			at += stride
		}
		out[i] = clipped[uint32(sum>>precision+256)&1023]
	}
}

// pickNearest picks the pixel under each output centre. Pillow adds the positions up step by step,
// and its rounding errors decide ties, so this does too.
func pickNearest(dst, src plane, inW, inH, w, h int, part image.Rectangle) {
	columns := positions(inW, w)[part.Min.X:part.Max.X]
	for y, from := range positions(inH, h)[part.Min.Y:part.Max.Y] {
		in, out := src.at(0, from), dst.at(0, y)
		for x, from := range columns {
			copy(out[3*x:3*x+3], in[3*from:])
		}
	}
}

func positions(in, out int) []int {
	step := float64(in) / float64(out)
	at := step * 0.5
	list := make([]int, out)
	for i := range list {
		list[i] = min(int(at), in-1)
		at += step
	}
	return list
}
