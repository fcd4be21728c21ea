package dataset

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/bzip2"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// A WebDataset is a tar archive whose members of one key make a row: cat/7.jpg and cat/7.cls are the columns jpg and cls
// of the row cat/7. The archive is walked once, from header to header, and images are then read where they are.

// openWebDataset reads tar archives as datasets does, and beyond that takes the folders of an archive for labels where
// nothing else is a label: tar files of one folder per class are common.
func (d *Dataset) openWebDataset(files *tree, splits []splitFiles, declared features, opts Options) error {
	var all []*tarShard
	for _, s := range splits {
		var shards []shard
		for _, f := range s.files {
			name := filepath.Join(files.root, filepath.FromSlash(f))
			t, err := openTar(name, opts.Cache.Dir)
			if err != nil {
				return err
			}
			all = append(all, t)
			shards = append(shards, t)
		}
		d.add(s.split, shards)
	}
	// datasets infers the columns from the first archive of the last split.
	first := d.shards[d.splits[len(d.splits)-1].first].(*tarShard)
	columns, err := first.columns(declared)
	if err != nil {
		return fileError(first.name, err)
	}
	image, err := chooseImage(columns, opts.ImageColumn)
	if err != nil {
		return err
	}
	var label column
	if folders := keyFolders(all); folders != nil && opts.LabelColumn == "" && !hasLabel(columns) {
		label = column{name: folderColumn, kind: classLabelKind, names: folders}
	} else if label, err = chooseLabel(columns, opts); err != nil {
		return err
	}
	withLabels := make([]labelled, len(all))
	for i, t := range all {
		t.image, t.labels = image.name, label.name
		withLabels[i] = t
	}
	if label.name == "" {
		return nil
	}
	return d.codeLabels(label, withLabels)
}

// folderColumn stands for the folder in the key; no member can have this name, because a field follows a dot.
const folderColumn = "/"

// keyFolders returns the sorted names of the folders that samples lie in where those can be labels: there are several,
// all at the same depth.
func keyFolders(shards []*tarShard) []string {
	var part folderPart
	for _, t := range shards {
		for _, s := range t.samples {
			part.images = append(part.images, s.key)
		}
	}
	return folderLabels([][]folderPart{{part}}, nil)
}

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

// inferred is the number of samples that the columns are inferred from.
const inferred = 5

// columns are the declared ones or else the fields of the first samples, which must be the same for each.
func (t *tarShard) columns(declared features) ([]column, error) {
	if len(t.samples) == 0 {
		return nil, damaged("it has no samples, which are files such as 7.jpg and 7.cls")
	}
	var columns []column
	if declared != nil {
		for _, f := range declared {
			c := column{name: f.column, kind: f.kind, names: f.names, holdsImages: f.kind == imageKind}
			c.holdsLabels = !c.holdsImages
			columns = append(columns, c)
		}
		return columns, nil
	}
	for i := range t.samples[:min(inferred, len(t.samples))] {
		s := &t.samples[i]
		fresh, err := t.inferColumns(s)
		if err != nil {
			return nil, err
		}
		if i > 0 && !slices.Equal(fieldNames(s), fieldNames(&t.samples[0])) {
			return nil, damaged("the samples %q and %q have different members, %q and %q", t.samples[0].key, s.key,
				fieldNames(&t.samples[0]), fieldNames(s))
		}
		for _, c := range fresh {
			if !slices.ContainsFunc(columns, func(have column) bool { return have.name == c.name }) {
				columns = append(columns, c)
			}
		}
	}
	return columns, nil
}

func fieldNames(s *tarSample) []string {
	var names []string
	for _, f := range s.fields {
		names = append(names, f.name)
	}
	slices.Sort(names)
	return names
}

