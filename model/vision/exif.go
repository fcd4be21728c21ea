package vision

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
)

// orientations are the operations that undo each EXIF orientation: the axes are exchanged first.
var orientations = map[int]struct{ transpose, mirrorX, mirrorY bool }{
	2: {mirrorX: true},
	3: {mirrorX: true, mirrorY: true},
	4: {mirrorY: true},
	5: {transpose: true},
	6: {transpose: true, mirrorX: true},
	7: {transpose: true, mirrorX: true, mirrorY: true},
	8: {transpose: true, mirrorY: true},
}

// orient may change m.
func orient(m *Image, orientation int) *Image {
	o := orientations[orientation]
	if o.transpose {
		m = transpose(m)
	}
	if o.mirrorX {
		mirrorX(m)
	}
	if o.mirrorY {
		mirrorY(m)
	}
	return m
}

var xmpOrientation = regexp.MustCompile(`tiff:Orientation(?:="|>)([0-9])`)

// orientation returns the value of the tag in the EXIF block or, if that has none, in the XMP
// packet; 0 if there is none or the block is damaged.
func orientation(exif, xmp []byte) int {
	for range 2 {
		exif = bytes.TrimPrefix(exif, []byte("Exif\x00\x00"))
	}
	if v, ok := tiffOrientation(exif); ok {
		return v
	}
	if m := xmpOrientation.FindSubmatch(xmp); m != nil {
		return int(m[1][0] - '0')
	}
	return 0
}

// tiffOrientation finds the tag in the first directory of a TIFF file, which an EXIF block is.
func tiffOrientation(b []byte) (value int, ok bool) {
	var order binary.ByteOrder = binary.LittleEndian
	switch {
	case matches(b, "II*\x00????"):
	case matches(b, "MM\x00*????"):
		order = binary.BigEndian
	default:
		return 0, false
	}
	const tagOrientation, entrySize = 0x0112, 12
	at := uint64(order.Uint32(b[4:]))
	if at+2 > uint64(len(b)) {
		return 0, false
	}
	n := int(order.Uint16(b[at:]))
	b = b[at+2:]
	for ; n > 0 && len(b) >= entrySize; n, b = n-1, b[entrySize:] {
		if order.Uint16(b) != tagOrientation || order.Uint32(b[4:]) == 0 {
			continue
		}
		switch kind := order.Uint16(b[2:]); kind {
		case 3, 8: // unsigned and signed, 16 bits
			value, ok = int(order.Uint16(b[8:])), true
		case 4, 9: // 32 bits
			value, ok = int(order.Uint32(b[8:])), true
		}
	}
	return value, ok
}

func noMetadata([]byte) (exif, xmp []byte) { return nil, nil }

func tiffMetadata(b []byte) (exif, xmp []byte) { return b, nil }

func jpegMetadata(b []byte) (exif, xmp []byte) {
	const app1, startOfScan = 0xe1, 0xda
	const adobe = "http://ns.adobe.com/xap/1.0/\x00"
	for at := 2; at+4 <= len(b); {
		if b[at] != 0xff || b[at+1] == 0 || b[at+1] == 0xff {
			at++
			continue
		}
		marker, size := b[at+1], int(binary.BigEndian.Uint16(b[at+2:]))
		if marker == startOfScan || size < 2 || at+2+size > len(b) {
			break
		}
		s := b[at+4 : at+2+size]
		switch {
		case marker == app1 && bytes.HasPrefix(s, []byte("Exif\x00\x00")) && exif == nil:
			exif = s
		case marker == app1 && bytes.HasPrefix(s, []byte(adobe)):
			xmp = s[len(adobe):]
		}
		at += 2 + size
	}
	return exif, xmp
}

