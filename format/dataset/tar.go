package dataset

import (
	"archive/tar"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// tarShard is one tar archive.
type tarShard struct {
	name    string
	file    io.ReaderAt
	close   func() error
	samples []tarSample

	image, labels string // columns; labels is "" without any

	coder *labelCoder
	cells []cell // labels as stored; nil until they are read
	codes []int32
}

// tarSample is a row: its key and its members.
type tarSample struct {
	key    string
	fields []tarField
}

type tarField struct {
	name   string // what follows the first dot of the base name
	offset int64
	size   int64
}

func (s *tarSample) field(name string) (tarField, bool) {
	i := slices.IndexFunc(s.fields, func(f tarField) bool { return f.name == name })
	if i < 0 {
		return tarField{}, false
	}
	return s.fields[i], true
}

// openTar walks an archive. One that is compressed is unpacked first, into a temporary file in the cache directory or
// else where the system keeps such files.
func openTar(name, tempDir string) (t *tarShard, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	t = &tarShard{name: name, file: file, close: file.Close}
	if unpacked, err := unpackTar(file, tempDir); err != nil {
		return nil, errors.Join(fileError(name, err), file.Close())
	} else if unpacked != nil {
		file.Close()
		t.file, t.close = unpacked, unpacked.Close
	}
	if err := t.walk(); err != nil {
		return nil, errors.Join(fileError(name, err), t.close())
	}
	return t, nil
}

// Images hardly compress: an archive that unpacks to more than a hundred times its size, beyond some space for empty
// blocks, is made to fill disks.
const (
	maxRatio  = 100
	freeSpace = 16 << 20
)

func bomb() error {
	return damaged("it unpacks to more than %d times its size, as decompression bombs do", maxRatio)
}

// unpackTar unpacks a compressed archive; nil if it is not compressed.
func unpackTar(file *os.File, dir string) (*tempFile, error) {
	var magic [3]byte
	if _, err := file.ReadAt(magic[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var r io.Reader
	switch {
	case bytes.HasPrefix(magic[:], []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(file)
		if err != nil {
			return nil, damaged("%w", err)
		}
		r = z
	case string(magic[:]) == "BZh":
		r = bzip2.NewReader(file)
	default:
		return nil, nil
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	limit := info.Size()*maxRatio + freeSpace
	out, err := newTempFile(dir)
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(out, io.LimitReader(r, limit+1))
	switch {
	case n > limit:
		err = bomb()
	case err != nil && !isOutputError(err):
		err = damaged("unpacking: %w", err)
	}
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

// isOutputError tells a full disk from damaged input, which decompressors report with types of their own.
func isOutputError(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p)
}

// tempFile is removed when it is closed.
type tempFile struct{ *os.File }

func newTempFile(dir string) (*tempFile, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	file, err := os.CreateTemp(dir, "unpacked.*.partial")
	if err != nil {
		return nil, err
	}
	return &tempFile{file}, nil
}

func (t *tempFile) Close() error { return errors.Join(t.File.Close(), os.Remove(t.Name())) }

// position is a reader of a file that knows where it is: archive/tar seeks over what is not read, and reads no further
// than it has to.
type position struct {
	*io.SectionReader
}

func (p position) at() int64 {
	n, _ := p.Seek(0, io.SeekCurrent) // a SectionReader cannot fail to say where it is
	return n
}

// walk notes where the members are. Consecutive members of one key make a sample.
func (t *tarShard) walk() error {
	p := position{io.NewSectionReader(t.file, 0, 1<<62)}
	r := tar.NewReader(p)
	names := map[string]string{} // so that a million rows share the text of their fields
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return damaged("%w", err)
		}
		key, field, ok := splitKey(h.Name)
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse || !ok {
			continue
		}
		if sparse(h) {
			return fmt.Errorf("%w: the member %q is sparse; pack the archive anew", ErrUnsupported, h.Name)
		}
		at := p.at()
		if h.Size > 0 {
			var last [1]byte
			if _, err := t.file.ReadAt(last[:], at+h.Size-1); err != nil {
				return damaged("the member %q is cut off", h.Name)
			}
		}
		if names[field] == "" {
			names[field] = field
		}
		if n := len(t.samples); n == 0 || t.samples[n-1].key != key {
			t.samples = append(t.samples, tarSample{key: key})
		}
		s := &t.samples[len(t.samples)-1]
		if _, twice := s.field(field); twice {
			return damaged("the sample %q has two members %q", key, field)
		}
		s.fields = append(s.fields, tarField{names[field], at, h.Size})
	}
}

// sparse members do not lie in the archive as they are; those of PAX have no type of their own.
func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for name := range h.PAXRecords {
		if strings.HasPrefix(name, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// splitKey divides a member's name at the first dot of its base name. Hidden files and those without a dot are no part of
// a sample.
func splitKey(name string) (key, field string, ok bool) {
	dir, base := path.Split(name)
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "__") {
		return "", "", false
	}
	base, field, ok = strings.Cut(base, ".")
	return dir + base, field, ok && base != ""
}

func (t *tarShard) read(f tarField, limit int64) ([]byte, error) {
	if f.size > limit {
		return nil, damaged("the member %q has %d bytes, more than the %d that are read", f.name, f.size, limit)
	}
	b := make([]byte, f.size)
	if _, err := t.file.ReadAt(b, f.offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = damaged("the file has become shorter since it was opened")
		}
		return nil, err
	}
	return b, nil
}
