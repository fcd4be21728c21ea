package dataset

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hubtool/hubtool/internal/filelock"
)

// Cache is a folder of what is made once of data sets and read many times: images unpacked from Parquet files, and
// images prepared for training. An entry is a file whose name follows from the content that it was made of, so that it
// can neither be stale nor clash, and which gets that name when it is whole.
//
// Several processes may use a cache. An open entry is locked, as is one being made: another process that wants the same
// waits for it, and nobody drops it. A process that is killed leaves a file that the next one takes over.
type Cache struct {
	Dir string
	// Limit bounds the bytes of all entries; 0 does not. What was used longest ago is dropped for a new entry.
	Limit int64
}

// CacheEntry is one file of a cache.
type CacheEntry struct {
	Name string
	Kind string // "records" or "prepared"; "partial" for what a process that died has left, or a live one is making
	Note string // what it was made of; "" where the file does not say
	Size int64
	Used time.Time // last
}

// Kinds of entries are the extensions of their files.
const (
	recordsKind  = "records"
	preparedKind = "prepared"
	partialKind  = "partial"
)

// ErrNoRoom means that an entry is larger than a cache may become.
var ErrNoRoom = errors.New("no room in the cache")

// Entries lists the cache, what was used last first. Nothing is read but a few bytes of each file.
func (c Cache) Entries() ([]CacheEntry, error) {
	files, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the cache of images: %w", err)
	}
	var entries []CacheEntry
	for _, f := range files {
		kind := strings.TrimPrefix(filepath.Ext(f.Name()), ".")
		readNote := map[string]func(string) string{recordsKind: recordsNote, preparedKind: preparedNote, partialKind: func(string) string { return "" }}[kind]
		info, err := f.Info()
		if readNote == nil || err != nil || !info.Mode().IsRegular() {
			continue // not ours, or gone meanwhile
		}
		entries = append(entries, CacheEntry{f.Name(), kind, readNote(filepath.Join(c.Dir, f.Name())), info.Size(), info.ModTime()})
	}
	slices.SortFunc(entries, func(a, b CacheEntry) int { return cmp.Or(b.Used.Compare(a.Used), strings.Compare(a.Name, b.Name)) })
	return entries, nil
}

// Remove deletes an entry unless a process uses it, and tells whether it did.
func (c Cache) Remove(e CacheEntry) (bool, error) {
	path := filepath.Join(c.Dir, e.Name)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("removing from the cache of images: %w", err)
	}
	defer f.Close()
	if ok, err := filelock.Try(f); !ok && !errors.Is(err, filelock.ErrUnsupported) {
		return false, err
	}
	if err := os.Remove(path); err != nil {
		return false, fmt.Errorf("removing from the cache of images: %w", err)
	}
	return true, nil
}

// Shrink drops what was used longest ago until the entries take at most size bytes, what dead processes have left before
// anything else. Entries in use stay. It returns what it dropped or, on a dry run, would try to.
func (c Cache) Shrink(size int64, dryRun bool) ([]CacheEntry, error) {
	entries, err := c.Entries()
	if err != nil {
		return nil, err
	}
	total := int64(0)
	for _, e := range entries {
		total += e.Size
	}
	slices.SortStableFunc(entries, func(a, b CacheEntry) int { return cmp.Compare(order(a), order(b)) })
	var dropped []CacheEntry
	for i := len(entries) - 1; i >= 0; i-- {
		if total <= size && entries[i].Kind != partialKind {
			break
		}
		ok := dryRun
		if !dryRun {
			if ok, err = c.Remove(entries[i]); err != nil {
				return dropped, err
			}
		}
		if ok {
			dropped = append(dropped, entries[i])
			total -= entries[i].Size
		}
	}
	return dropped, nil
}

// order puts partial files behind all others.
func order(e CacheEntry) int {
	if e.Kind == partialKind {
		return 1
	}
	return 0
}

// makeRoom drops old entries for a new one of so many bytes.
func (c Cache) makeRoom(size int64) error {
	if c.Limit == 0 {
		return nil
	}
	if size > c.Limit {
		return fmt.Errorf("%w: %d bytes are needed, %d allowed", ErrNoRoom, size, c.Limit)
	}
	_, err := c.Shrink(c.Limit-size, false)
	return err
}

// open opens an entry for reading and notes that it was used. The entry cannot be dropped until the file is closed.
func (c Cache) open(name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(c.Dir, name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) { // of somebody else
		f, err = os.Open(filepath.Join(c.Dir, name))
	}
	if err != nil {
		return nil, err
	}
	if err := filelock.Share(f); err != nil && !errors.Is(err, filelock.ErrUnsupported) {
		return nil, errors.Join(err, f.Close())
	}
	now := time.Now()
	_ = os.Chtimes(f.Name(), now, now) // a cache that cannot be written serves all the same
	return f, nil
}

// create makes an entry by write unless usable accepts the one that another process has made meanwhile, and opens it.
// There may be a file of the name that is not usable; it is replaced.
func (c Cache) create(name string, size int64, usable func(*os.File) error, write func(*os.File) error) (*os.File, error) {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	partial, err := c.lockPartial(name)
	if err != nil {
		return nil, err
	}
	defer partial.Close()
	if f, err := c.open(name); err == nil {
		if usable(f) == nil {
			return f, os.Remove(partial.Name())
		}
		f.Close()
	}
	if err := c.makeRoom(size); err != nil {
		return nil, errors.Join(err, os.Remove(partial.Name()))
	}
	err = partial.Truncate(0) // of what a killed process has written
	if err == nil {
		err = write(partial)
	}
	if err == nil {
		err = partial.Sync()
	}
	if err == nil {
		err = os.Rename(partial.Name(), filepath.Join(c.Dir, name))
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(partial.Name()))
	}
	partial.Close() // its lock is on the entry now
	return c.open(name)
}

// lockPartial opens the file that an entry is made in, and waits until nobody else makes it. Where there are no locks
// the file has a name of its own, and the work may be done twice.
func (c Cache) lockPartial(name string) (*os.File, error) {
	path := filepath.Join(c.Dir, name+"."+partialKind)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		err = filelock.Lock(f)
		if errors.Is(err, filelock.ErrUnsupported) {
			return os.CreateTemp(c.Dir, name+".*."+partialKind)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		// Whoever had the lock before has renamed or removed the file.
		now, err := os.Stat(path)
		if mine, statErr := f.Stat(); err == nil && statErr == nil && os.SameFile(now, mine) {
			return f, nil
		}
		f.Close()
	}
}
