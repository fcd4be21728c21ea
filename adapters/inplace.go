package adapters

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/internal/hashing"
)

// undoFile holds, while a merge in place is under way, what it overwrites.
const undoFile = ".hubtool-undo"

// inPlaceBytes is about how much of a tensor is in memory at once.
const inPlaceBytes = 4 << 20

// A saved range of a file. As JSON on a line of its own it stands before the bytes; the line without
// a file ends a complete undo file.
type undoRecord struct {
	File string `json:"file,omitempty"`
	At   int64  `json:"at"`
	Size int64  `json:"size"`
}

// InPlace merges into the base's own files, of which only the changed tensors are written. What they
// were is saved first: if the merge fails or is cancelled it is put back, and after a crash by
// [Recover]. Other programs must not read the base meanwhile.
//
// The files must be the base's alone: links and the Hub's cache are refused, and so is a merge that
// changes names, shapes or the number of tensors.
func (p *MergePlan) InPlace(ctx context.Context) (result MergeResult, err error) {
	dir := p.baseDir()
	if err := p.refuseInPlace(); err != nil {
		return result, fmt.Errorf("merging in place: %w", err)
	}
	if err := p.saveUndo(ctx, dir); err != nil {
		os.Remove(filepath.Join(dir, undoFile))
		return result, fmt.Errorf("merging in place: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, Recover(dir))
		}
	}()
	meter := p.meter()
	for i, s := range p.shards {
		if err := p.overwrite(ctx, p.base.Shards()[i], s, func(n int64) { meter(s.name, n) }); err != nil {
			return result, fmt.Errorf("merging in place: %w", err)
		}
	}
	if err := p.hashShards(ctx, dir); err != nil {
		return result, fmt.Errorf("merging in place: %w", err)
	}
	if len(p.full) > 0 {
		if err := p.cfg.Write(dir); err != nil {
			return result, err
		}
	}
	if err := os.Remove(filepath.Join(dir, undoFile)); err != nil {
		return result, fmt.Errorf("merging in place: %w", err)
	}
	return p.result, nil
}

// InPlaceBytes is how much room a merge in place needs until it is done.
func (p *MergePlan) InPlaceBytes() int64 {
	size := int64(0)
	for _, s := range p.shards {
		for _, e := range s.changed() {
			size += e.End - e.Begin
		}
	}
	return size
}

