//go:build unix

package dataset

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// errNoLocks is what locking gives on a file system that has no locks. Locks only save work and keep entries that are
// in use: what is read is sound without them.
var errNoLocks = errors.New("file system has no locks")

// lock waits until nobody else has f locked, in any way.
func lock(f *os.File) error { return flock(f, unix.LOCK_EX) }

// tryLock locks f if that is possible at once.
func tryLock(f *os.File) (bool, error) {
	err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// share locks f against lock and tryLock of others.
func share(f *os.File) error {
	if err := flock(f, unix.LOCK_SH); err != nil && !errors.Is(err, errNoLocks) {
		return err
	}
	return nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOLCK):
			return errNoLocks
		default:
			return err
		}
	}
}
