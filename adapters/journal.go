package adapters

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/hubtool/hubtool/internal/filelock"
)

// A journal lists the files of a merge that are finished, so that the next one can go on after a
// crash. Its first line says what is merged, every other one names a file.
type journal struct {
	file     *os.File
	noted    map[string]MergedShard // all files that were finished once
	finished map[string]MergedShard // those of them that are there
}

const journalFile = ".hubtool-merge"

type journalHead struct {
	Merge string `json:"merge"` // hash of all inputs
}

// openJournal opens the journal in dir. If it is of another merge, everything there is removed.
func (p *MergePlan) openJournal(dir string) (*journal, error) {
	key, err := p.key()
	if err != nil {
		return nil, err
	}
	j, err := readJournal(dir, key)
	if err != nil || j != nil {
		return j, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, journalFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	j = &journal{file: f}
	if err := lock(f); err != nil {
		f.Close()
		return nil, err
	}
	return j, j.line(journalHead{key})
}

var errBusy = errors.New("another merge is writing there")

// lock keeps other processes from writing to the same place, until f is closed. Where a file system has no locks, nobody
// is kept away.
func lock(f *os.File) error {
	if ok, err := filelock.Try(f); !ok && err == nil {
		return errBusy
	}
	return nil
}

// readJournal returns the journal of an earlier merge with the same inputs, nil if there is none.
func readJournal(dir, key string) (*journal, error) {
	f, err := os.OpenFile(filepath.Join(dir, journalFile), os.O_RDWR, 0)
	if err != nil {
		return nil, nil
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, err
	}
	text, err := io.ReadAll(f)
	whole := bytes.LastIndexByte(text, '\n') + 1 // the last line may have been cut
	lines := bufio.NewScanner(bytes.NewReader(text[:whole]))
	var head journalHead
	if err != nil || !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil || head.Merge != key {
		f.Close()
		return nil, nil
	}
	j := &journal{file: f, noted: map[string]MergedShard{}, finished: map[string]MergedShard{}}
	for lines.Scan() {
		var s MergedShard
		if json.Unmarshal(lines.Bytes(), &s) != nil {
			break
		}
		j.noted[s.Name] = s
		if info, err := os.Stat(filepath.Join(dir, s.Name)); err == nil && info.Size() == s.Size {
			j.finished[s.Name] = s
		}
	}
	if _, err := f.Seek(int64(whole), io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return j, f.Truncate(int64(whole))
}

// note says that a file is complete and on disk.
func (j *journal) note(s MergedShard) error { return j.line(s) }

func (j *journal) line(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := j.file.Write(append(text, '\n')); err != nil {
		return err
	}
	return j.file.Sync()
}

func (j *journal) close() { j.file.Close() }

// remove ends the journal: everything is finished.
func (j *journal) remove() error { return os.Remove(j.file.Name()) }

// key is a hash of everything that decides which bytes a merge writes.
func (p *MergePlan) key() (string, error) {
	h := sha256.New()
	add := func(v any) { fmt.Fprintf(h, "%+v\n", v) }
	add([]any{"merge 2", p.opts.Rounding, p.opts.Weights, p.opts.ShardSize, p.opts.AllowMissing, p.opts.AllowNonFinite, p.opts.Untie})
	for _, s := range p.base.Shards() {
		add([]any{s.Name, s.Version})
		h.Write(s.Header.Raw())
	}
	for _, s := range p.shards {
		add(s.name)
		h.Write(s.header.Raw())
	}
	for _, a := range p.adapters {
		text, err := a.Config.MarshalJSON()
		if err != nil {
			return "", err
		}
		h.Write(text)
		if a.file != nil {
			for _, s := range a.file.Shards() {
				add([]any{s.Name, s.Version})
				h.Write(s.Header.Raw())
			}
		}
		for _, param := range a.params {
			add(param.Name)
			add(param.Shape)
			hashFloats(h, param.Values)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func hashFloats(h hash.Hash, values []float32) {
	var block []byte
	for part := range slices.Chunk(values, 1<<14) {
		block = block[:0]
		for _, v := range part {
			block = binary.LittleEndian.AppendUint32(block, math.Float32bits(v))
		}
		h.Write(block)
	}
}
