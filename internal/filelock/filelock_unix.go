//go:build unix && !solaris && !aix

package filelock

import (
	"errors"
	"os"
	"syscall"
)

// lock takes an flock: POSIX record locks would not exclude Python's, and end when any file of the name is closed.
func lock(f *os.File, how int) (bool, error) {
	op := syscall.LOCK_SH
	if how&exclusive != 0 {
		op = syscall.LOCK_EX
	}
	if how&atOnce != 0 {
		op |= syscall.LOCK_NB
	}
	for {
		err := syscall.Flock(int(f.Fd()), op)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOLCK):
			return false, ErrUnsupported
		default:
			return false, err
		}
	}
}
