//go:build !windows

package hubserve

import (
	"os"
	"syscall"
)

// lockFile opens a file that one process at a time can have.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == syscall.EWOULDBLOCK {
		f.Close()
		return nil, errInUse
	}
	return f, nil // also on a file system without locks
}
