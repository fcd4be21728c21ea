//go:build unix && !solaris

package adapters

import (
	"os"

	"golang.org/x/sys/unix"
)

// lock keeps other processes from writing to the same place, until f is closed. Where a file system
// has no locks, nobody is kept away.
func lock(f *os.File) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		return errBusy
	}
	return nil
}
