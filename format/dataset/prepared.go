package dataset

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
)

// A prepared file holds images of a list of rows, decoded and made small, in places of one size. Images come in any order,
// from several goroutines and processes at a time; a place whose table entry does not agree with its bytes is empty. It is
//
//	16 bytes    preparedMagic
//	4080 bytes  note: what the images were made of, padded with zeros
//	8 bytes     table entry of each image: width and height (2 bytes each, little-endian), CRC-32C of the pixels
//	            the places: side x side x 3 bytes each
const (
	preparedMagic = "hubtool prepare1"
	preparedHead  = 4096
	preparedEntry = 8
)

// Prepared is an open prepared file.
type Prepared struct {
	file *os.File
	n    int
	side int
}

// Prepare opens the prepared file for n images of up to side x side pixels, or makes an empty one. key is all that
// determines the images, note tells people. The file is sparse at first and grows to n*side*side*3 bytes.
func (c Cache) Prepare(key, note string, n, side int) (*Prepared, error) {
	p := &Prepared{n: n, side: side}
	name := entryName(preparedKind, key, fmt.Sprint(n), fmt.Sprint(side))
	fail := func(err error) (*Prepared, error) {
		return nil, fmt.Errorf("opening the prepared images in %q: %w", c.Dir, err)
	}
	var err error
	if p.file, err = c.open(name); err == nil {
		if p.check(p.file) == nil {
			return p, nil
		}
		p.file.Close()
	}
	p.file, err = c.create(name, p.size(), p.check, func(f *os.File) error {
		head := make([]byte, preparedHead)
		copy(head[copy(head, preparedMagic):], note)
		if _, err := f.WriteAt(head, 0); err != nil {
			return err
		}
		return f.Truncate(p.size())
	})
	if err != nil {
		return fail(err)
	}
	return p, nil
}

// Side is the side of the largest square image.
func (p *Prepared) Side() int { return p.side }

func (p *Prepared) size() int64 { return p.offset(p.n) }

func (p *Prepared) offset(i int) int64 {
	return preparedHead + preparedEntry*int64(p.n) + int64(i)*int64(p.side)*int64(p.side)*3
}

func (p *Prepared) check(f *os.File) error {
	magic := make([]byte, len(preparedMagic))
	info, err := f.Stat()
	if err == nil {
		_, err = f.ReadAt(magic, 0)
	}
	if err == nil && (string(magic) != preparedMagic || info.Size() != p.size()) {
		err = damaged("not a file of %d prepared images", p.n)
	}
	return err
}

// Get reads image i: its pixels, width*height*3 bytes, which are buf if they fit. ok is false if it is not there.
func (p *Prepared) Get(i int, buf []byte) (pixels []byte, width, height int, ok bool) {
	var entry [preparedEntry]byte
	if _, err := p.file.ReadAt(entry[:], preparedHead+preparedEntry*int64(i)); err != nil {
		return nil, 0, 0, false
	}
	width, height = int(binary.LittleEndian.Uint16(entry[:])), int(binary.LittleEndian.Uint16(entry[2:]))
	n := width * height * 3
	if n == 0 || n > p.side*p.side*3 {
		return nil, 0, 0, false
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	pixels = buf[:n]
	if _, err := p.file.ReadAt(pixels, p.offset(i)); err != nil {
		return nil, 0, 0, false
	}
	return pixels, width, height, crc32.Checksum(pixels, castagnoli) == binary.LittleEndian.Uint32(entry[4:])
}

// Put stores image i. Pixels come first, so that a process that dies in between leaves an empty place.
func (p *Prepared) Put(i int, pixels []byte, width, height int) error {
	if len(pixels) != width*height*3 || len(pixels) > p.side*p.side*3 || width >= 1<<16 || height >= 1<<16 {
		return fmt.Errorf("keeping a prepared image: %d bytes for %dx%d pixels do not fit into %dx%d", len(pixels), width, height, p.side, p.side)
	}
	var entry [preparedEntry]byte
	binary.LittleEndian.PutUint16(entry[:], uint16(width))
	binary.LittleEndian.PutUint16(entry[2:], uint16(height))
	binary.LittleEndian.PutUint32(entry[4:], crc32.Checksum(pixels, castagnoli))
	if _, err := p.file.WriteAt(pixels, p.offset(i)); err != nil {
		return fmt.Errorf("keeping a prepared image: %w", err)
	}
	if _, err := p.file.WriteAt(entry[:], preparedHead+preparedEntry*int64(i)); err != nil {
		return fmt.Errorf("keeping a prepared image: %w", err)
	}
	return nil
}

// Close closes the file.
func (p *Prepared) Close() error { return p.file.Close() }

// preparedNote is what the images of a prepared file were made of, "" where that cannot be read.
func preparedNote(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, preparedHead)
	if _, err := f.ReadAt(head, 0); err != nil || string(head[:len(preparedMagic)]) != preparedMagic {
		return ""
	}
	note, _, _ := strings.Cut(string(head[len(preparedMagic):]), "\x00")
	return note
}
