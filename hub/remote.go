package hub

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
	"sync/atomic"
)

// headBytes are fetched at once when something near the beginning of a file is
// read: the header of a safetensors file with some hundred tensors.
const headBytes = 64 << 10

// A Remote is a repository at a commit whose files are read where they are, in
// ranges: nothing of them is stored on this disk. It is safe for concurrent use.
type Remote struct {
	Repo  Repo // its revision is the commit
	Files []File

	c       *Client
	store   store
	fetched atomic.Int64
}

// Remote finds out which commit a repository's revision names and what it holds.
// Errors unwrap to the package's sentinels; without the Hub there is no Remote,
// whatever the cache has.
func (c *Client) Remote(ctx context.Context, r Repo) (*Remote, error) {
	wrap := func(err error) error { return fmt.Errorf("reading %q: %w", r, err) }
	if err := r.validate(); err != nil {
		return nil, wrap(err)
	}
	if c.offline {
		return nil, wrap(ErrOffline)
	}
	s := c.store(r)
	commit, files, err := c.resolve(ctx, s, PullOptions{NoCacheFallback: true})
	if err != nil {
		return nil, wrap(err)
	}
	for _, f := range files {
		if err := errors.Join(checkPath(f.Path), checkETag(f.ETag())); err != nil {
			return nil, wrap(err)
		}
	}
	return &Remote{Repo: r.at(commit), Files: files, c: c, store: s}, nil
}

// Fetched is how many bytes of files came over the network.
func (r *Remote) Fetched() int64 { return r.fetched.Load() }

// Names lists the files.
func (r *Remote) Names() []string {
	list := make([]string, len(r.Files))
	for i, f := range r.Files {
		list[i] = f.Path
	}
	return list
}

// Cached returns where the cache has a file, if it does.
func (r *Remote) Cached(name string) (path string, ok bool) {
	f, ok := r.find(name)
	if !ok || !r.store.pointerOK(r.Repo.Revision, name, f.ETag(), f.Size) {
		return "", false
	}
	return r.store.pointer(r.Repo.Revision, name), true
}

func (r *Remote) find(name string) (File, bool) {
	i := slices.IndexFunc(r.Files, func(f File) bool { return f.Path == name })
	if i < 0 {
		return File{}, false
	}
	return r.Files[i], true
}

// Open returns a file to read; an unknown name is ErrEntry. Nothing is asked of
// the Hub before the first read. The context is that of all reads.
func (r *Remote) Open(ctx context.Context, name string) (*RemoteFile, error) {
	f, ok := r.find(name)
	if !ok {
		return nil, fmt.Errorf("opening %q of %q: %w", name, r.Repo, ErrEntry)
	}
	src := &source{resolve: r.c.resolveURL(r.Repo, name), etag: f.ETag(), size: f.Size, pinned: true}
	return &RemoteFile{File: f, remote: r, ctx: forDownload(ctx), src: src}, nil
}

// A RemoteFile is a file on the Hub as an [io.ReaderAt]. Every read is one request
// for a range, or several at a time if it is long, which are tried again like all
// requests of the client. The address that the Hub redirects to is used until it
// expires. Reads are safe for concurrent use.
//
// Errors unwrap to ErrChanged if an answer is about other content than the
// listing's, to ErrNoRanges, or to what the client's other requests give.
type RemoteFile struct {
	File
	remote *Remote
	ctx    context.Context // io.ReaderAt has none
	src    *source

	mu   sync.Mutex // held while head is fetched
	head []byte
}

// Hash returns a new hash of the kind that the Hub names the content by, and that
// name; nil if the name is no hash. Ranges cannot be checked by themselves: a reader
// of the whole file can.
func (f *RemoteFile) Hash() (h hash.Hash, want string) {
	return newHash(f.ETag(), f.Size), f.ETag()
}

// ReadAt fills p with the content from offset off on.
func (f *RemoteFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("reading %q: %w: offset %d", f.Path, ErrInvalid, off)
	}
	want := p[:max(0, min(int64(len(p)), f.Size-off))]
	if n, err = f.readHead(want, off); err == nil && n < len(want) {
		err = f.fetch(want[n:], off+int64(n))
	}
	if err != nil {
		return 0, fmt.Errorf("reading %q of %q: %w", f.Path, f.remote.Repo, err)
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// readHead copies what p wants of the first bytes, which it fetches for a reader
// that begins with few of them.
func (f *RemoteFile) readHead(p []byte, off int64) (int, error) {
	size := min(headBytes, f.Size)
	if off >= size {
		return 0, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.head == nil {
		if off+int64(len(p)) > size {
			return 0, nil
		}
		head := make([]byte, size)
		if err := f.fetch(head, 0); err != nil {
			return 0, err
		}
		f.head = head
	}
	return copy(p, f.head[off:]), nil
}

// fetch fills p with content from an offset on, in ranges of the client's size.
func (f *RemoteFile) fetch(p []byte, off int64) error {
	c := f.remote.c
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	for part := range slices.Chunk(p, int(c.partSize)) {
		from := off
		off += int64(len(part))
		parts.Go(func() {
			if err := f.fetchPart(ctx, part, from); err != nil {
				cancel(err)
			}
		})
	}
	parts.Wait()
	return context.Cause(ctx)
}

func (f *RemoteFile) fetchPart(ctx context.Context, p []byte, from int64) error {
	c := f.remote.c
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	pt := &part{from: from, to: from + int64(len(p)), into: &memory{p}, done: make(chan struct{})}
	c.fetchPart(ctx, pt, f.src)
	f.remote.fetched.Add(pt.have)
	return pt.err
}
