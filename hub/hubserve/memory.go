package hubserve

import (
	"bytes"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

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

func (m *memory) createBlob() (pending, error) { return &memoryPending{m: m}, nil }

type memoryBlob struct{ *bytes.Reader }

func (memoryBlob) Close() error { return nil }

type memoryPending struct {
	bytes.Buffer
	m *memory
}

func (p *memoryPending) WriteAt(b []byte, off int64) (int, error) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if missing := off + int64(len(b)) - int64(p.Len()); missing > 0 {
		p.Write(make([]byte, missing))
	}
	return copy(p.Bytes()[off:], b), nil
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
