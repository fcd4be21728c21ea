package vision

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
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

func pngMetadata(b []byte) (exif, xmp []byte) {
	const rawProfile, adobe = "Raw profile type exif\x00", "XML:com.adobe.xmp\x00"
	var raw []byte
	for b = b[8:]; len(b) >= 12; {
		size := uint64(binary.BigEndian.Uint32(b))
		if size+12 > uint64(len(b)) {
			break
		}
		s := b[8 : 8+size]
		switch kind := string(b[4:8]); {
		case kind == "eXIf":
			exif = s
		case kind == "tEXt" && bytes.HasPrefix(s, []byte(rawProfile)):
			raw = s[len(rawProfile):]
		case kind == "zTXt" && bytes.HasPrefix(s, []byte(rawProfile)):
			raw = inflate(s[len(rawProfile)+min(1, len(s)-len(rawProfile)):])
		case kind == "iTXt" && bytes.HasPrefix(s, []byte(adobe)):
			xmp = internationalText(s[len(adobe):])
		}
		b = b[12+size:]
	}
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

// inflate decompresses what may be an EXIF block; Pillow's limit for text is 1 MiB, too.
func inflate(s []byte) []byte {
	r, err := zlib.NewReader(bytes.NewReader(s))
	if err != nil {
		return nil
	}
	out, err := io.ReadAll(io.LimitReader(r, 1<<20))
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
