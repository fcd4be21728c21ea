// Package filelock locks files against other processes: flock on Unix and the first byte on Windows, which are the locks
// that Python's filelock takes, so that both programs keep each other out of one cache.
//
// A lock belongs to the open file and ends when that is closed, also by the end of the process. Locks only save work and
// keep away from what others use; where a file system has none, callers go on without, or under a name of their own.
package filelock

import (
	"errors"
	"os"
)

// ErrUnsupported is what locking gives on a file system, or a system, that has no locks.
var ErrUnsupported = errors.New("file system has no locks")

// Try locks f if nobody has it locked in any way, and tells whether it did.
func Try(f *os.File) (bool, error) { return lock(f, exclusive|atOnce) }

// Lock waits until nobody has f locked in any way.
func Lock(f *os.File) error {
	_, err := lock(f, exclusive)
	return err
}

// Share waits until nobody has f locked but by Share.
func Share(f *os.File) error {
	_, err := lock(f, 0)
	return err
}

// What lock is asked for; without exclusive it shares.
const (
	exclusive = 1 << iota
	atOnce
)
