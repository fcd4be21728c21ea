package filelock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// open opens a file once more: locks of one process exclude each other when they are on different open files.
func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestWhoKeepsWhomOut(t *testing.T) {
	try := func(f *os.File) error {
		ok, err := Try(f)
		if err == nil && !ok {
			err = errors.New("it is held")
		}
		return err
	}
	for _, c := range []struct {
		name string
		hold func(*os.File) error
		free bool // for Try
	}{
		{"Try", try, false}, {"Lock", Lock, false}, {"Share", Share, false},
		{"nobody", func(*os.File) error { return nil }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lock")
			held := open(t, path)
			if err := c.hold(held); errors.Is(err, ErrUnsupported) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			other := open(t, path)
			if ok, err := Try(other); ok != c.free || err != nil {
				t.Errorf("a second process is let in: %v, %v", ok, err)
			}
			held.Close()
			if ok, err := Try(other); !ok || err != nil {
				t.Errorf("closing the file has not ended the lock: %v, %v", ok, err)
			}
		})
	}
}

func TestReadersShare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	for range 2 {
		if err := Share(open(t, path)); errors.Is(err, ErrUnsupported) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestLockWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, other := open(t, path), open(t, path)
	if err := Share(held); errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	locked := make(chan error)
	go func() { locked <- Lock(other) }()
	select {
	case err := <-locked:
		t.Fatalf("locked what another has: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	held.Close()
	if err := <-locked; err != nil {
		t.Fatal(err)
	}
}
