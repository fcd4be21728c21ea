package format

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The names under which transformers and PEFT keep weights.
const (
	ModelFile   = "model.safetensors"
	IndexFile   = "model.safetensors.index.json"
	AdapterFile = "adapter_model.safetensors"
)

// A Shard is one safetensors file of a checkpoint.
type Shard struct {
	Name   string // base name, as an index calls it
	Path   string
	Header *Header
}

// A Checkpoint is an open set of tensors, in one file or in several shards.
// Its methods may be called concurrently.
type Checkpoint struct {
	path     string
	shards   []Shard
	files    []*shardFile // one per shard
	index    map[string]*fileTensor
	warnings []string
}

// Open reads the headers of a checkpoint. The path is a safetensors file, an
// index (*.index.json), or a directory, in which [ModelFile], [IndexFile] and
// [AdapterFile] are looked for in this order. Links are followed, since the
// Hub's cache is made of them. A directory that only has weights in PyTorch's
// format is [ErrUnsupported]; one without weights is [os.ErrNotExist].
func Open(path string) (*Checkpoint, error) {
	file, err := locate(path)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{path: path, index: map[string]*fileTensor{}}
	if strings.HasSuffix(file, ".index.json") {
		err = c.openIndex(file)
	} else {
		err = c.openShard(filepath.Base(file), file)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// locate returns the file that a path given by the user stands for.
func locate(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", at("opening", path, err)
	}
	if !info.IsDir() {
		return path, nil
	}
	for _, name := range []string{ModelFile, IndexFile, AdapterFile} {
		file := filepath.Join(path, name)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", at("opening", file, err)
		}
	}
	for _, pattern := range []string{"pytorch_model*.bin", "adapter_model.bin", "*.bin.index.json"} {
		if found, _ := filepath.Glob(filepath.Join(escapeGlob(path), pattern)); len(found) > 0 {
			return "", &Error{Op: "opening", Path: path, Kind: ErrUnsupported, Err: fmt.Errorf(
				"weights are only there as %s; load them in Python and save with safe_serialization=True to get safetensors", filepath.Base(found[0]))}
		}
	}
	return "", &Error{Op: "opening", Path: path, Err: fmt.Errorf("no %s, %s or %s: %w", ModelFile, IndexFile, AdapterFile, fs.ErrNotExist)}
}

// escapeGlob makes a directory name literal inside a pattern.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

func (c *Checkpoint) openIndex(file string) error {
	ix, err := ReadIndex(file)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(ix.shardSet())) {
		if err := c.openShard(name, filepath.Join(filepath.Dir(file), name)); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ix.WeightMap)) {
		shard := ix.WeightMap[name]
		if t, ok := c.index[name]; !ok || c.shards[t.shard].Name != shard {
			return &Error{Op: "reading", Path: file, Tensor: name, Kind: ErrDamaged, Err: fmt.Errorf("the index places it in %q, which does not have it", shard)}
		}
	}
	total := int64(0)
	for _, s := range c.shards {
		total += s.Header.DataSize()
		for _, e := range s.Header.Entries() {
			if _, ok := ix.WeightMap[e.Name]; !ok {
				c.warnings = append(c.warnings, fmt.Sprintf("tensor %q of %q is not in the index", e.Name, s.Name))
			}
		}
	}
	if ix.TotalSize > 0 && ix.TotalSize != total {
		c.warnings = append(c.warnings, fmt.Sprintf("the index announces %d bytes of tensors, the shards have %d", ix.TotalSize, total))
	}
	return nil
}

func (c *Checkpoint) openShard(name, path string) error {
	f, h, err := openFile(path)
	if err != nil {
		return err
	}
	shard := len(c.shards)
	c.shards = append(c.shards, Shard{Name: name, Path: path, Header: h})
	c.files = append(c.files, f)
	for _, e := range h.Entries() {
		if other, dup := c.index[e.Name]; dup {
			return &Error{Op: "reading", Path: path, Tensor: e.Name, Kind: ErrDamaged,
				Err: fmt.Errorf("also defined in %q", c.shards[other.shard].Name)}
		}
		c.index[e.Name] = &fileTensor{Entry: e, file: f, offset: h.DataOffset() + e.Begin, path: path, shard: shard}
	}
	return nil
}

// A shardFile is an open file, and what it was when it was opened.
type shardFile struct {
	*os.File
	opened os.FileInfo
}

// unchanged fails if somebody has written to the file since it was opened: then what was read of it
// may be of two minds.
func (f *shardFile) unchanged() error {
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if now.Size() != f.opened.Size() || !now.ModTime().Equal(f.opened.ModTime()) {
		return fmt.Errorf("%q changed while it was read", f.Name())
	}
	return nil
}

func openFile(path string) (*shardFile, *Header, error) {
	// Asking before opening: opening a named pipe would block.
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, at("opening", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, &Error{Op: "opening", Path: path, Kind: ErrUnsupported, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, at("opening", path, err)
	}
	opened, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, at("opening", path, err)
	}
	h, err := ReadHeader(f, opened.Size(), DefaultLimits)
	if err != nil {
		f.Close()
		return nil, nil, at("reading header of", path, err)
	}
	return &shardFile{f, opened}, h, nil
}

// Close closes the files. Tensors cannot be read afterwards.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Path returns what was given to [Open].
func (c *Checkpoint) Path() string { return c.path }

// Shards returns the files in the order of their names. The slice is shared.
func (c *Checkpoint) Shards() []Shard { return c.shards }

// Warnings lists what is wrong but harmless: tensors that the index does not
// mention, or a total size that does not add up.
func (c *Checkpoint) Warnings() []string { return c.warnings }

// Metadata returns the "__metadata__" of the first shard; nil if it has none.
func (c *Checkpoint) Metadata() map[string]string {
	if len(c.shards) == 0 {
		return nil
	}
	return c.shards[0].Header.Metadata()
}

// Tensor finds a tensor by name. It is also an [io.WriterTo].
func (c *Checkpoint) Tensor(name string) (Tensor, bool) {
	t, ok := c.index[name]
	if !ok {
		return nil, false
	}
	return t, true
}

// Tensors visits all tensors, shard by shard in the order of their data.
func (c *Checkpoint) Tensors() iter.Seq[Tensor] {
	return func(yield func(Tensor) bool) {
		for _, s := range c.shards {
			for _, e := range s.Header.Entries() {
				if !yield(c.index[e.Name]) {
					return
				}
			}
		}
	}
}

// A fileTensor reads its data from an open file when asked.
type fileTensor struct {
	Entry
	file   *shardFile
	offset int64 // in the file
	path   string
	shard  int
}

func (t *fileTensor) Info() TensorInfo {
	info := t.TensorInfo
	info.Shape = slices.Clone(info.Shape)
	return info
}

func (t *fileTensor) Bytes() ([]byte, error) {
	data := make([]byte, t.End-t.Begin)
	if err := readFull(t.file, data, t.offset); err != nil {
		return nil, t.fail(err)
	}
	return data, nil
}

// WriteTo copies the data in pieces.
func (t *fileTensor) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, io.NewSectionReader(t.file, t.offset, t.End-t.Begin))
	if err == nil && n != t.End-t.Begin {
		err = t.fail(io.ErrUnexpectedEOF)
	}
	return n, err
}

func (t *fileTensor) fail(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return &Error{Op: "reading", Path: t.path, Tensor: t.Name, Err: err}
}