// hashShards notes the hashes of the files, most of whose bytes the merge has not seen.
func (p *MergePlan) hashShards(ctx context.Context, dir string) error {
	errs := make([]error, len(p.result.Shards))
	parallel(p.opts.Jobs, len(errs), func(i int) {
		s := &p.result.Shards[i]
		if errs[i] = context.Cause(ctx); errs[i] == nil {
			s.SHA256, errs[i] = hashFile(filepath.Join(dir, s.Name))
		}
	})
	return errors.Join(errs...)
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := hashing.NewSHA256()
	if _, err := io.CopyBuffer(h, f, make([]byte, 1<<20)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// refuseInPlace names what does not allow a merge in place.
func (p *MergePlan) refuseInPlace() error {
	if len(p.shards) != len(p.base.Shards()) {
		return fmt.Errorf("%w: the files would not be the same", ErrMethod)
	}
	for i, s := range p.base.Shards() {
		if p.shards[i].header != s.Header {
			return fmt.Errorf("%w: names, shapes or the number of tensors in %q would change", ErrMethod, s.Name)
		}
		info, err := os.Lstat(s.Path)
		if err != nil {
			return err
		}
		real, err := filepath.EvalSymlinks(s.Path)
		if err != nil {
			return err
		}
		switch {
		case !info.Mode().IsRegular():
			return fmt.Errorf("%w: %q is a link", ErrMethod, s.Path)
		case links(info) > 1:
			return fmt.Errorf("%w: %q has other names, whose content would change too", ErrMethod, s.Path)
		case strings.Contains(filepath.ToSlash(real), "/models--"):
			return fmt.Errorf("%w: %q is in the Hub's cache", ErrMethod, s.Path)
		}
	}
	return nil
}

// changed are the entries of a shard that the plan changes.
func (s plannedShard) changed() []format.Entry {
	var list []format.Entry
	for _, e := range s.header.Entries() {
		piece := s.pieces[e.Name]
		if _, replaced := piece.From.(lazy); replaced || piece.Patch != nil {
			list = append(list, e)
		}
	}
	return list
}

// saveUndo copies what will be overwritten.
func (p *MergePlan) saveUndo(ctx context.Context, dir string) error {
	if err := format.CheckSpace(dir, p.InPlaceBytes()); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, undoFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	enc := json.NewEncoder(w)
	save := func(name string, from io.ReaderAt, at, size int64) error {
		if err := errors.Join(context.Cause(ctx), enc.Encode(undoRecord{name, at, size})); err != nil {
			return err
		}
		_, err := io.CopyN(w, io.NewSectionReader(from, at, size), size)
		return err
	}
	config, err := os.ReadFile(filepath.Join(dir, format.ModelConfigFile))
	if err == nil {
		err = save(format.ModelConfigFile, bytes.NewReader(config), 0, int64(len(config)))
	}
	if err != nil {
		return err
	}
	for i, s := range p.shards {
		shard := p.base.Shards()[i]
		from, err := os.Open(shard.Path)
		if err != nil {
			return err
		}
		for _, e := range s.changed() {
			if err = save(shard.Name, from, shard.Header.DataOffset()+e.Begin, e.End-e.Begin); err != nil {
				break
			}
		}
		from.Close()
		if err != nil {
			return err
		}
	}
	return errors.Join(enc.Encode(undoRecord{}), w.Flush(), f.Sync())
}

// overwrite merges into one file.
func (p *MergePlan) overwrite(ctx context.Context, shard format.Shard, s plannedShard, progress func(int64)) error {
	f, err := os.OpenFile(shard.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, e := range s.changed() {
		if err := overwriteTensor(ctx, f, shard.Header.DataOffset()+e.Begin, e, s.pieces[e.Name]); err != nil {
			return fmt.Errorf("%q: %w", e.Name, err)
		}
		progress(e.End - e.Begin)
	}
	return f.Sync()
}

func overwriteTensor(ctx context.Context, f *os.File, offset int64, e format.Entry, piece format.Piece) error {
	size, block := e.End-e.Begin, e.End-e.Begin
	read := func(dst []byte, at int64) error { _, err := f.ReadAt(dst, offset+at); return err }
	if _, replaced := piece.From.(lazy); replaced {
		data, err := piece.From.Bytes()
		if err != nil {
			return err
		}
		read = func(dst []byte, at int64) error { copy(dst, data[at:]); return nil }
	}
	apply := func(int64, []byte) error { return nil }
	if piece.Patch != nil {
		var err error
		if apply, err = piece.Patch.Start(); err != nil {
			return err
		}
		block = piece.Patch.Block
	}
	buf := make([]byte, min(size, max(block, inPlaceBytes/max(block, 1)*block)))
	for at := int64(0); at < size; at += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), size-at)]
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := read(buf, at); err != nil {
			return err
		}
		if err := apply(at, buf); err != nil {
			return err
		}
		if _, err := f.WriteAt(buf, offset+at); err != nil {
			return err
		}
	}
	return nil
}

// Recover puts back what an interrupted merge in place has overwritten in dir. It does nothing where
// there was none.
func Recover(dir string) error {
	path := filepath.Join(dir, undoFile)
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	records, err := readUndo(f)
	if err != nil {
		return fmt.Errorf("recovering %q: %w", dir, err)
	}
	for _, r := range records { // none, if the undo file is not complete: then nothing was overwritten
		if err := r.restore(dir, f); err != nil {
			return fmt.Errorf("recovering %q: %w", dir, err)
		}
	}
	return os.Remove(path)
}

type savedRange struct {
	undoRecord
	from int64 // in the undo file
}

func readUndo(f *os.File) ([]savedRange, error) {
	var list []savedRange
	at := int64(0)
	for {
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return nil, err
		}
		line, err := bufio.NewReaderSize(f, 4096).ReadBytes('\n')
		if err != nil {
			return nil, nil // cut
		}
		var r undoRecord
		if json.Unmarshal(line, &r) != nil {
			return nil, nil
		}
		if r.File == "" {
			return list, nil
		}
		at += int64(len(line))
		list = append(list, savedRange{r, at})
		at += r.Size
	}
}

func (r savedRange) restore(dir string, undo *os.File) error {
	if filepath.Base(r.File) != r.File {
		return fmt.Errorf("%w: %q is no file name", format.ErrDamaged, r.File)
	}
	saved := io.NewSectionReader(undo, r.from, r.Size)
	if r.File == format.ModelConfigFile {
		data, err := io.ReadAll(saved)
		if err != nil {
			return err
		}
		return format.WriteFileAtomic(filepath.Join(dir, r.File), data)
	}
	f, err := os.OpenFile(filepath.Join(dir, r.File), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(io.NewOffsetWriter(f, r.At), saved); err != nil {
		return err
	}
	return f.Sync()
}

// Unfinished tells whether a merge in place into dir did not come to its end.
func Unfinished(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == undoFile })
}
