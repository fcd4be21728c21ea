package vision

import (
	"archive/zip"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
)

// golden reads testdata/images: the encoded files, and what Pillow makes of each.
func golden(t testing.TB) (files map[string][]byte, want map[string]string) {
	t.Helper()
	table, err := os.ReadFile("testdata/images.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(table, &want); err != nil {
		t.Fatal(err)
	}
	z, err := zip.OpenReader("testdata/images.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	files = map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if files[f.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return files, want
}

func digest(m *Image) string {
	return fmt.Sprintf("%dx%d %x", m.Width, m.Height, md5.Sum(m.Pix))
}

// refused are the files that Pillow reads and Decode does not: files that end early, but behind
// the last pixel, and kinds of TIFF that x/image/tiff does not know.
var refused = regexp.MustCompile(`^(png/cut(1|4|12|13|20)|bmp/cut[12]|tiff/.*-(LA|CMYK)-.*)$`)

func TestDecodeAsPillow(t *testing.T) {
	files, want := golden(t)
	if len(files) < 300 || len(files) != len(want) {
		t.Fatalf("%d files, %d results", len(files), len(want))
	}
	for name, data := range files {
		m, err := Decode(data)
		got := "error"
		if err == nil {
			got = digest(m)
		}
		if refused.MatchString(name) {
			want[name] = "error"
		}
		if got != want[name] {
			t.Errorf("%s: got %s (%v), want %s", name, got, err, want[name])
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct{ data, want string }{
		{"", "not a PNG"},
		{"<svg></svg>", "not a PNG"},
		{"\xff\xd8\xff", "decoding JPEG image: the file is truncated"},
		{"GIF89a", "decoding GIF image"},
		{"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x08", "decompression bomb"},
		{"RIFF\x16\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff", "decompression bomb"},
		{"RIFF\x04\x00\x00\x00WEBP", "decoding WebP image"},
	} {
		if _, err := Decode([]byte(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.data, err, c.want)
		}
		if _, err := new(Pipeline).Load([]byte(c.data), nil); err == nil {
			t.Errorf("%q: Load gives no error", c.data)
		}
	}
	if _, err := Decode([]byte("text")); !errors.Is(err, ErrFormat) {
		t.Errorf("text gives %v, want ErrFormat", err)
	}
}
