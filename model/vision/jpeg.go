package vision

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
)

func decodeJPEG(b []byte) (*Image, error) {
	c, err := jpeg.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if err := checkSize(c.Width, c.Height); err != nil {
		return nil, err
	}
	m, err := jpeg.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	ycc, ok := m.(*image.YCbCr)
	if !ok {
		return toRGB(m)
	}
	hmax, vmax := 1, 1
	switch ycc.SubsampleRatio {
	case image.YCbCrSubsampleRatio444:
	case image.YCbCrSubsampleRatio422:
		hmax = 2
	case image.YCbCrSubsampleRatio420:
		hmax, vmax = 2, 2
	case image.YCbCrSubsampleRatio440:
		vmax = 2
	default:
		return nil, fmt.Errorf("chroma subsampling %v is not supported", ycc.SubsampleRatio)
	}
	w, h := c.Width, c.Height
	cw, ch := (w+hmax-1)/hmax, (h+vmax-1)/vmax
	up := upsampler{h: hmax, v: vmax, sum: make([]int32, cw), out: [2][]uint8{make([]uint8, 2*cw), make([]uint8, 2*cw)}}
	out := NewImage(w, h)
	for y := range h {
		cb := up.row(0, ycc.Cb, ycc.CStride, cw, ch, y)
		cr := up.row(1, ycc.Cr, ycc.CStride, cw, ch, y)
		convertRow(out.row(y), ycc.Y[y*ycc.YStride:][:w], cb, cr)
	}
	return out, nil
}

// upsampler widens chroma rows with libjpeg's triangle filter ("fancy upsampling").
type upsampler struct {
	h, v int
	sum  []int32
	out  [2][]uint8
}

func (u *upsampler) row(c int, plane []uint8, stride, w, h, y int) []uint8 {
	near := plane[y/u.v*stride:][:w]
	if u.h == 1 && u.v == 1 {
		return near
	}
	far := near
	if u.v == 2 {
		other := min(max(y/2-1+2*(y&1), 0), h-1)
		far = plane[other*stride:][:w]
	}
	out := u.out[c]
	switch {
	case u.h == 1:
		bias := int32(1 + y&1)
		for i, v := range near {
			out[i] = uint8((3*int32(v) + int32(far[i]) + bias) >> 2)
		}
	case w <= 2 && u.v == 1 || w <= 2:
		for i, v := range near {
			out[2*i], out[2*i+1] = v, v
		}
	case u.v == 1:
		out[0] = near[0]
		for i := range w - 1 {
			a, b := int32(near[i]), int32(near[i+1])
			out[2*i+1] = uint8((3*a + b + 2) >> 2)
			out[2*i+2] = uint8((3*b + a + 1) >> 2)
		}
		out[2*w-1] = near[w-1]
	default:
		sum := u.sum
		for i, v := range near {
			sum[i] = 3*int32(v) + int32(far[i])
		}
		out[0] = uint8((4*sum[0] + 8) >> 4)
		for i := range w - 1 {
			a, b := sum[i], sum[i+1]
			out[2*i+1] = uint8((3*a + b + 7) >> 4)
			out[2*i+2] = uint8((3*b + a + 8) >> 4)
		}
		out[2*w-1] = uint8((4*sum[w-1] + 7) >> 4)
	}
	return out
}

var redCr, blueCb, greenCr, greenCb [256]int32

func init() {
	const half = 1 << 15
	for i := range redCr {
		x := int32(i - 128)
		redCr[i] = (91881*x + half) >> 16
		blueCb[i] = (116130*x + half) >> 16
		greenCr[i] = -46802 * x
		greenCb[i] = -22554*x + half
	}
}

func clamp(v int32) uint8 { return uint8(min(max(v, 0), 255)) }

func convertRow(dst, y, cb, cr []uint8) {
	for i, v := range y {
		v, b, r := int32(v), cb[i], cr[i]
		d := dst[3*i : 3*i+3 : 3*i+3]
		d[0] = clamp(v + redCr[r])
		d[1] = clamp(v + (greenCr[r]+greenCb[b])>>16)
		d[2] = clamp(v + blueCb[b])
	}
}
