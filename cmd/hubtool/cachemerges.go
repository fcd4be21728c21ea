package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hubtool/hubtool/internal/filelock"
)

// A pendingMerge is the folder of a merge that is being pushed, or was until its process died: what lets
// the same command go on.
type pendingMerge struct {
	Name     string    `json:"name"`
	Path     string    `json:"path"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
}

func (m pendingMerge) String() string {
	return fmt.Sprintf("%s  unfinished merge, %s, last written %s", m.Name, byteSize(m.Size), m.Modified.Format("2006-01-02 15:04"))
}

// mergesDir holds a folder for each merge that is pushed without being stored.
func (e *env) mergesDir() string {
	if dir := e.ownCache("merges"); dir != "" {
		return dir
	}
	return filepath.Join(os.TempDir(), "hubtool-merges")
}

// pendingMerges lists the folders of merges, what was written last first.
func (e *env) pendingMerges() ([]pendingMerge, error) {
	dir := e.mergesDir()
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing unfinished merges: %w", err)
	}
	var list []pendingMerge
	for _, entry := range entries {
		if !entry.IsDir() {
			continue // not ours
		}
		m := pendingMerge{Name: entry.Name(), Path: filepath.Join(dir, entry.Name())}
		_ = filepath.WalkDir(m.Path, func(_ string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // gone meanwhile
			}
			if info, err := d.Info(); err == nil {
				if info.Mode().IsRegular() {
					m.Size += info.Size()
				}
				if info.ModTime().After(m.Modified) {
					m.Modified = info.ModTime()
				}
			}
			return nil
		})
		list = append(list, m)
	}
	slices.SortStableFunc(list, func(a, b pendingMerge) int { return b.Modified.Compare(a.Modified) })
	return list, nil
}

// abandonedMerges are those that no process works on.
func (e *env) abandonedMerges() ([]pendingMerge, error) {
	list, err := e.pendingMerges()
	return slices.DeleteFunc(list, func(m pendingMerge) bool {
		f, free := m.tryLock()
		if free {
			f.Close()
		}
		return !free
	}), err
}

// mergeLock is held, shared, by a process that works in a merge's folder.
const mergeLock = "lock"

// hold keeps the folder from being removed until the file is closed. Two processes that make the same merge both hold
// it: which one goes on the journal decides.
func (m pendingMerge) hold() (*os.File, error) {
	if err := os.MkdirAll(m.Path, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(m.Path, mergeLock), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := filelock.Share(f); err != nil && !errors.Is(err, filelock.ErrUnsupported) {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// tryLock keeps merges out of a folder that none is at work in. Where there are no locks, nothing tells, and the
// folder counts as used; likewise if it cannot be written. The file is nil where a process was killed before it made one.
func (m pendingMerge) tryLock() (f *os.File, free bool) {
	f, err := os.OpenFile(filepath.Join(m.Path, mergeLock), os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Is(err, fs.ErrNotExist)
	}
	if ok, err := filelock.Try(f); !ok || err != nil {
		f.Close()
		return nil, false
	}
	return f, true
}

// removeMerges removes the folders of merges, less those that a process works in: their bytes are kept.
func (e *env) removeMerges(list []pendingMerge) (removed []pendingMerge, kept int64, err error) {
	for _, m := range list {
		f, free := m.tryLock()
		if !free {
			e.note("the unfinished merge %s stays: a process works on it", m.Name)
			kept += m.Size
			continue
		}
		if err := m.remove(f); err != nil {
			return removed, kept, fmt.Errorf("removing an unfinished merge: %w", err)
		}
		removed = append(removed, m)
	}
	return removed, kept, nil
}

// remove deletes the folder; f is its lock, which goes last but one, as Windows does not remove what is open.
func (m pendingMerge) remove(f *os.File) error {
	err := os.RemoveAll(filepath.Join(m.Path, mergeWork))
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	return errors.Join(err, os.RemoveAll(m.Path))
}

// mergeWork is what the merge itself sees of its folder: it may empty it.
const mergeWork = "merge"
