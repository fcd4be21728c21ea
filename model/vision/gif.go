package vision

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

var errGIF = errors.New("the file is truncated or damaged")

// decodeGIF decodes the first frame. As in Pillow, the rest of the canvas has the frame's
// transparent colour, or else colour 0, and the canvas grows where a frame is larger.
func decodeGIF(b []byte) (*Image, error) {
	const headerSize, frameSize = 13, 9
	if len(b) < headerSize {
		return nil, errGIF
	}
	width, height := int(binary.LittleEndian.Uint16(b[6:])), int(binary.LittleEndian.Uint16(b[8:]))
	palette, b, err := gifPalette(b[10], b[headerSize:])
	if err != nil {
		return nil, err
	}
	background := uint8(0)
	for {
		if len(b) < 1 || b[0] == ';' {
			return nil, fmt.Errorf("it has no picture: %w", errGIF)
		}
		kind := b[0]
		b = b[1:]
		switch {
		case kind == '!' && len(b) > 0:
			label := b[0]
			block, rest, err := gifBlocks(b[1:])
			if err != nil {
				return nil, err
			}
			if label == 0xf9 && len(block) >= 4 && block[0]&1 != 0 {
				background = block[3]
			}
			b = rest
		case kind == ',' && len(b) >= frameSize:
			var box [4]int // x, y, width, height
			for i := range box {
				box[i] = int(binary.LittleEndian.Uint16(b[2*i:]))
			}
			flags := b[8]
			own, b, err := gifPalette(flags, b[frameSize:])
			if err != nil {
				return nil, err
			}
			if own != nil {
				palette = own
			}
			width, height = max(width, box[0]+box[2]), max(height, box[1]+box[3])
			if err := checkSize(width, height); err != nil {
				return nil, err
			}
			indexes, err := gifPixels(b, box[2]*box[3])
			if err != nil {
				return nil, err
			}
			if flags&0x40 != 0 {
				indexes = deinterlace(indexes, box[2], box[3])
			}
			return paint(width, height, box, indexes, background, palette), nil
		}
	}
}

// gifPalette reads the palette that the flags announce; nil if there is none.
func gifPalette(flags uint8, b []byte) (palette, rest []byte, err error) {
	if flags&0x80 == 0 {
		return nil, b, nil
	}
	n := 3 << (flags&7 + 1)
	if len(b) < n {
		return nil, nil, errGIF
	}
	return b[:n], b[n:], nil
}

// gifBlocks returns the first data block of an extension and what follows the last one.
func gifBlocks(b []byte) (first, rest []byte, err error) {
	for {
		if len(b) < 1 || len(b) < 1+int(b[0]) {
			return nil, nil, errGIF
		}
		n := int(b[0])
		if first == nil {
			first = b[1 : 1+n]
		}
		b = b[1+n:]
		if n == 0 {
			return first, b, nil
		}
	}
}

func gifPixels(b []byte, n int) ([]uint8, error) {
	if len(b) < 1 || b[0] < 1 || b[0] > 8 {
		return nil, errGIF
	}
	r := lzw.NewReader(bytes.NewReader(gifData(b[1:])), lzw.LSB, max(int(b[0]), 2))
	defer r.Close()
	// The buffer grows with the data, so that a small file cannot claim much memory.
	var out bytes.Buffer
	if _, err := io.CopyN(&out, r, int64(n)); err != nil {
		return nil, fmt.Errorf("reading pixels: %w", errGIF)
	}
	return out.Bytes(), nil
}

// gifData joins data blocks up to an empty one. It does not mind a missing end, because the pixels
// may be complete before.
func gifData(b []byte) (data []byte) {
	for len(b) > 1 && b[0] > 0 {
		n := min(int(b[0]), len(b)-1)
		data = append(data, b[1:1+n]...)
		b = b[1+n:]
	}
	return data
}

// deinterlace puts rows, which come in four passes, into order.
func deinterlace(pix []uint8, w, h int) []uint8 {
	out := make([]uint8, len(pix))
	for _, pass := range [4]struct{ first, step int }{{0, 8}, {4, 8}, {2, 4}, {1, 2}} {
		for y := pass.first; y < h; y += pass.step {
			copy(out[y*w:(y+1)*w], pix)
			pix = pix[w:]
		}
	}
	return out
}

func paint(width, height int, box [4]int, indexes []uint8, background uint8, palette []uint8) *Image {
	var colors [256][3]uint8
	for i := range colors {
		switch {
		case palette == nil:
			colors[i] = [3]uint8{uint8(i), uint8(i), uint8(i)}
		case 3*i < len(palette):
			colors[i] = [3]uint8(palette[3*i:])
		}
	}
	out := NewImage(width, height)
	fill(out, colors[background])
	for y := range box[3] {
		dst := out.row(box[1] + y)[3*box[0]:]
		for x, v := range indexes[y*box[2] : (y+1)*box[2]] {
			copy(dst[3*x:3*x+3], colors[v][:])
		}
	}
	return out
}
