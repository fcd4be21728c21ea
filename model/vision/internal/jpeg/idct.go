package jpeg

import "encoding/binary"

// Constants of the inverse DCT of Loeffler, Ligtenberg and Moschytz as libjpeg's jidctint.c
// scales them: 13 fraction bits.
const (
	fix0_298631336 = 2446
	fix0_390180644 = 3196
	fix0_541196100 = 4433
	fix0_765366865 = 6270
	fix0_899976223 = 7373
	fix1_175875602 = 9633
	fix1_501321110 = 12299
	fix1_847759065 = 15137
	fix1_961570560 = 16069
	fix2_053119869 = 16819
	fix2_562915447 = 20995
	fix3_072711026 = 25172
)

// inverse transforms a block into the samples at (x, y). No coefficient behind the zigzag place
// last is set. Every shift rounds as libjpeg's does, so the result is exact, not just close.
func (c *component) inverse(b *block, last, x, y int) {
	dst, stride := c.plane[y*c.stride+x:], c.stride
	q := &c.quant
	if last == 0 {
		v := clip((int32(b[0]*q[0])+4)>>3 + 128)
		for range 8 {
			binary.LittleEndian.PutUint64(dst, uint64(v)*0x0101010101010101)
			dst = dst[min(stride, len(dst)):]
		}
		return
	}

	// Columns, into two more fraction bits.
	var ws [64]int32
	for i := range 8 {
		if b[8+i]|b[16+i]|b[24+i]|b[32+i]|b[40+i]|b[48+i]|b[56+i] == 0 {
			dc := int32(b[i]*q[i]) << 2
			ws[i], ws[8+i], ws[16+i], ws[24+i] = dc, dc, dc, dc
			ws[32+i], ws[40+i], ws[48+i], ws[56+i] = dc, dc, dc, dc
			continue
		}
		z2, z3 := int32(b[16+i]*q[16+i]), int32(b[48+i]*q[48+i])
		z1 := (z2 + z3) * fix0_541196100
		t2, t3 := z1-z3*fix1_847759065, z1+z2*fix0_765366865
		z2, z3 = int32(b[i]*q[i]), int32(b[32+i]*q[32+i])
		t0, t1 := (z2+z3)<<13+1<<10, (z2-z3)<<13+1<<10
		e0, e1, e2, e3 := t0+t3, t1+t2, t1-t2, t0-t3

		t0, t1 = int32(b[56+i]*q[56+i]), int32(b[40+i]*q[40+i])
		t2, t3 = int32(b[24+i]*q[24+i]), int32(b[8+i]*q[8+i])
		z1, z2, z3 = t0+t3, t1+t2, t0+t2
		z4 := t1 + t3
		z5 := (z3 + z4) * fix1_175875602
		z1, z2 = z1*-fix0_899976223, z2*-fix2_562915447
		z3, z4 = z3*-fix1_961570560+z5, z4*-fix0_390180644+z5
		t0 = t0*fix0_298631336 + z1 + z3
		t1 = t1*fix2_053119869 + z2 + z4
		t2 = t2*fix3_072711026 + z2 + z3
		t3 = t3*fix1_501321110 + z1 + z4

		ws[i], ws[56+i] = (e0+t3)>>11, (e0-t3)>>11
		ws[8+i], ws[48+i] = (e1+t2)>>11, (e1-t2)>>11
		ws[16+i], ws[40+i] = (e2+t1)>>11, (e2-t1)>>11
		ws[24+i], ws[32+i] = (e3+t0)>>11, (e3-t0)>>11
	}

	// Rows. The rounding constant also moves samples from [-128, 127] to [0, 255].
	const center = 1<<17 + 128<<18
	for i := 0; i < 64; i += 8 {
		w := (*[8]int32)(ws[i:])
		z1 := (w[2] + w[6]) * fix0_541196100
		t2, t3 := z1-w[6]*fix1_847759065, z1+w[2]*fix0_765366865
		t0, t1 := (w[0]+w[4])<<13+center, (w[0]-w[4])<<13+center
		e0, e1, e2, e3 := t0+t3, t1+t2, t1-t2, t0-t3

		t0, t1, t2, t3 = w[7], w[5], w[3], w[1]
		z1, z2, z3, z4 := t0+t3, t1+t2, t0+t2, t1+t3
		z5 := (z3 + z4) * fix1_175875602
		z1, z2 = z1*-fix0_899976223, z2*-fix2_562915447
		z3, z4 = z3*-fix1_961570560+z5, z4*-fix0_390180644+z5
		t0 = t0*fix0_298631336 + z1 + z3
		t1 = t1*fix2_053119869 + z2 + z4
		t2 = t2*fix3_072711026 + z2 + z3
		t3 = t3*fix1_501321110 + z1 + z4

		v0, v7 := (e0+t3)>>18, (e0-t3)>>18
		v1, v6 := (e1+t2)>>18, (e1-t2)>>18
		v2, v5 := (e2+t1)>>18, (e2-t1)>>18
		v3, v4 := (e3+t0)>>18, (e3-t0)>>18
		if uint32(v0|v1|v2|v3|v4|v5|v6|v7) > 255 {
			v0, v1, v2, v3 = clip(v0), clip(v1), clip(v2), clip(v3)
			v4, v5, v6, v7 = clip(v4), clip(v5), clip(v6), clip(v7)
		}
		row := (*[8]uint8)(dst)
		row[0], row[1], row[2], row[3] = uint8(v0), uint8(v1), uint8(v2), uint8(v3)
		row[4], row[5], row[6], row[7] = uint8(v4), uint8(v5), uint8(v6), uint8(v7)
		dst = dst[min(stride, len(dst)):]
	}
}

func clip(v int32) int32 { return min(max(v, 0), 255) }
