package hubserve

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// storage keeps records, which are small and replaced as a whole, and blobs, which
// are named by their SHA-256 and never change.
type storage interface {
	load(key string) ([]byte, error) // fs.ErrNotExist if there is none
	save(key string, data []byte) error
	remove(prefix string) error // the record, or all below it
	rename(from, to string) error
	keys(prefix string) ([]string, error) // of records, sorted
	openBlob(sha256 string) (io.ReadSeekCloser, int64, error)
	createBlob() (pending, error)
}

// pending is content on its way in. It exists for others after keep, and keep or
// drop must be called. Before that, what has been written can be read with open,
// after which nothing more may be written.
type pending interface {
	io.Writer
	open() (io.ReadSeekCloser, error)
	keep(sha256 string) error
	drop()
}

// blob identifies content.
type blob struct {
	SHA256 string `json:"sha256"`
	Git    string `json:"git,omitempty"` // git's blob id; unknown for what came through LFS
	Size   int64  `json:"size"`
}

// store copies r into the storage. want, if not empty, is the SHA-256 that the
// content must have.
func store(st storage, r io.Reader, want string) (blob, error) {
	p, err := st.createBlob()
	if err != nil {
		return blob{}, err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(p, h), r)
	if err != nil {
		p.drop()
		return blob{}, err
	}
	b := blob{SHA256: hex.EncodeToString(h.Sum(nil)), Size: n}
	if want != "" && b.SHA256 != want {
		p.drop()
		return blob{}, fmt.Errorf("%w: content has SHA-256 %s, not %s", errMismatch, b.SHA256, want)
	}
	return b, p.keep(b.SHA256)
}

var errMismatch = errors.New("wrong content")

// gitID is git's name for content of a known size.
func gitID(size int64, r io.Reader) (string, error) {
	h := gitHash(size)
	_, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), err
}

func gitHash(size int64) hash.Hash {
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", size)
	return h
}

// blobGitID reads a blob once to learn its git id.
func blobGitID(st storage, b blob) (string, error) {
	if b.Git != "" {
		return b.Git, nil
	}
	f, size, err := st.openBlob(b.SHA256)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return gitID(size, f)
}

// memory is a storage that ends with the process.
type memory struct {
	mu      sync.RWMutex
	records map[string][]byte
	blobs   map[string][]byte
}

func newMemory() *memory {
	return &memory{records: map[string][]byte{}, blobs: map[string][]byte{}}
}

func (m *memory) load(key string) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	data, ok := m.records[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

func (m *memory) save(key string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records[key] = slices.Clone(data)
	return nil
}

func (m *memory) remove(prefix string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.records {
		if key == prefix || strings.HasPrefix(key, prefix+"/") {
			delete(m.records, key)
		}
	}
	return nil
}

func (m *memory) rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, data := range m.records {
		if rest, ok := strings.CutPrefix(key, from+"/"); ok {
			delete(m.records, key)
			m.records[to+"/"+rest] = data
		}
	}
	return nil
}

func (m *memory) keys(prefix string) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var keys []string
	for key := range m.records {
		if strings.HasPrefix(key, prefix+"/") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (m *memory) openBlob(sha string) (io.ReadSeekCloser, int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	data, ok := m.blobs[sha]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return memoryBlob{bytes.NewReader(data)}, int64(len(data)), nil
}

type memoryBlob struct{ *bytes.Reader }

func (memoryBlob) Close() error { return nil }

func (m *memory) createBlob() (pending, error) { return &memoryPending{m: m}, nil }

type memoryPending struct {
	bytes.Buffer
	m *memory
}

func (p *memoryPending) keep(sha string) error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.m.blobs[sha] = p.Bytes()
	return nil
}

func (p *memoryPending) open() (io.ReadSeekCloser, error) {
	return memoryBlob{bytes.NewReader(p.Bytes())}, nil
}

func (p *memoryPending) drop() {}

// disk is a storage in a directory.
type disk struct{ dir string }

func openDisk(dir string) (*disk, error) {
	d := &disk{dir}
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

func (d *disk) load(key string) ([]byte, error) { return os.ReadFile(d.path(key)) }

func (d *disk) save(key string, data []byte) error {
	f, err := os.CreateTemp(d.path("incoming"), "record-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return d.finish(f, err, d.path(key))
}

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

// blobPath is where content is. Names come from requests, so anything but a hash
// gets a path where nothing is.
func (d *disk) blobPath(sha string) string {
	if !sha256Hex.MatchString(sha) {
		return d.path("blobs/none")
	}
	return d.path("blobs/" + sha[:2] + "/" + sha)
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

func (d *disk) createBlob() (pending, error) {
	f, err := os.CreateTemp(d.path("incoming"), "blob-")
	return &diskPending{f, d}, err
}

type diskPending struct {
	*os.File
	d *disk
}

func (p *diskPending) keep(sha string) error { return p.d.finish(p.File, nil, p.d.blobPath(sha)) }

func (p *diskPending) open() (io.ReadSeekCloser, error) {
	p.Close() // so that content which waits needs no descriptor
	return os.Open(p.Name())
}

func (p *diskPending) drop() {
	p.Close()
	os.Remove(p.Name())
}