// pngChunks visits the chunks of a PNG file, up to one that is cut off.
func pngChunks(b []byte, visit func(kind string, s []byte)) {
	for b = b[8:]; len(b) >= 12; {
		size := uint64(binary.BigEndian.Uint32(b))
		if size+12 > uint64(len(b)) {
			return
		}
		visit(string(b[4:8]), b[8:8+size])
		b = b[12+size:]
	}
}

func pngMetadata(b []byte) (exif, xmp []byte) {
	const rawProfile, adobe = "Raw profile type exif\x00", "XML:com.adobe.xmp\x00"
	var raw []byte
	pngChunks(b, func(kind string, s []byte) {
		switch {
		case kind == "eXIf":
			exif = s
		case kind == "tEXt" && bytes.HasPrefix(s, []byte(rawProfile)):
			raw = s[len(rawProfile):]
		case kind == "zTXt" && bytes.HasPrefix(s, []byte(rawProfile)):
			raw = inflate(s[len(rawProfile)+min(1, len(s)-len(rawProfile)):])
		case kind == "iTXt" && bytes.HasPrefix(s, []byte(adobe)):
			xmp = internationalText(s[len(adobe):])
		}
	})
	if exif == nil && raw != nil {
		exif = unhex(raw)
	}
	return exif, xmp
}

// internationalText returns the text of an iTXt chunk behind its keyword: two bytes about
// compression, two strings that end in zero, and the text.
func internationalText(s []byte) []byte {
	if len(s) < 2 {
		return nil
	}
	compressed := s[0] == 1
	parts := bytes.SplitN(s[2:], []byte{0}, 3)
	text := parts[len(parts)-1]
	if compressed {
		return inflate(text)
	}
	return text
}

// Pillow's limits for compressed text and profiles of PNG files: of one, and of all texts together.
const (
	maxText  = 1 << 20
	maxTexts = 64 * maxText
)

// checkTexts refuses what Pillow refuses: text and colour profiles that decompress to more than its limits, and methods of
// compression that do not exist. Damaged ones do not matter.
func checkTexts(b []byte) (err error) {
	total := 0
	pngChunks(b, func(kind string, s []byte) {
		_, value, _ := bytes.Cut(s, []byte{0})
		compressed, counts := false, true
		switch kind {
		case "iCCP":
			compressed, counts = true, false
		case "zTXt":
			compressed = true
		case "iTXt":
			if len(value) < 2 || value[0] != 0 && value[1] != 0 {
				return
			}
			compressed = value[0] != 0
			parts := bytes.SplitN(value[2:], []byte{0}, 3)
			value = append([]byte{0}, parts[len(parts)-1]...)
		case "tEXt":
		default:
			return
		}
		if compressed && len(value) > 0 {
			if value[0] != 0 && err == nil {
				err = fmt.Errorf("its chunk %s is compressed by the unknown method %d", kind, value[0])
			}
			value = inflate(value[1:])
		}
		if len(value) > maxText && compressed && err == nil {
			err = fmt.Errorf("its chunk %s decompresses to more than %d bytes, as decompression bombs do", kind, maxText)
		}
		if counts {
			total += len(value)
		}
	})
	if total > maxTexts && err == nil {
		err = fmt.Errorf("it has more than %d bytes of text, as decompression bombs do", maxTexts)
	}
	return err
}

// inflate decompresses a text, or its beginning where that is longer than Pillow permits; nil if it is damaged.
func inflate(s []byte) []byte {
	r, err := zlib.NewReader(bytes.NewReader(s))
	if err != nil {
		return nil
	}
	out, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return nil
	}
	return out
}

// unhex reads the block that ImageMagick writes as text: an empty line, its name, its size, and
// lines of hexadecimal digits.
func unhex(s []byte) []byte {
	lines := bytes.Split(s, []byte{'\n'})
	digits := bytes.Join(lines[min(3, len(lines)):], nil)
	out := make([]byte, hex.DecodedLen(len(digits)))
	n, err := hex.Decode(out, digits)
	if err != nil {
		return nil
	}
	return out[:n]
}
