package dataset

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// parquetShard is one parquet file of a split.
type parquetShard struct {
	name string
	root string // the data set's directory, which relative image paths start from
	file *os.File
	pq   *parquet.File

	// Leaf columns, -1 where the file has none.
	image, imagePath, labelColumn int
	decodeLabel                   func(parquet.Value) (int, error)

	store  store
	paths  []string
	labels []int32
}

// store gives random access to the encoded images of a shard; nil stands for a null value.
type store interface {
	at(i int) ([]byte, error)
	Close() error
}

// guard turns a panic into an error. parquet-go indexes slices by what it finds in a file, so that damaged bytes can
// make it panic; nothing of ours runs inside but short callbacks.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = damaged("%v", r)
		}
	}()
	return f()
}

func openParquetShard(root, name string) (*parquetShard, error) {
	s := &parquetShard{name: name, root: root, image: -1, imagePath: -1, labelColumn: -1}
	var err error
	if s.file, err = os.Open(name); err != nil {
		return nil, err
	}
	err = guard(func() error {
		info, err := s.file.Stat()
		if err != nil {
			return err
		}
		s.pq, err = parquet.OpenFile(s.file, info.Size(),
			parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
		if err != nil {
			return damaged("%w", err)
		}
		return s.checkFooter()
	})
	if err != nil {
		s.file.Close()
		return nil, fileError(name, err)
	}
	return s, nil
}

// checkFooter makes sure that the sizes in the footer agree, before anything is allocated by them.
func (s *parquetShard) checkFooter() error {
	total := int64(0)
	for i, g := range s.pq.Metadata().RowGroups {
		if g.NumRows < 0 || len(g.Columns) != len(s.pq.Metadata().RowGroups[0].Columns) {
			return damaged("row group %d has %d rows and %d columns", i, g.NumRows, len(g.Columns))
		}
		total += g.NumRows
	}
	if total != s.pq.NumRows() {
		return damaged("the row groups have %d rows, the file %d", total, s.pq.NumRows())
	}
	return nil
}

func (s *parquetShard) path() string    { return s.name }
func (s *parquetShard) rows() int       { return int(s.pq.NumRows()) }
func (s *parquetShard) label(i int) int { return int(s.labels[i]) }

func (s *parquetShard) Close() error {
	var err error
	if s.store != nil {
		err = s.store.Close()
	}
	return errors.Join(err, s.file.Close())
}

// columns lists the top-level columns.
func (s *parquetShard) columns() []string {
	var names []string
	for _, c := range s.pq.Root().Columns() {
		names = append(names, c.Name())
	}
	return names
}

// bytesAndPath returns the leaves of an image column: a struct {bytes, path} in any order and with either missing, plain
// bytes, or a string, which is a path.
func bytesAndPath(c *parquet.Column) (image, path int, ok bool) {
	image, path = -1, -1
	if c == nil || c.MaxRepetitionLevel() > 0 {
		return image, path, false
	}
	if c.Leaf() {
		switch {
		case c.Type().Kind() != parquet.ByteArray:
			return image, path, false
		case isString(c):
			path = int(c.Index())
		default:
			image = int(c.Index())
		}
		return image, path, true
	}
	for _, child := range c.Columns() {
		if !child.Leaf() || child.Type().Kind() != parquet.ByteArray || child.MaxRepetitionLevel() > 0 {
			continue
		}
		switch child.Name() {
		case "bytes":
			image = int(child.Index())
		case "path":
			path = int(child.Index())
		}
	}
	return image, path, image >= 0 || path >= 0
}

func isString(c *parquet.Column) bool {
	logical := c.Type().LogicalType()
	return logical != nil && strings.HasPrefix(c.Type().String(), "STRING")
}

func (s *parquetShard) load() error {
	if err := s.loadColumns(); err != nil {
		return fileError(s.name, err)
	}
	return nil
}

func (s *parquetShard) loadColumns() error {
	n := s.rows()
	s.labels = make([]int32, 0, min(n, 1<<20))
	s.paths = make([]string, 0, min(n, 1<<20))
	if s.labelColumn >= 0 {
		err := s.each(s.labelColumn, func(row int, v parquet.Value) error {
			label := -1
			if !v.IsNull() {
				var err error
				if label, err = s.decodeLabel(v); err != nil {
					return err
				}
			}
			s.labels = append(s.labels, int32(label))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if s.imagePath >= 0 {
		err := s.each(s.imagePath, func(row int, v parquet.Value) error {
			s.paths = append(s.paths, string(v.ByteArray()))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if s.image >= 0 {
		return s.openStore()
	}
	return nil
}

func (s *parquetShard) openStore() error {
	places, err := s.indexInPlace()
	if err != nil {
		return err
	}
	s.store = &spans{s.file, places}
	return nil
}

// indexInPlace finds the image bytes inside the file; errNotPlain when its layout does not allow that.
func (s *parquetShard) indexInPlace() ([]span, error) {
	root := s.pq.Root()
	level := leaf(root, s.image).MaxDefinitionLevel()
	file := &window{file: s.file, size: s.pq.Size()}
	var places []span
	for i := range s.pq.Metadata().RowGroups {
		g := &s.pq.Metadata().RowGroups[i]
		layout, err := plainChunk(&g.Columns[s.image], g.NumRows, level, s.pq.Size())
		if err != nil {
			return nil, err
		}
		if places, err = layout.index(file, places); err != nil {
			return nil, err
		}
	}
	return places, nil
}

func leaf(c *parquet.Column, index int) *parquet.Column {
	if c.Leaf() {
		if int(c.Index()) == index {
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

// each visits the values of a leaf column, one per row, in order. A value is valid during the call only.
func (s *parquetShard) each(column int, visit func(row int, v parquet.Value) error) error {
	first := 0
	for _, group := range s.pq.RowGroups() {
		if err := eachInGroup(group, column, first, visit); err != nil {
			return err
		}
		first += int(group.NumRows())
	}
	return nil
}

func eachInGroup(group parquet.RowGroup, column, first int, visit func(row int, v parquet.Value) error) error {
	return guard(func() error {
		pages := group.ColumnChunks()[column].Pages()
		defer pages.Close()
		row, end := first, first+int(group.NumRows())
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
			for {
				n, err := reader.ReadValues(values[:])
				if n > end-row {
					return damaged("a column has more values than the %d rows of its row group", end-first)
				}
				for _, v := range values[:n] {
					if err := visit(row, v); err != nil {
						return fmt.Errorf("row %d: %w", row, err)
					}
					row++
				}
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return damaged("%w", err)
				}
				if n == 0 {
					break
				}
			}
			parquet.Release(page)
		}
		if row != end {
			return damaged("a column ends at row %d of %d", row, end)
		}
		return nil
	})
}

func (s *parquetShard) row(i int) (Row, error) {
	r := Row{Label: -1}
	if s.labelColumn >= 0 {
		r.Label = int(s.labels[i])
	}
	if s.imagePath >= 0 {
		r.Path = s.paths[i]
	}
	if s.store != nil {
		var err error
		if r.Image, err = s.store.at(i); err != nil {
			return Row{}, err
		}
	}
	if r.Image != nil {
		return r, nil
	}
	return r, fmt.Errorf("%w: null image", ErrDamaged)
}
