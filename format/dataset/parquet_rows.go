package dataset

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// eachLabel visits the stored labels in row order.
func (s *parquetShard) eachLabel(visit func(cell) error) error {
	return s.each(s.labels, func(v parquet.Value) error {
		label, err := parquetCell(v)
		if err != nil {
			return err
		}
		return visit(label)
	})
}

// store gives random access to the encoded images of a shard; nil stands for a null value.
type store interface {
	at(i int) ([]byte, error)
	Close() error
}

func (s *parquetShard) load() error {
	if s.labels >= 0 {
		err := s.eachLabel(func(v cell) error {
			code, err := s.coder.code(v)
			s.codes = append(s.codes, int32(code))
			return err
		})
		if err != nil {
			return err
		}
	}
	if s.imagePath >= 0 {
		err := s.each(s.imagePath, func(v parquet.Value) error {
			s.paths = append(s.paths, string(v.ByteArray()))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if s.image < 0 {
		return nil
	}
	if err := s.openStore(); err != nil {
		return fileError(s.name, err)
	}
	return nil
}

// openStore finds the fastest way to single images: in place, in a record file of the cache, or by row groups.
func (s *parquetShard) openStore() error {
	places, err := s.indexInPlace()
	switch {
	case err == nil:
		s.store = &spans{s.file, places}
		return nil
	case !errors.Is(err, errNotPlain):
		return err
	case s.cache.Dir == "":
		return s.openGroups()
	}
	unpacked, err := s.unpacked()
	if errors.Is(err, ErrNoRoom) {
		if s.notes.TooLarge != nil {
			s.notes.TooLarge(s.name, err)
		}
		return s.openGroups()
	}
	if err != nil {
		return fmt.Errorf("unpacking its images into %q: %w", s.cache.Dir, err)
	}
	s.store = unpacked
	return nil
}

func (s *parquetShard) openGroups() error {
	s.store = newGroups(s.pq, s.image)
	return s.checkPages(s.image)
}

// unpacked opens the record file of the shard, which it writes if there is none or a damaged one.
func (s *parquetShard) unpacked() (*records, error) {
	column := leaf(s.pq.Root(), s.image)
	name, err := recordsName(s.file, strings.Join(column.Path(), "."))
	if err != nil {
		return nil, err
	}
	file, err := s.cache.open(name)
	if err == nil {
		if r, err := openRecords(file, s.rows()); !errors.Is(err, ErrDamaged) {
			return r, err
		}
		file.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if s.notes.Unpacking != nil {
		s.notes.Unpacking(s.name)
	}
	size := int64(0)
	for _, g := range s.pq.Metadata().RowGroups {
		size += g.Columns[s.image].MetaData.TotalUncompressedSize
	}
	usable := func(file *os.File) error {
		_, err := openRecords(file, s.rows())
		return err
	}
	file, err = s.cache.create(name, size, usable, func(file *os.File) error {
		return writeRecords(file, s.name, func(visit func([]byte) error) error {
			return s.each(s.image, func(v parquet.Value) error {
				if v.IsNull() {
					return visit(nil)
				}
				return visit(v.ByteArray())
			})
		})
	})
	if err != nil {
		return nil, err
	}
	return openRecords(file, s.rows())
}

// indexInPlace finds the image bytes inside the file; errNotPlain when its layout does not allow that.
func (s *parquetShard) indexInPlace() ([]span, error) {
	level := leaf(s.pq.Root(), s.image).MaxDefinitionLevel()
	var places []span
	for i := range s.pq.Metadata().RowGroups {
		c, err := openChunk(s.window, &s.pq.Metadata().RowGroups[i], s.image)
		if err != nil {
			return nil, err
		}
		if places, err = c.index(places, level); err != nil {
			return nil, err
		}
	}
	return places, nil
}

// checkPages walks the page headers of a leaf column before parquet-go trusts them.
func (s *parquetShard) checkPages(column int) error {
	for i := range s.pq.Metadata().RowGroups {
		c, err := openChunk(s.window, &s.pq.Metadata().RowGroups[i], column)
		if err != nil {
			return err
		}
		if err := c.check(); err != nil {
			return err
		}
	}
	return nil
}

func leaf(c *parquet.Column, index int) *parquet.Column {
	if c.Leaf() {
		if c.Index() == index {
			return c
		}
		return nil
	}
	for _, child := range c.Columns() {
		if found := leaf(child, index); found != nil {
			return found
		}
	}
	return nil
}

// each visits the values of a leaf column, one per row, in order. A value is valid during the call only. Errors name
// the file and the row.
func (s *parquetShard) each(column int, visit func(parquet.Value) error) error {
	if err := s.checkPages(column); err != nil {
		return fileError(s.name, err)
	}
	first := 0
	for _, group := range s.pq.RowGroups() {
		row := first
		err := eachInGroup(group, column, func(v parquet.Value) error {
			row++
			return visit(v)
		})
		if err != nil {
			return rowError(s.name, max(row-1, first), err)
		}
		first += int(group.NumRows())
	}
	return nil
}

// eachInGroup visits the values of one leaf column of a row group, and makes sure that there is one per row.
func eachInGroup(group parquet.RowGroup, column int, visit func(parquet.Value) error) error {
	return guard(func() error {
		pages := group.ColumnChunks()[column].Pages()
		defer pages.Close()
		left := group.NumRows()
		var values [256]parquet.Value
		for {
			page, err := pages.ReadPage()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return damaged("%w", err)
			}
			reader := page.Values()
			for more := true; more; {
				n, err := reader.ReadValues(values[:])
				if err != nil && !errors.Is(err, io.EOF) {
					return damaged("%w", err)
				}
				if left -= int64(n); left < 0 {
					return damaged("a column has more values than its row group has rows (%d)", group.NumRows())
				}
				for _, v := range values[:n] {
					if err := visit(v); err != nil {
						return err
					}
				}
				more = err == nil && n > 0
			}
			parquet.Release(page)
		}
		if left != 0 {
			return damaged("a column lacks %d of the %d rows of its row group", left, group.NumRows())
		}
		return nil
	})
}

func (s *parquetShard) row(i int) (Row, error) {
	r := Row{Label: s.label(i)}
	if s.imagePath >= 0 {
		r.Path = s.paths[i]
	}
	if s.store != nil {
		var err error
		if r.Image, err = s.store.at(i); err != nil {
			return Row{}, err
		}
	}
	switch {
	case r.Image != nil:
		return r, nil
	case r.Path == "":
		return Row{}, damaged("the image is null, and there is no path to a file either")
	}
	var err error
	r.Image, err = readImageFile(s.root, r.Path)
	return r, err
}

func (s *parquetShard) label(i int) int {
	if s.labels < 0 {
		return -1
	}
	return int(s.codes[i])
}
