package hubserve

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hubtool/hubtool/internal/filelock"
)

// disk is a storage in a directory, which it keeps other processes out of.
type disk struct {
	dir  string
	lock *os.File
}

var errInUse = errors.New("another process serves it")

func openDisk(dir string) (_ *disk, err error) {
	d := &disk{dir: dir}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	if d.lock, err = os.OpenFile(d.path("lock"), os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.lock.Close()
		}
	}()
	// A file system without locks serves all the same.
	if ok, err := filelock.Try(d.lock); !ok && err == nil {
		return nil, errInUse
	}
	// What an earlier process was receiving when it died is of no use.
	if err := os.RemoveAll(d.path("incoming")); err != nil {
		return nil, err
	}
	for _, sub := range []string{"blobs", "repos", "incoming"} {
		if err := os.MkdirAll(d.path(sub), 0o777); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *disk) path(key string) string { return filepath.Join(d.dir, filepath.FromSlash(key)) }

// finish puts a written temporary file under its name, or removes it.
func (d *disk) finish(f *os.File, err error, path string) error {
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o777)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// blobPath is where content is. Names come from requests, so anything but a hash
// gets a path where nothing is.
func (d *disk) blobPath(sha string) string {
	if !sha256Hex.MatchString(sha) {
		return d.path("blobs/none")
	}
	return d.path("blobs/" + sha[:2] + "/" + sha)
}

func (d *disk) load(key string) ([]byte, error) { return os.ReadFile(d.path(key)) }

func (d *disk) save(key string, data []byte) error {
	f, err := os.CreateTemp(d.path("incoming"), "record-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return d.finish(f, err, d.path(key))
}

func (d *disk) remove(prefix string) error { return os.RemoveAll(d.path(prefix)) }

func (d *disk) rename(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(d.path(to)), 0o777); err != nil {
		return err
	}
	return os.Rename(d.path(from), d.path(to))
}

func (d *disk) keys(prefix string) ([]string, error) {
	var keys []string
	err := filepath.WalkDir(d.path(prefix), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(d.dir, path)
		keys = append(keys, filepath.ToSlash(rel))
		return err
	})
	return keys, err
}

func (d *disk) openBlob(sha string) (io.ReadSeekCloser, int64, error) {
	f, err := os.Open(d.blobPath(sha))
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// removeBlobs removes those that unused says so of, given the time since they were
// written, and counts them.
func (d *disk) removeBlobs(unused func(sha string, age time.Duration) bool) (n int, err error) {
	err = filepath.WalkDir(d.path("blobs"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil || !unused(e.Name(), time.Since(info.ModTime())) {
			return err
		}
		n++
		return os.Remove(path)
	})
	return n, err
}

func (d *disk) createBlob() (pending, error) {
	f, err := os.CreateTemp(d.path("incoming"), "blob-")
	return &diskPending{File: f, d: d}, err
}

type diskPending struct {
	*os.File
	d      *disk
	closed bool
}

func (p *diskPending) keep(sha string) (err error) {
	if p.closed { // what is on the disk is asked of any descriptor
		if p.File, err = os.OpenFile(p.Name(), os.O_RDWR, 0); err != nil {
			return err
		}
	}
	return p.d.finish(p.File, nil, p.d.blobPath(sha))
}

func (p *diskPending) open() (io.ReadSeekCloser, error) {
	p.Close() // so that content which waits needs no descriptor
	p.closed = true
	return os.Open(p.Name())
}

func (p *diskPending) drop() {
	p.Close()
	os.Remove(p.Name())
}