// inferColumns gives a sample's fields their kinds by their extensions. An object of JSON is a column for each of its
// members, called json.member.
func (t *tarShard) inferColumns(s *tarSample) ([]column, error) {
	var columns []column
	for _, f := range s.fields {
		c := column{name: f.name}
		switch ext := fieldExtension(f.name); {
		case kindOf["."+ext] == imageFolderKind:
			c.kind, c.holdsImages = imageKind, true
		case slices.Contains(jsonFields, ext):
			members, err := t.object(f)
			if err != nil {
				return nil, fmt.Errorf("sample %q: %w", s.key, err)
			}
			for name, value := range members {
				if _, ok := jsonCell(value); ok {
					columns = append(columns, column{name: f.name + "." + name, holdsLabels: true})
				}
			}
		default:
			c.holdsLabels = slices.Contains(numberFields, ext) || slices.Contains(textFields, ext)
		}
		columns = append(columns, c)
	}
	slices.SortStableFunc(columns, func(a, b column) int { return cmp.Compare(a.name, b.name) }) // maps have no order
	return columns, nil
}

// The extensions that datasets decodes, as far as they can be labels.
var (
	numberFields = []string{"cls", "cls2", "index", "inx", "id"}
	textFields   = []string{"txt", "text", "transcript"}
	jsonFields   = []string{"json", "jsn"}
)

func fieldExtension(field string) string {
	return strings.ToLower(field[strings.LastIndexByte(field, '.')+1:])
}

// maxField bounds the memory for a text or an object; images have the bound of archive members.
const maxField = 16 << 20

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

func (t *tarShard) object(f tarField) (map[string]any, error) {
	text, err := t.read(f, maxField)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var members map[string]any
	if err := decoder.Decode(&members); err != nil {
		return nil, damaged("member %q: %w", f.name, err)
	}
	return members, nil
}

// cell reads the label of a sample; one without that member has none.
func (t *tarShard) cell(s *tarSample) (cell, error) {
	if t.labels == folderColumn {
		return cell{text: parentName(s.key)}, nil
	}
	f, ok := s.field(t.labels)
	if !ok {
		return t.objectCell(s)
	}
	text, err := t.read(f, maxField)
	if err != nil {
		return cell{}, err
	}
	if !slices.Contains(numberFields, fieldExtension(f.name)) {
		return cell{text: string(text)}, nil
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return cell{}, damaged("the member %q of sample %q is %.20q, which is no number", f.name, s.key, text)
	}
	return cell{number: true, n: n}, nil
}

// objectCell reads a label out of an object of JSON.
func (t *tarShard) objectCell(s *tarSample) (cell, error) {
	for _, f := range s.fields {
		member, ok := strings.CutPrefix(t.labels, f.name+".")
		if !ok || !slices.Contains(jsonFields, fieldExtension(f.name)) {
			continue
		}
		members, err := t.object(f)
		if err != nil {
			return cell{}, err
		}
		value, ok := jsonCell(members[member])
		if !ok {
			return cell{}, damaged("the member %q of sample %q is neither a text nor a whole number", t.labels, s.key)
		}
		return value, nil
	}
	return cell{null: true}, nil
}

func (t *tarShard) path() string           { return t.name }
func (t *tarShard) rows() int              { return len(t.samples) }
func (t *tarShard) setCoder(c *labelCoder) { t.coder = c }
func (t *tarShard) Close() error           { return t.close() }

func (t *tarShard) eachLabel(visit func(cell) error) error {
	for i := range t.samples {
		if i == len(t.cells) {
			value, err := t.cell(&t.samples[i])
			if err != nil {
				return rowError(t.name, i, err)
			}
			t.cells = append(t.cells, value)
		}
		if err := visit(t.cells[i]); err != nil {
			return rowError(t.name, i, err)
		}
	}
	return nil
}

func (t *tarShard) load() error {
	if t.labels == "" {
		return nil
	}
	return t.eachLabel(func(v cell) error {
		code, err := t.coder.code(v)
		t.codes = append(t.codes, int32(code))
		return err
	})
}

func (t *tarShard) label(i int) int {
	if t.labels == "" {
		return -1
	}
	return int(t.codes[i])
}

func (t *tarShard) row(i int) (Row, error) {
	s := &t.samples[i]
	f, ok := s.field(t.image)
	if !ok {
		return Row{}, damaged("the image is null: the sample %q has no member %q", s.key, t.image)
	}
	image, err := t.read(f, maxMember)
	return Row{Image: image, Path: s.key + "." + t.image, Label: t.label(i)}, err
}
