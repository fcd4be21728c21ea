package dataset

import (
	"encoding/binary"
	"errors"
	"io"
	"math/bits"

	"github.com/parquet-go/parquet-go/encoding/thrift"
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

// chunkLayout is what the footer says about a column chunk of byte arrays.
type chunkLayout struct {
	offset, size int64 // of all its pages
	rows         int
	maxLevel     int // definition level of a value that is present
}

// plainChunk returns the layout of a chunk that may be readable in place. Whether its pages really are PLAIN only
// their headers tell.
func plainChunk(chunk *format.ColumnChunk, rows int64, maxLevel int, fileSize int64) (chunkLayout, error) {
	meta := &chunk.MetaData
	if meta.Codec != format.Uncompressed || meta.Type != format.ByteArray || meta.DictionaryPageOffset != 0 || chunk.FilePath != "" {
		return chunkLayout{}, errNotPlain
	}
	l := chunkLayout{meta.DataPageOffset, meta.TotalCompressedSize, int(rows), maxLevel}
	if l.offset < 0 || l.size < 0 || l.size > fileSize || l.offset > fileSize-l.size {
		return l, damaged("a column chunk of %d bytes at offset %d does not fit into a file of %d bytes", l.size, l.offset, fileSize)
	}
	// A present value takes at least its length field, an absent one next to nothing: only the former bounds rows.
	if rows < 0 || (maxLevel == 0 && rows > l.size/4) || meta.NumValues != rows {
		return l, damaged("a column chunk of %d bytes cannot hold %d values for %d rows", l.size, meta.NumValues, rows)
	}
	return l, nil
}

// index appends the places of a chunk's values to places. It returns errNotPlain for encodings it does not know.
func (l chunkLayout) index(file *window, places []span) ([]span, error) {
	end := l.offset + l.size
	want := len(places) + l.rows
	for at := l.offset; at < end; {
		header, n, err := readPageHeader(file, at, end)
		if err != nil {
			return nil, err
		}
		at += n
		size := int64(header.CompressedPageSize)
		if size < 0 || size > end-at || header.UncompressedPageSize != header.CompressedPageSize {
			return nil, damaged("a page at offset %d claims %d bytes of the %d that are left", at, size, end-at)
		}
		page := page{file: file, at: at, end: at + size}
		at += size
		switch {
		case header.Type == format.IndexPage:
			continue
		case header.Type == format.DataPage && header.DataPageHeader.Valid:
			err = page.openV1(&header.DataPageHeader.V, l.maxLevel)
		case header.Type == format.DataPageV2 && header.DataPageHeaderV2.Valid:
			err = page.openV2(&header.DataPageHeaderV2.V, l.maxLevel)
		default:
			return nil, errNotPlain
		}
		if err != nil {
			return nil, err
		}
		if page.values > want-len(places) {
			return nil, damaged("a page at offset %d claims %d values where %d rows are left", page.at, page.values, want-len(places))
		}
		if places, err = page.index(places, l.maxLevel); err != nil {
			return nil, err
		}
	}
	if len(places) != want {
		return nil, damaged("a column chunk ends after %d of %d rows", l.rows-(want-len(places)), l.rows)
	}
	return places, nil
}

// Page headers carry statistics, so that they can be long, but not megabytes.
const maxPageHeader = 1 << 20

// readPageHeader decodes the header at an offset and returns its length.
func readPageHeader(file *window, at, end int64) (*format.PageHeader, int64, error) {
	protocol := &thrift.CompactProtocol{}
	for size := int64(256); ; size *= 8 {
		b, err := file.bytes(at, min(size, end-at))
		if err != nil {
			return nil, 0, err
		}
		header := &format.PageHeader{}
		r := protocol.NewReaderFromBytes(b)
		err = guard(func() error { return thrift.NewDecoder(r).Decode(header) })
		if err == nil {
			return header, int64(r.BytesRead()), nil
		}
		if size >= end-at || size >= maxPageHeader {
			return nil, 0, damaged("the page header at offset %d: %w", at, err)
		}
	}
}

// page is a data page being indexed; at moves forward as its parts are read.
type page struct {
	file    *window
	at, end int64
	values  int // nulls included
	levels  []byte
}

func (p *page) openV1(h *format.DataPageHeader, maxLevel int) error {
	p.values = int(h.NumValues)
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
	p.values = int(h.NumValues)
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

// window reads small pieces of a file that mostly follow each other. It keeps the last block read, so that lengths next
// to each other do not cost a system call each, and jumps over large images without reading them.
type window struct {
	file  io.ReaderAt
	size  int64
	start int64
	block []byte
}

const windowSize = 4096

// bytes returns n bytes at an offset; they are valid until the next call.
func (w *window) bytes(at, n int64) ([]byte, error) {
	if at < 0 || n < 0 || at > w.size-n {
		return nil, damaged("%d bytes at offset %d lie outside the file's %d", n, at, w.size)
	}
	if at < w.start || at+n > w.start+int64(len(w.block)) {
		size := min(max(n, windowSize), w.size-at)
		if int64(cap(w.block)) < size {
			w.block = make([]byte, size)
		}
		w.start, w.block = at, w.block[:size]
		if _, err := w.file.ReadAt(w.block, at); err != nil && !errors.Is(err, io.EOF) {
			w.block = w.block[:0]
			return nil, err
		}
	}
	return w.block[at-w.start:][:n], nil
}
