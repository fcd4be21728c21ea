//go:build !unix

package dataset

import (
	"errors"
	"os"
)

var errNoLocks = errors.New("files are not locked on this system")

func lock(*os.File) error            { return errNoLocks }
func tryLock(*os.File) (bool, error) { return false, errNoLocks }
func share(*os.File) error           { return nil }
