//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// stderr is os.Stderr under a number of its own: Go ends a process that writes into a broken pipe by the numbers 1
// and 2. The tee of "hubtool train 2>&1 | tee log" dies of the same Ctrl-C or hangup by which a run begins to save,
// and words that nobody reads any more must not cost the checkpoint.
func stderr() *os.File {
	fd, err := unix.FcntlInt(os.Stderr.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return os.Stderr
	}
	return os.NewFile(uintptr(fd), os.Stderr.Name())
}
