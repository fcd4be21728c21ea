package vision

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"runtime"
	"strings"
	"testing"
)

// jpegHeader is a progressive grey file up to its first scan. The one Huffman code, a zero, is a run of 2^14 empty blocks or
// more.
func jpegHeader(w, h int) []byte {
	b := []byte("\xff\xd8\xff\xdb\x00\x43\x00" + strings.Repeat("\x01", 64) + "\xff\xc2\x00\x0b\x08")
	b = binary.BigEndian.AppendUint16(b, uint16(h))
	b = binary.BigEndian.AppendUint16(b, uint16(w))
	return append(b, "\x01\x01\x11\x00\xff\xc4\x00\x14\x10\x01"+strings.Repeat("\x00", 15)+"\xe0"...)
}

// webp is a file of one chunk.
func webp(kind, content string) string {
	b := binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(12+len(content)))
	b = binary.LittleEndian.AppendUint32(append(b, "WEBP"+kind...), uint32(len(content)))
	return string(b) + content
}

// tiff is a file of one strip that claims a size.
func tiffHeader(w, h uint32) string {
	b := []byte("II*\x00\x08\x00\x00\x00\x08\x00")
	for _, tag := range [][2]uint32{{256, w}, {257, h}, {258, 8}, {259, 8}, {262, 1}, {273, 8}, {278, h}, {279, 9}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(tag[0]))
		b = append(b, "\x04\x00\x01\x00\x00\x00"...)
		b = binary.LittleEndian.AppendUint32(b, tag[1])
	}
	return string(append(b, 0, 0, 0, 0))
}

// TestBombs has small files that demand much. They are refused before they get it.
func TestBombs(t *testing.T) {
	scan := "\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" + strings.Repeat("\x7f\xfe", 64)
	const ihdr = "IHDR\x00\x00\xe8\x80\x00\x00\xe8\x80\x08\x02\x00\x00\x00"
	for _, c := range []struct{ name, data, want string }{
		{"JPEG", string(jpegHeader(59520, 59520)) + scan, "above the limit"},
		{"more scans", string(jpegHeader(8, 8)) + strings.Repeat(scan, 1001) + "\xff\xd9", "more than 1000 scans"},
		{"PNG", "\x89PNG\r\n\x1a\n\x00\x00\x00\x0d" + ihdr + string(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(ihdr)))), "above the limit"},
		{"GIF", "GIF89a\x01\x00\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x80\xe8\x80\xe8\x00\x08", "above the limit"},
		{"GIF frame", "GIF89a\xff\x00\xff\x00\x00\x00\x00,\xf0\xff\xf0\xff\x10\x00\x10\x00\x00\x08\x00", "above the limit"},
		{"BMP", "BM\x00\x00\x00\x00\x00\x00\x00\x006\x00\x00\x00(\x00\x00\x00\x80\xe8\x00\x00\x80\xe8\x00\x00\x01\x00\x18\x00" + strings.Repeat("\x00", 24), "above the limit"},
		{"TIFF", tiffHeader(59520, 59520), "above the limit"},
		{"WebP", webp("VP8L", "\x2f\xff\xff\xff\x0f"+strings.Repeat("\x00", 11)), "above the limit"},
		{"lossy WebP", webp("VP8 ", "\x10\x00\x00\x9d\x01\x2a\xff\x3f\xff\x3f\x00\x00"), "above the limit"},
		{"WebP canvas", webp("VP8X", "\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff"), "above the limit"},
	} {
		for _, load := range []func() (*Image, error){
			func() (*Image, error) { return Decode([]byte(c.data)) },
			func() (*Image, error) { return new(Pipeline).Load([]byte(c.data), nil) },
		} {
			_, err := load()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
		}
	}
}

// allocated runs f and returns how many bytes it asked for, in one goroutine with no other at work.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestMemoryIsBounded decodes files just below a limit that is lowered for the test: what they claim in few bytes costs no
// more than 40 bytes a pixel, which are the coefficients and planes of four JPEG components.
func TestMemoryIsBounded(t *testing.T) {
	before := maxPixels
	maxPixels = 1 << 22
	defer func() { maxPixels = before }()
	scan := []byte("\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" + strings.Repeat("\x7f\xfe", 64))
	gif := "GIF89a\x00\x08\x00\x08\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x08\x02\x00\x01\x00;"
	for name, data := range map[string][]byte{
		"JPEG": append(append(jpegHeader(2048, 2048), bytes.Repeat(scan, 50)...), 0xff, 0xd9),
		"GIF":  []byte(gif),
		"TIFF": []byte(tiffHeader(2048, 2048)),
		"BMP":  []byte("BM\x00\x00\x00\x00\x00\x00\x00\x006\x00\x00\x00(\x00\x00\x00\x00\x08\x00\x00\x00\x08\x00\x00\x01\x00\x18\x00" + strings.Repeat("\x00", 24)),
		"WebP": []byte(webp("VP8L", "\x2f\xff\xc7\xff\x01"+strings.Repeat("\x00", 11))),
	} {
		if n := allocated(func() { Decode(data) }); n > 40*uint64(maxPixels) {
			t.Errorf("%s of %d bytes: %d allocated", name, len(data), n)
		}
	}
}
