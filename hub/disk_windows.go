package hub

import "golang.org/x/sys/windows"

const noFollow = 0

// freeSpace is the number of bytes this user may still write below dir.
func freeSpace(dir string) (int64, bool) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, false
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, false
	}
	return int64(free), true
}

// syncDir does nothing: Windows has no handle for it.
func syncDir(string) error { return nil }
