package dataset

import (
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// chunk is the run of pages that hold a column of a row group.
type chunk struct {
	file   *window
	offset int64
	size   int64
	rows   int
	plain  bool // uncompressed byte arrays without a dictionary, as far as the footer tells
}

// openChunk takes from a file's footer where a column chunk lies, and checks that it lies inside the file.
func openChunk(file *window, group *format.RowGroup, column int) (*chunk, error) {
	meta := &group.Columns[column].MetaData
	c := &chunk{file: file, offset: meta.DataPageOffset, size: meta.TotalCompressedSize, rows: int(group.NumRows)}
	if meta.DictionaryPageOffset > 0 {
		c.offset = min(c.offset, meta.DictionaryPageOffset)
	}
	if group.Columns[column].FilePath != "" {
		return nil, fmt.Errorf("%w: column data in another file", ErrUnsupported)
	}
	if c.offset < 0 || c.size < 0 || c.size > file.size || c.offset > file.size-c.size {
		return nil, damaged("a column chunk of %d bytes at offset %d does not fit into a file of %d bytes", c.size, c.offset, file.size)
	}
	c.plain = meta.Codec == format.Uncompressed && meta.Type == format.ByteArray && meta.DictionaryPageOffset == 0
	return c, nil
}

// eachPage visits the pages of a chunk, after checking that sizes and numbers of values in their headers are possible.
func (c *chunk) eachPage(visit func(header *format.PageHeader, p page) error) error {
	left := c.rows
	for at, end := c.offset, c.offset+c.size; at < end; {
		header, n, err := readPageHeader(c.file, at, end)
		if err != nil {
			return err
		}
		at += n
		size := int64(header.CompressedPageSize)
		if size < 0 || size > end-at || header.UncompressedPageSize < 0 || header.UncompressedPageSize > maxPage {
			return damaged("the page at offset %d claims %d bytes, %d unpacked; %d are left in its chunk",
				at, size, header.UncompressedPageSize, end-at)
		}
		p := page{file: c.file, at: at, end: at + size}
		switch {
		case header.DataPageHeader.Valid:
			p.values = int(header.DataPageHeader.V.NumValues)
		case header.DataPageHeaderV2.Valid:
			p.values = int(header.DataPageHeaderV2.V.NumValues)
		case header.DictionaryPageHeader.Valid:
			// A dictionary has an entry per distinct value, never more than there are rows.
			if n := int(header.DictionaryPageHeader.V.NumValues); n < 0 || n > c.rows {
				return damaged("the dictionary at offset %d claims %d values in a row group of %d rows", at, n, c.rows)
			}
		}
		if p.values < 0 || p.values > left {
			return damaged("the page at offset %d claims %d values where %d rows are left", at, p.values, left)
		}
		left -= p.values
		if err := visit(header, p); err != nil {
			return err
		}
		at += size
	}
	if left != 0 {
		return damaged("a column chunk ends %d rows before its row group of %d", left, c.rows)
	}
	return nil
}

// check walks the page headers only.
func (c *chunk) check() error {
	return c.eachPage(func(*format.PageHeader, page) error { return nil })
}

const (
	maxPage = 1 << 30
	// Page headers carry statistics, so that they can be long, but not megabytes.
	maxPageHeader = 1 << 20
)

// readPageHeader decodes the header at an offset and returns its length.
func readPageHeader(file *window, at, end int64) (*format.PageHeader, int64, error) {
	for size := int64(256); ; size *= 8 {
		b, err := file.bytes(at, min(size, end-at))
		if err != nil {
			return nil, 0, err
		}
		n, err := checkThrift(b)
		if err == nil {
			header := &format.PageHeader{}
			if err := thrift.Unmarshal(&thrift.CompactProtocol{}, b[:n], header); err != nil {
				return nil, 0, damaged("the page header at offset %d: %w", at, err)
			}
			return header, int64(n), nil
		}
		if size >= end-at || size >= maxPageHeader {
			return nil, 0, fmt.Errorf("the page header at offset %d: %w", at, err)
		}
	}
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
