package dataset

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type member struct{ name, content string }

func packTar(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Size: int64(len(m.content)), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packGzip(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestTarFolders takes the folders of an archive for labels where nothing else is a label, over all archives.
func TestTarFolders(t *testing.T) {
	a := packTar(t, member{"x/dog/1.png", "1"}, member{"x/cat/2.png", "2"})
	b := packTar(t, member{"x/ant/3.png", "3"})
	dir := write(t, map[string]string{"train-0.tar": string(a), "test-0.tar.gz": string(packGzip(t, b))})
	d, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if names := d.ClassNames(); !slices.Equal(names, []string{"ant", "cat", "dog"}) {
		t.Errorf("classes %q", names)
	}
	rows, err := d.Select("train+test")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Row{{[]byte("1"), "x/dog/1.png", 2}, {[]byte("2"), "x/cat/2.png", 1}, {[]byte("3"), "x/ant/3.png", 0}} {
		row, err := rows.At(i)
		if err != nil || row.Path != want.Path || row.Label != want.Label || !bytes.Equal(row.Image, want.Image) {
			t.Errorf("row %d is %v, %v, want %v", i, row, err, want)
		}
	}
}

func TestTarErrors(t *testing.T) {
	good := packTar(t, member{"1.png", "image"}, member{"1.cls", "0"}, member{"2.png", "image"}, member{"2.cls", "1"})
	sparse := packTar(t, member{"1.png", "image"})
	sparse[156] = 'S'
	copy(sparse[257:], "ustar  \x00") // GNU tar's magic
	copy(sparse[148:156], "        ")
	sum := 0
	for _, b := range sparse[:512] {
		sum += int(b)
	}
	copy(sparse[148:], fmt.Sprintf("%06o\x00", sum))
	for _, test := range []struct {
		name, file, content string
		kind                error
		text                string
	}{
		{"cut", "a.tar", string(good[:600+512]), ErrDamaged, "a.tar"},
		{"cut in a member", "a.tar", string(good[:513]), ErrDamaged, "cut off"},
		{"garbage", "a.tar", strings.Repeat("x", 2000), ErrDamaged, "a.tar"},
		{"sparse", "a.tar", string(sparse), ErrUnsupported, `"1.png" is sparse`},
		{"empty", "a.tar", string(packTar(t)), ErrDamaged, "no samples"},
		{"member twice", "a.tar", string(packTar(t, member{"1.png", "x"}, member{"1.png", "y"})), ErrDamaged, `"1" has two members "png"`},
		{"other members", "a.tar", string(packTar(t, member{"1.png", "x"}, member{"2.jpg", "y"})), ErrDamaged, "different members"},
		{"no number", "a.tar", string(packTar(t, member{"1.png", "x"}, member{"1.cls", "cat"})), ErrDamaged, `"cat", which is no number`},
		{"broken object", "a.tar", string(packTar(t, member{"1.png", "x"}, member{"1.json", "{"})), ErrDamaged, `"json"`},
		{"no labels", "a.tar", string(packTar(t, member{"1.png", "x"}, member{"1.bin", "{"})), ErrColumn, "label column"},
		{"two images", "a.tar", string(packTar(t, member{"1.png", "x"}, member{"1.jpg", "x"}, member{"1.cls", "1"})), ErrColumn, "jpg, png"},
		{"cut gzip", "a.tar.gz", string(packGzip(t, good)[:60]), ErrDamaged, "a.tar.gz"},
		{"damaged gzip", "a.tar.gz", "\x1f\x8bxxxxxxxxxxxxxxxxxxxxxxxxx", ErrDamaged, "a.tar.gz"},
		{"damaged bzip2", "a.tar.bz2", "BZhxxxxxxxxxxxxxxxxxxxxxxxxxx", ErrDamaged, "a.tar.bz2"},
		{"bomb", "a.tar.gz", string(packGzip(t, make([]byte, freeSpace+3<<20))), ErrDamaged, "decompression bombs"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cache := t.TempDir()
			_, err := Open(write(t, map[string]string{test.file: test.content}), Options{Cache: Cache{Dir: cache}})
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v, want %v with %q", err, test.kind, test.text)
			}
			if left, _ := filepath.Glob(filepath.Join(cache, "*")); len(left) > 0 {
				t.Errorf("%q is left behind", left)
			}
		})
	}
}

// TestTarTemporary unpacks into the cache directory and leaves nothing there.
func TestTarTemporary(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "cache")
	list := func() []string {
		names, err := filepath.Glob(filepath.Join(cache, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	d, err := Open("testdata/web", Options{Cache: Cache{Dir: cache}})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(list()); n != 2 {
		t.Errorf("%d files while two archives are unpacked: %q", n, list())
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if len(list()) > 0 {
		t.Errorf("%q is left behind", list())
	}
}

// TestZipBombs has members that claim too much, or unpack to more than they claim.
func TestZipBombs(t *testing.T) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create("a/1.png")
	if err != nil {
		t.Fatal(err)
	}
	f.Write(make([]byte, 8<<20))
	if f, err = w.Create("b/2.png"); err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("x"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// The directory's record of the first member, with the size that it unpacks to at byte 24.
	at := bytes.Index(b.Bytes(), []byte("PK\x01\x02")) + 24
	for _, claim := range []uint32{1<<32 - 2, maxMember + 1, 100} {
		content := bytes.Clone(b.Bytes())
		binary.LittleEndian.PutUint32(content[at:], claim)
		d, err := Open(write(t, map[string]string{"a.zip": string(content)}), Options{})
		if err != nil {
			t.Fatal(err)
		}
		rows, err := d.Select("train")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rows.At(0); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "a/1.png") {
			t.Errorf("a member that claims %d bytes: %v", claim, err)
		}
		d.Close()
	}
	// A table that is mostly zeros.
	dir := write(t, map[string]string{"a.csv.gz": string(packGzip(t, make([]byte, freeSpace+3<<20)))})
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "decompression bombs") {
		t.Errorf("a compressed table: %v", err)
	}
}

// openBytes opens a data set of one file and reads all of it.
func openBytes(t *testing.T, dir, name string, content []byte, opts Options) error {
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
		t.Fatal(err)
	}
	opts.Unlabelled = true
	d, err := Open(dir, opts)
	if err != nil {
		return err
	}
	defer d.Close()
	return readRows(d)
}

