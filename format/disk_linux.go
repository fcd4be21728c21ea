package format

import (
	"errors"
	"os"
	"syscall"
)

// allocate makes room for a file on the disk; the file is as long as that afterwards.
func allocate(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}
