package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hubtool/hubtool/internal/filelock"
)

// fileLock is a lock of the kind Python's filelock takes. Lock files stay where
// they are: deleting one that is held would give it two owners. Where a file system
// has no locks, Python uses another scheme; we go on without, since locks only save
// work.
type fileLock struct {
	file *os.File // nil where there are no locks
}

func (l *fileLock) unlock() {
	if l.file != nil {
		l.file.Close()
	}
}

// tryLock takes a lock if nobody has it; a variable, for the test of file systems
// whose locks hold nobody out.
var tryLock = filelock.Try

const lockPoll = 50 * time.Millisecond

// lock waits for path, telling waiting how long so far: at once, then every ten
// seconds.
func lock(ctx context.Context, path string, waiting func(time.Duration)) (*fileLock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o664)
	if err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	start, told := time.Now(), time.Time{}
	for {
		ok, err := tryLock(f)
		switch {
		case ok:
			return &fileLock{f}, nil
		case errors.Is(err, filelock.ErrUnsupported):
			f.Close()
			return &fileLock{}, nil
		case err != nil:
			f.Close()
			return nil, fmt.Errorf("locking %q: %w", path, err)
		}
		if now := time.Now(); now.Sub(told) >= 10*time.Second {
			told = now
			waiting(now.Sub(start).Round(time.Second))
		}
		if err := sleep(ctx, lockPoll); err != nil {
			f.Close()
			return nil, err
		}
	}
}

// locksWork tells whether a lock held through f keeps others out. On some network
// file systems every lock succeeds; adopting a partial file there could mean
// taking it from a live process.
func locksWork(f *os.File) bool {
	again, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer again.Close()
	ok, err := tryLock(again)
	return !ok && err == nil
}
