package format

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ErrSpace marks a file or a set of files for which the disk has no room.
var ErrSpace = errors.New("no space left on the disk")

// CheckSpace fails with [ErrSpace] if files of so many bytes do not fit below dir, which need not
// exist yet.
func CheckSpace(dir string, size int64) error {
	for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
	}
	if free, ok := FreeSpace(dir); ok && free < size {
		return &Error{Op: "writing below", Path: dir, Kind: ErrSpace, Err: fmt.Errorf("%d bytes are needed, %d are free", size, free)}
	}
	return nil
}

// reserve takes the space of a file before it is written.
func reserve(f *os.File, size int64) error {
	err := allocate(f, size)
	if errors.Is(err, syscall.ENOSPC) {
		free, _ := FreeSpace(filepath.Dir(f.Name()))
		return &Error{Kind: ErrSpace, Err: fmt.Errorf("%w: %d bytes are needed, %d are free", err, size, free)}
	}
	return err
}