// readRows reads the first rows of train.
func readRows(d *Dataset) error {
	rows, err := d.Select("train")
	if err != nil {
		return err
	}
	for i := range min(rows.Len(), 100) {
		if _, err := rows.At(i); err != nil {
			return err
		}
	}
	return nil
}

// Archives are fuzzed in memory and from small seeds: files cost two milliseconds an execution, and go test makes every
// interesting input smaller with a number of executions that grows with the square of its size, for up to a minute.

// FuzzTar fuzzes archives whose runs of zeros are packed, and whose checksums are right: else nearly all that is changed
// would be refused at its first header.
func FuzzTar(f *testing.F) {
	f.Add(packZeros(packTar(f, member{"cat/7.png", "image"}, member{"cat/7.cls", "7"})))
	f.Add(packZeros(packTar(f, member{"1.jpg", ""}, member{"1.json", `{"label": "cat", "n": 3, "image": {"path": "x"}}`}, member{"2.jpg", "x"}, member{"2.json", "{}"})))
	f.Add(packZeros(packTar(f, member{"cat/a.b.png", "x"}, member{"dog/a.b.png", "y"})))
	f.Fuzz(func(t *testing.T, packed []byte) {
		s := &tarShard{name: "a.tar", file: bytes.NewReader(checksummed(unpackZeros(packed))), close: func() error { return nil }}
		d := &Dataset{}
		err := s.walk()
		if err == nil {
			d.add("train", []shard{s})
			err = d.useTars([]*tarShard{s}, nil, Options{Unlabelled: true})
		}
		if err == nil {
			err = readRows(d)
		}
		if !expected(err) {
			t.Error(err)
		}
	})
}

// packZeros writes a run of up to 255 zeros as a zero and its length.
func packZeros(b []byte) []byte {
	var packed []byte
	for len(b) > 0 {
		n := 0
		for n < min(len(b), 255) && b[n] == 0 {
			n++
		}
		if n > 0 {
			packed, b = append(packed, 0, byte(n)), b[n:]
		} else {
			packed, b = append(packed, b[0]), b[1:]
		}
	}
	return packed
}

func unpackZeros(packed []byte) []byte {
	var b []byte
	for i := 0; i < len(packed); i++ {
		if packed[i] != 0 || i+1 == len(packed) {
			b = append(b, packed[i])
			continue
		}
		i++
		b = append(b, make([]byte, packed[i])...)
	}
	return b
}

// checksummed gives the headers of a tar archive their checksums.
func checksummed(b []byte) []byte {
	for at := 0; at+512 <= len(b); at += 512 {
		header := b[at : at+512]
		if string(header[257:262]) != "ustar" {
			continue
		}
		copy(header[148:156], "        ")
		sum := 0
		for _, c := range header {
			sum += int(c)
		}
		copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
	}
	return b
}

func packZip(t testing.TB, method uint16, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range members {
		f, err := w.CreateHeader(&zip.FileHeader{Name: m.name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func FuzzZip(f *testing.F) {
	f.Add(packZip(f, zip.Store, member{"a/1.png", "x"}, member{"b/2.png", "y"}))
	f.Add(packZip(f, zip.Deflate, member{"1.png", "xxxx"}))
	f.Add(packZip(f, zip.Store, member{"metadata.csv", "file_name,n\n1.png,3\n"}, member{"1.png", "x"}))
	f.Add(packZip(f, zip.Store, member{"a/metadata.jsonl", `{"file_name":"1.png","l":"q"}`}, member{"a/1.png", "x"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		d := &Dataset{}
		parts := [][]folderPart{{newArchive("a.zip", z, func() error { return nil }).part()}}
		if err = d.openParts([]splitFiles{{split: "train"}}, parts, config{}, Options{Unlabelled: true}); err == nil {
			err = readRows(d)
		}
		// There may be no images, and metadata may name some that are not there.
		if !expected(err) && !errors.Is(err, ErrSplit) && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

// FuzzTable reads tables of each kind by their content alone; images named by them do not exist.
func FuzzTable(f *testing.F) {
	for _, seed := range []string{"table-csv/train.csv", "table-csv/more.csv.gz", "table-json/train.jsonl", "table-json/test.json", "table-tsv/rows.tsv"} {
		f.Add(mustRead(f, filepath.Join("testdata", seed)), uint8(len(seed)))
	}
	names := []string{"a.csv", "a.csv.gz", "a.jsonl", "a.json", "a.tsv"}
	f.Fuzz(func(t *testing.T, data []byte, kind uint8) {
		err := openBytes(t, t.TempDir(), names[int(kind)%len(names)], data, Options{ImageColumn: "image"})
		if !expected(err) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrSplit) { // there may be no rows
			t.Error(err)
		}
	})
}
