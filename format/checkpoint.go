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
	"sync"
)

// The names under which transformers and PEFT keep weights.
const (
	ModelFile   = "model.safetensors"
	IndexFile   = "model.safetensors.index.json"
	AdapterFile = "adapter_model.safetensors"
)

// A Shard is one safetensors file of a checkpoint.
type Shard struct {
	Name    string // base name, as an index calls it
	Path    string // of a file on a disk; else what names it to people
	Header  *Header
	Version string // of the content, see [Source]
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
	dir, name := filepath.Split(file)
	return openFrom(Folder{Path: dir, Open: openDisk(dir)}, name, path, DefaultLimits)
}

// openFrom opens the checkpoint that a file of a folder begins; path is what it is called.
func openFrom(f Folder, name, path string, lim Limits) (*Checkpoint, error) {
	c := &Checkpoint{path: path, index: map[string]*fileTensor{}}
	var err error
	if strings.HasSuffix(name, ".index.json") {
		err = c.openIndex(f, name, lim)
	} else {
		err = c.openShards(f, []string{name}, lim)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// weightFiles are what a folder's weights begin with, in the order in which they are looked for.
var weightFiles = []string{ModelFile, IndexFile, AdapterFile}

// locate returns the file that a path given by the user stands for.
func locate(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", at("opening", path, err)
	}
	if !info.IsDir() {
		return path, nil
	}
	for _, name := range weightFiles {
		file := filepath.Join(path, name)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", at("opening", file, err)
		}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", at("opening", path, err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return "", noWeights(path, names)
}

// noWeights says what is wrong with a folder of these files.
func noWeights(path string, names []string) error {
	for _, pattern := range []string{"pytorch_model*.bin", "adapter_model.bin", "*.bin.index.json"} {
		for _, name := range names {
			if found, _ := filepath.Match(pattern, name); found {
				return &Error{Op: "opening", Path: path, Kind: ErrUnsupported, Err: fmt.Errorf(
					"weights are only there as %s; load them in Python and save with safe_serialization=True to get safetensors", name)}
			}
		}
	}
	return &Error{Op: "opening", Path: path, Err: fmt.Errorf("no %s, %s or %s: %w", ModelFile, IndexFile, AdapterFile, fs.ErrNotExist)}
}

func (c *Checkpoint) openIndex(f Folder, indexName string, lim Limits) error {
	file := f.file(indexName)
	ix, err := f.readIndex(indexName)
	if err != nil {
		return at("reading", file, err)
	}
	if err := c.openShards(f, slices.Sorted(maps.Keys(ix.shardSet())), lim); err != nil {
		return err
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

// openers is how many headers are read at the same time: on a server each of them takes a while.
const openers = 8

// openShards reads headers, several at a time, and takes the files in the order given.
func (c *Checkpoint) openShards(f Folder, names []string, lim Limits) error {
	files, headers, errs := make([]*shardFile, len(names)), make([]*Header, len(names)), make([]error, len(names))
	todo := make(chan int)
	var running sync.WaitGroup
	for range min(openers, len(names)) {
		running.Go(func() {
			for i := range todo {
				files[i], headers[i], errs[i] = f.openShard(names[i], lim)
			}
		})
	}
	for i := range names {
		todo <- i
	}
	close(todo)
	running.Wait()
	for _, file := range files {
		if file != nil {
			c.files = append(c.files, file) // to be closed, whatever comes
		}
	}
	for i, name := range names {
		err := errs[i]
		if err == nil {
			err = c.take(Shard{Name: name, Path: f.file(name), Header: headers[i], Version: files[i].Version()}, files[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f Folder) openShard(name string, lim Limits) (*shardFile, *Header, error) {
	src, err := f.Open(name)
	if err != nil {
		return nil, nil, at("opening", f.file(name), err)
	}
	file := newShardFile(src)
	h, err := ReadHeader(file, file.Size(), lim)
	if err != nil {
		return file, nil, at("reading header of", f.file(name), err)
	}
	return file, h, at("reading header of", f.file(name), file.check(h.prefix(), 0))
}

// take adds a shard's tensors to the checkpoint's.
func (c *Checkpoint) take(s Shard, file *shardFile) error {
	shard := len(c.shards)
	c.shards = append(c.shards, s)
	for _, e := range s.Header.Entries() {
		if other, dup := c.index[e.Name]; dup {
			return &Error{Op: "reading", Path: s.Path, Tensor: e.Name, Kind: ErrDamaged,
				Err: fmt.Errorf("also defined in %q", c.shards[other.shard].Name)}
		}
		c.index[e.Name] = &fileTensor{Entry: e, file: file, offset: s.Header.DataOffset() + e.Begin, path: s.Path, shard: shard}
	}
	return nil
}

// Close closes the files. Tensors cannot be read afterwards.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Path returns what was given to [Open], or the path of the folder given to [OpenFolder].
func (c *Checkpoint) Path() string { return c.path }

// Shards returns the files in the order of their names. The slice is shared.
func (c *Checkpoint) Shards() []Shard { return c.shards }

// Warnings lists what is wrong but harmless: tensors that the index does not
// mention, or a total size that does not add up.
func (c *Checkpoint) Warnings() []string { return c.warnings }

// Unchecked names the shards that announced a hash and were read by [Rewrite], but not in such an order
// that it could be compared.
func (c *Checkpoint) Unchecked() (names []string) {
	for i, f := range c.files {
		if f.unchecked() {
			names = append(names, c.shards[i].Name)
		}
	}
	return names
}

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

func (t *fileTensor) onDisk() bool {
	_, ok := t.file.Source.(*diskFile)
	return ok
}

func (t *fileTensor) fail(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return &Error{Op: "reading", Path: t.path, Tensor: t.Name, Err: err}
}
