package format

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
)

// partialSuffix marks a file that is being written. A crash may leave one
// behind; the next write to the same name replaces it.
const partialSuffix = ".partial"

// WriteFileAtomic writes data to path so that the name never holds anything
// but the old or the complete new content, also after a crash.
func WriteFileAtomic(path string, data []byte) error {
	return writeAtomic(path, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// writeAtomic lets fill write a sibling of path, flushes it to the disk and
// renames it. The sibling is removed if anything fails.
func writeAtomic(path string, fill func(*os.File) error) (err error) {
	partial := path + partialSuffix
	// Removing first, not truncating: a link of that name must not be followed.
	if err := os.Remove(partial); err != nil && !os.IsNotExist(err) {
		return at("writing", path, err)
	}
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return at("writing", path, err)
	}
	ours, err := f.Stat()
	defer func() {
		if err != nil {
			f.Close() // a second close is harmless
			if stillOurs(ours, partial) == nil {
				os.Remove(partial)
			}
			err = at("writing", path, err)
		}
	}()
	if err != nil {
		return err
	}
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := stillOurs(ours, partial); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Rename gives a complete file or directory its final name, durably.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return at("writing", to, err)
	}
	return at("writing", to, syncDir(filepath.Dir(to)))
}

// stillOurs fails if another process has begun to write the same file: what it
// has so far must not get the final name.
func stillOurs(ours os.FileInfo, partial string) error {
	now, err := os.Lstat(partial)
	if err != nil || !os.SameFile(ours, now) {
		return errors.New("another process is writing the same file")
	}
	return nil
}

// syncDir makes a rename durable. Windows cannot flush a directory and needs not.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
