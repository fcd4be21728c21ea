package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/parquet-go/parquet-go"
)

// parquetShard is one parquet file of a split.
type parquetShard struct {
	name   string
	root   string // the data set's directory, which relative image paths start from
	cache  Cache
	notes  Notes
	file   *os.File
	pq     *parquet.File
	window *window // for one goroutine at a time: opening and loading

	// Leaf columns, -1 where the file has none.
	image, imagePath, labels int

	coder *labelCoder
	store store // nil without image bytes
	paths []string
	codes []int32
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

func openParquetShard(root, name string, opts Options) (*parquetShard, error) {
	s := &parquetShard{name: name, root: root, cache: opts.Cache, notes: opts.Notes}
	var err error
	if s.file, err = os.Open(name); err != nil {
		return nil, err
	}
	err = guard(func() error {
		info, err := s.file.Stat()
		if err != nil {
			return err
		}
		return s.open(s.file, info.Size())
	})
	if err != nil {
		s.file.Close()
		return nil, fileError(name, err)
	}
	return s, nil
}

// open reads the footer. Sizes in it are checked before anything is allocated or indexed by them.
func (s *parquetShard) open(r io.ReaderAt, size int64) error {
	s.window = &window{file: r, size: size}
	tail, err := s.window.bytes(max(size-8, 0), min(size, 8))
	if err != nil {
		return err
	}
	if len(tail) < 8 || string(tail[4:]) != "PAR1" {
		return damaged("not a parquet file, or cut short")
	}
	length := int64(binary.LittleEndian.Uint32(tail))
	footer, err := s.window.bytes(size-8-length, length)
	if err != nil {
		return fmt.Errorf("the footer: %w", err)
	}
	if _, err := checkThrift(footer); err != nil {
		return fmt.Errorf("the footer: %w", err)
	}
	s.pq, err = parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return damaged("%w", err)
	}
	return s.checkFooter(size)
}

// checkFooter makes sure that the numbers in the footer agree. Every image takes a byte at least, and so does every path:
// a file has fewer rows than bytes.
func (s *parquetShard) checkFooter(size int64) error {
	leaves := len(s.pq.Schema().Columns())
	total := int64(0)
	for i, g := range s.pq.Metadata().RowGroups {
		if g.NumRows < 0 || g.NumRows > size || len(g.Columns) != leaves {
			return damaged("row group %d claims %d rows and %d columns", i, g.NumRows, len(g.Columns))
		}
		total += g.NumRows
	}
	if total != s.pq.NumRows() || total > size || total > math.MaxInt32 {
		return damaged("the row groups claim %d rows, the file of %d bytes %d", total, size, s.pq.NumRows())
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
			path = c.Index()
		} else {
			image = c.Index()
		}
		return image, path, true
	}
	for _, child := range c.Columns() {
		if !child.Leaf() || child.Type().Kind() != parquet.ByteArray || child.MaxRepetitionLevel() > 0 {
			continue
		}
		switch child.Name() {
		case "bytes":
			image = child.Index()
		case "path":
			path = child.Index()
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
			s.labels = s.pq.Root().Column(label).Index()
			return nil
		}
	}
	return fileError(s.name, fmt.Errorf("%w: no label column %q as in the other files", ErrColumn, label))
}

func (s *parquetShard) setCoder(c *labelCoder) { s.coder = c }

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
