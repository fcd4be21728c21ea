package dataset

import (
	"encoding/binary"
	"errors"
	"io"
	"math/bits"

	"github.com/parquet-go/parquet-go/format"
)

// Files written by current versions of datasets keep images uncompressed and PLAIN: each value is a little-endian
// uint32 length and the bytes. Their places in the file are found once, by walking page headers and lengths, and a row
// is then a single read at an offset, whatever the size of pages and row groups.

// span is a run of bytes in a file; a negative length stands for a null value.
type span struct {
	offset int64
	length int32
}

const null = -1

// spans are values at known places of a file.
type spans struct {
	file   io.ReaderAt
	places []span
}

// at returns value i as a fresh slice, nil when it is null.
func (s *spans) at(i int) ([]byte, error) {
	p := s.places[i]
	if p.length == null {
		return nil, nil
	}
	b := make([]byte, p.length)
	if _, err := s.file.ReadAt(b, p.offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = damaged("the file has become shorter since it was opened")
		}
		return nil, err
	}
	return b, nil
}

func (s *spans) Close() error { return nil }

// errNotPlain says that a column chunk is sound but cannot be read in place.
var errNotPlain = errors.New("not stored uncompressed and plain")

// index appends the places of a chunk's values to places; errNotPlain if it cannot be read in place. A value is present
// where its definition level is maxLevel.
func (c *chunk) index(places []span, maxLevel int) ([]span, error) {
	if !c.plain {
		return nil, errNotPlain
	}
	err := c.eachPage(func(header *format.PageHeader, p page) error {
		var err error
		switch {
		case header.Type == format.IndexPage:
			return nil
		case header.UncompressedPageSize != header.CompressedPageSize:
			return damaged("an uncompressed page claims %d bytes, or %d", header.CompressedPageSize, header.UncompressedPageSize)
		case header.Type == format.DataPage && header.DataPageHeader.Valid:
			err = p.openV1(&header.DataPageHeader.V, maxLevel)
		case header.Type == format.DataPageV2 && header.DataPageHeaderV2.Valid:
			err = p.openV2(&header.DataPageHeaderV2.V, maxLevel)
		default:
			err = errNotPlain
		}
		if err != nil {
			return err
		}
		places, err = p.index(places, maxLevel)
		return err
	})
	return places, err
}

// page is a data page being indexed; at moves forward as its parts are read.
type page struct {
	file    *window
	at, end int64
	values  int // nulls included
	levels  []byte
}

func (p *page) openV1(h *format.DataPageHeader, maxLevel int) error {
	if h.Encoding != format.Plain || (maxLevel > 0 && h.DefinitionLevelEncoding != format.RLE) {
		return errNotPlain
	}
	if maxLevel == 0 {
		return nil
	}
	size, err := p.uint32()
	if err != nil {
		return err
	}
	return p.readLevels(int64(size))
}

func (p *page) openV2(h *format.DataPageHeaderV2, maxLevel int) error {
	if h.Encoding != format.Plain || h.RepetitionLevelsByteLength != 0 {
		return errNotPlain
	}
	return p.readLevels(int64(h.DefinitionLevelsByteLength))
}

func (p *page) readLevels(size int64) error {
	if size < 0 || size > p.end-p.at {
		return damaged("the definition levels at offset %d claim %d bytes of the %d that are left", p.at, size, p.end-p.at)
	}
	b, err := p.file.bytes(p.at, size)
	p.levels = append([]byte(nil), b...) // the window moves on while they are read
	p.at += size
	return err
}

func (p *page) uint32() (uint32, error) {
	if p.end-p.at < 4 {
		return 0, damaged("a page ends in the middle of a length, at offset %d", p.at)
	}
	b, err := p.file.bytes(p.at, 4)
	if err != nil {
		return 0, err
	}
	p.at += 4
	return binary.LittleEndian.Uint32(b), nil
}

// index appends the places of the page's values.
func (p *page) index(places []span, maxLevel int) ([]span, error) {
	levels := levelReader{data: p.levels, width: bits.Len(uint(maxLevel))}
	for range p.values {
		present := true
		if maxLevel > 0 {
			level, err := levels.next()
			if err != nil {
				return nil, err
			}
			if level > maxLevel {
				return nil, damaged("a definition level of %d where %d is the highest", level, maxLevel)
			}
			present = level == maxLevel
		}
		if !present {
			places = append(places, span{0, null})
			continue
		}
		length, err := p.uint32()
		if err != nil {
			return nil, err
		}
		if int64(length) > p.end-p.at || length > 1<<31-1 {
			return nil, damaged("a value at offset %d claims %d bytes of the %d that are left in its page", p.at, length, p.end-p.at)
		}
		places = append(places, span{p.at, int32(length)})
		p.at += int64(length)
	}
	if p.at != p.end {
		return nil, damaged("%d bytes are left over in a page, at offset %d", p.end-p.at, p.at)
	}
	return places, nil
}

// levelReader decodes levels in parquet's mixture of runs and bit-packed groups of eight.
type levelReader struct {
	data  []byte
	width int // bits of a level, at most 8 here: nesting is shallow

	run    int // values left of the current run
	value  int
	packed []byte // bits of the current group run
	bit    int
}

func (r *levelReader) next() (int, error) {
	for r.run == 0 {
		if err := r.nextRun(); err != nil {
			return 0, err
		}
	}
	r.run--
	if r.packed == nil {
		return r.value, nil
	}
	value := 0
	for i := range r.width {
		value |= int(r.packed[r.bit/8]>>(r.bit%8)&1) << i
		r.bit++
	}
	return value, nil
}

func (r *levelReader) nextRun() error {
	header, n := binary.Uvarint(r.data)
	if n <= 0 {
		return damaged("the definition levels end too early")
	}
	r.data = r.data[n:]
	count := header >> 1
	if header&1 == 0 {
		if len(r.data) == 0 || count > 1<<31 {
			return damaged("the definition levels end in the middle of a run")
		}
		r.run, r.value, r.packed = int(count), int(r.data[0]), nil
		r.data = r.data[1:]
		return nil
	}
	if count > uint64(len(r.data)/r.width) {
		return damaged("the definition levels end in the middle of a group")
	}
	size := int(count) * r.width
	r.run, r.packed, r.bit = int(count)*8, r.data[:size], 0
	r.data = r.data[size:]
	return nil
}
