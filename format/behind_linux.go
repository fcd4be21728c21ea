//go:build linux && (amd64 || arm64)

package format

import (
	"os"
	"syscall"
)

// Of a long file that is read or written from its beginning on, only the last few of these windows
// stay in memory. Letting the system find that out itself costs most of the time of a copy, and
// everything else that it has cached. Small windows leave little to wait for at the end of a file; a
// few of them may be on their way to the disk, so that nobody waits for one in the middle.
const (
	behindWindow  = 8 << 20
	behindWindows = 4
)

const (
	fadviseSequential = 2
	fadviseDontNeed   = 4

	syncWaitBefore = 1
	syncWrite      = 2
	syncWaitAfter  = 4
)

// A behind follows a file's reader or writer.
type behind struct {
	fd       int
	at, done int64
}

func newBehind(f *os.File) *behind {
	b := &behind{fd: int(f.Fd())}
	b.advise(0, 0, fadviseSequential)
	return b
}

// moved says that a range was read or written. Nothing here can fail but to help.
func (b *behind) moved(from, to int64) {
	if from != b.at {
		b.done = from
	}
	for b.at = to; b.at-b.done >= behindWindow; b.done += behindWindow {
		_ = syscall.SyncFileRange(b.fd, b.done, behindWindow, syncWrite)
		if old := b.done - behindWindows*behindWindow; old >= 0 {
			_ = syscall.SyncFileRange(b.fd, old, behindWindow, syncWaitBefore|syncWrite|syncWaitAfter)
			b.advise(old, behindWindow, fadviseDontNeed)
		}
	}
}

func (b *behind) advise(at, n int64, advice uintptr) {
	_, _, _ = syscall.Syscall6(syscall.SYS_FADVISE64, uintptr(b.fd), uintptr(at), uintptr(n), advice, 0, 0)
}
