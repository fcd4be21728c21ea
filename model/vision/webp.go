package vision

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"

	"golang.org/x/image/vp8"
	"golang.org/x/image/vp8l"
)

var errWebP = errors.New("its chunks are damaged")

// webpChunk splits the first chunk off. The content of an odd size is followed by a zero byte.
func webpChunk(b []byte) (kind string, content, rest []byte, err error) {
	if len(b) < 8 {
		return "", nil, nil, errWebP
	}
	size := uint64(binary.LittleEndian.Uint32(b[4:]))
	padded := size + size&1
	if padded > uint64(len(b)-8) {
		return "", nil, nil, fmt.Errorf("chunk %q is cut off: %w", b[:4], errWebP)
	}
	return string(b[:4]), b[8 : 8+size], b[8+padded:], nil
}

// decodeWebP decodes the picture, or the first frame of an animation on its transparent canvas.
// The containers are read here because x/image/webp knows no animation and takes the colours of
// lossy pictures for full-range ones.
func decodeWebP(b []byte) (*Image, error) {
	kind, body, _, err := webpChunk(b)
	if err != nil || kind != "RIFF" || len(body) < 4 {
		return nil, errWebP
	}
	var canvas image.Point
	for body = body[4:]; ; {
		kind, content, rest, err := webpChunk(body)
		if err != nil {
			return nil, err
		}
		switch kind {
		case "VP8X":
			if len(content) < 10 {
				return nil, errWebP
			}
			canvas = image.Pt(1+uint24(content[4:]), 1+uint24(content[7:]))
			if err := checkSize(canvas.X, canvas.Y); err != nil {
				return nil, err
			}
		case "VP8 ", "VP8L":
			m, err := decodeFrame(kind, content)
			if err == nil && canvas != (image.Point{}) && canvas != image.Pt(m.Width, m.Height) {
				err = fmt.Errorf("its picture is not as large as its canvas: %w", errWebP)
			}
			return m, err
		case "ANMF":
			return decodeAnimated(content, canvas)
		}
		body = rest
	}
}

// decodeAnimated puts a frame on the canvas: offset in units of two pixels, size, time and flags,
// then the chunks of a still picture.
func decodeAnimated(b []byte, canvas image.Point) (*Image, error) {
	if len(b) < 16 {
		return nil, errWebP
	}
	x, y, w, h := 2*uint24(b), 2*uint24(b[3:]), 1+uint24(b[6:]), 1+uint24(b[9:])
	if x+w > canvas.X || y+h > canvas.Y {
		return nil, fmt.Errorf("a frame is outside of the canvas: %w", errWebP)
	}
	for b = b[16:]; ; {
		kind, content, rest, err := webpChunk(b)
		if err != nil {
			return nil, err
		}
		if kind == "VP8 " || kind == "VP8L" {
			m, err := decodeFrame(kind, content)
			if err != nil {
				return nil, err
			}
			if m.Width != w || m.Height != h {
				return nil, fmt.Errorf("a frame has another size than its header says: %w", errWebP)
			}
			return crop(m, -x, -y, canvas.X, canvas.Y), nil
		}
		b = rest
	}
}

func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

func decodeFrame(kind string, b []byte) (*Image, error) {
	if kind == "VP8L" {
		return standard(vp8l.DecodeConfig, vp8l.Decode)(b)
	}
	d := vp8.NewDecoder()
	d.Init(bytes.NewReader(b), len(b))
	header, err := d.DecodeFrameHeader()
	if err != nil {
		return nil, err
	}
	if err := checkSize(header.Width, header.Height); err != nil {
		return nil, err
	}
	m, err := d.DecodeFrame()
	if err != nil {
		return nil, err
	}
	return fromVP8(m), nil
}

// fromVP8 upsamples the chroma of a lossy picture and converts it to RGB as libwebp does: each
// sample is weighted 9, 3, 3, 1 with its neighbours, in two rounded steps.
func fromVP8(m *image.YCbCr) *Image {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	out := NewImage(w, h)
	cw, ch := (w+1)/2, (h+1)/2
	u, v := make([]uint8, w), make([]uint8, w)
	for y := range h {
		// An odd row lies below its near row of chroma, an even one above.
		near, far := y/2, min(max(y/2-1+2*(y&1), 0), ch-1)
		upsampleVP8(u, m.Cb[near*m.CStride:][:cw], m.Cb[far*m.CStride:][:cw])
		upsampleVP8(v, m.Cr[near*m.CStride:][:cw], m.Cr[far*m.CStride:][:cw])
		luma, dst := m.Y[y*m.YStride:][:w], out.row(y)
		for x, l := range luma {
			l, u, v := int32(l)*19077>>8, int32(u[x]), int32(v[x])
			dst[3*x] = clip6(l + v*26149>>8 - 14234)
			dst[3*x+1] = clip6(l - u*6419>>8 - v*13320>>8 + 8708)
			dst[3*x+2] = clip6(l + u*33050>>8 - 17685)
		}
	}
	return out
}

func upsampleVP8(dst, near, far []uint8) {
	edge := func(i int) uint8 { return uint8((3*uint32(near[i]) + uint32(far[i]) + 2) >> 2) }
	dst[0] = edge(0)
	for i := 1; i < len(near); i++ {
		a, b := uint32(near[i-1]), uint32(near[i])
		c, d := uint32(far[i-1]), uint32(far[i])
		sum := a + b + c + d + 8
		dst[2*i-1] = uint8(((sum+2*(b+c))>>3 + a) >> 1)
		if 2*i < len(dst) {
			dst[2*i] = uint8(((sum+2*(a+d))>>3 + b) >> 1)
		}
	}
	if len(dst)%2 == 0 {
		dst[len(dst)-1] = edge(len(near) - 1)
	}
}

// clip6 drops six fraction bits and clips to a sample.
func clip6(v int32) uint8 { return uint8(min(max(v>>6, 0), 255)) }

func webpMetadata(b []byte) (exif, xmp []byte) {
	for b = b[12:]; ; {
		kind, content, rest, err := webpChunk(b)
		if err != nil {
			return exif, xmp
		}
		switch kind {
		case "EXIF":
			exif = content
		case "XMP ":
			xmp = content
		}
		b = rest
	}
}
