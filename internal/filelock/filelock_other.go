//go:build !windows && (!unix || solaris || aix)

package filelock

import "os"

func lock(*os.File, int) (bool, error) { return false, ErrUnsupported }
