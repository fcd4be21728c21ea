package dataset

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// parquetShard is one parquet file of a split.
type parquetShard struct {
	name     string
	root     string // the data set's directory, which relative image paths start from
	cacheDir string
	file     *os.File
	pq       *parquet.File

	// Leaf columns, -1 where the file has none.
	image, imagePath, labels int

	coder *labelCoder
	store store // nil without image bytes
	paths []string
	codes []int32
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

func openParquetShard(root, name, cacheDir string) (*parquetShard, error) {
	s := &parquetShard{name: name, root: root, cacheDir: cacheDir}
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

// checkFooter makes sure that the numbers in the footer agree, before anything is sized or indexed by them.
func (s *parquetShard) checkFooter() error {
	groups := s.pq.Metadata().RowGroups
	leaves := len(s.pq.Schema().Columns())
	total := int64(0)
	for i, g := range groups {
		if g.NumRows < 0 || g.NumRows > math.MaxInt32 || len(g.Columns) != leaves {
			return damaged("row group %d claims %d rows and %d columns", i, g.NumRows, len(g.Columns))
		}
		total += g.NumRows
	}
	if total != s.pq.NumRows() || total > math.MaxInt32 {
		return damaged("the row groups claim %d rows, the file %d; at most 2^31 are read", total, s.pq.NumRows())
	}
	return nil
}

// declared returns the features that datasets noted in the file, nil where another program wrote it.
func (s *parquetShard) declared() (features, error) {
	text, ok := s.pq.Lookup("huggingface")
	if !ok {
		return nil, nil
	}
	fs, err := parseArrowMetadata(text)
	if err != nil {
		return nil, fileError(s.name, err)
	}
	return fs, nil
}

func (s *parquetShard) path() string { return s.name }
func (s *parquetShard) rows() int    { return int(s.pq.NumRows()) }

func (s *parquetShard) Close() error {
	var err error
	if s.store != nil {
		err = s.store.Close()
	}
	return errors.Join(err, s.file.Close())
}

// columns describes the top-level columns, with the declared features where there are any.
func (s *parquetShard) columns(declared features) []column {
	var columns []column
	for _, c := range s.pq.Root().Columns() {
		one := column{name: c.Name()}
		if f, ok := declared.find(c.Name()); ok {
			one.kind, one.names = f.kind, f.names
		}
		_, _, one.holdsImages = imageLeaves(c)
		one.imageLike = one.holdsImages && !c.Leaf() && c.Column("bytes") != nil
		one.holdsLabels = c.Leaf() && c.MaxRepetitionLevel() == 0 && slices.Contains(labelTypes, c.Type().Kind())
		columns = append(columns, one)
	}
	return columns
}

var labelTypes = []parquet.Kind{parquet.Int32, parquet.Int64, parquet.ByteArray, parquet.Boolean}

// imageLeaves returns the leaves of an image column, -1 for a missing one: a struct {bytes, path} in any order and with
// either missing, plain bytes, or a string, which is a path.
func imageLeaves(c *parquet.Column) (image, path int, ok bool) {
	image, path = -1, -1
	if c == nil || c.MaxRepetitionLevel() > 0 {
		return image, path, false
	}
	if c.Leaf() {
		if c.Type().Kind() != parquet.ByteArray {
			return image, path, false
		}
		if logical := c.Type().LogicalType(); logical != nil && logical.Value != nil {
			path = int(c.Index())
		} else {
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

// use settles the columns. Every file of a data set must have them.
func (s *parquetShard) use(image, label string) error {
	var ok bool
	if s.image, s.imagePath, ok = imageLeaves(s.pq.Root().Column(image)); !ok {
		return fileError(s.name, fmt.Errorf("%w: no image column %q as in the other files", ErrColumn, image))
	}
	s.labels = -1
	if label == "" {
		return nil
	}
	for _, c := range s.columns(nil) {
		if c.name == label && c.holdsLabels {
			s.labels = int(s.pq.Root().Column(label).Index())
			return nil
		}
	}
	return fileError(s.name, fmt.Errorf("%w: no label column %q as in the other files", ErrColumn, label))
}

func (s *parquetShard) setCoder(c *labelCoder) { s.coder = c }

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
	case s.cacheDir == "":
		s.store = newGroups(s.pq, s.image)
		return nil
	}
	path, err := recordsPath(s.cacheDir, s.file, strings.Join(leaf(s.pq.Root(), s.image).Path(), "."))
	if err != nil {
		return err
	}
	unpacked, err := openRecords(path, s.rows())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged) {
		if err := s.unpack(path); err != nil {
			return fmt.Errorf("unpacking its images into %q: %w", path, err)
		}
		unpacked, err = openRecords(path, s.rows())
	}
	if err != nil {
		return err
	}
	s.store = unpacked
	return nil
}

func (s *parquetShard) unpack(path string) error {
	return writeRecords(path, func(visit func([]byte) error) error {
		return s.each(s.image, func(v parquet.Value) error {
			if v.IsNull() {
				return visit(nil)
			}
			return visit(v.ByteArray())
		})
	})
}

// indexInPlace finds the image bytes inside the file; errNotPlain when its layout does not allow that.
func (s *parquetShard) indexInPlace() ([]span, error) {
	level := leaf(s.pq.Root(), s.image).MaxDefinitionLevel()
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

// each visits the values of a leaf column, one per row, in order. A value is valid during the call only. Errors name
// the file and the row.
func (s *parquetShard) each(column int, visit func(parquet.Value) error) error {
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

// readImageFile reads the file that a row names instead of holding the bytes. A relative path starts from the data
// set's directory and stays in it; an absolute one is what datasets stores for images that it found on the same disk.
func readImageFile(root, path string) ([]byte, error) {
	name := filepath.FromSlash(path)
	if !filepath.IsAbs(name) {
		if !filepath.IsLocal(name) {
			return nil, damaged("the path %q leads out of the data set", path)
		}
		name = filepath.Join(root, name)
	}
	// Anything but a plain file could block forever.
	if info, err := os.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, damaged("%q is no file", path)
	}
	return os.ReadFile(name)
}
