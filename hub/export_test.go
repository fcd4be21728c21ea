package hub

import "os"

// BreakLocks makes every lock succeed, as on some network file systems; the result undoes it.
func BreakLocks() (mend func()) {
	before := tryLock
	tryLock = func(*os.File) (bool, error) { return true, nil }
	return func() { tryLock = before }
}

// IgnoreCase makes every volume one that does not tell A from a; the result undoes it.
func IgnoreCase() (mend func()) {
	before := ignoresCase
	ignoresCase = func(string) bool { return true }
	return func() { ignoresCase = before }
}

var CheckWindowsPath = checkWindowsPath
