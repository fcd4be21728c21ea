package hub

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A bundle is a tar file for machines without a network. Its first entry,
// hub.lock.json, names every repository, commit and file; the entries after it are
// the contents, blobs/<etag>, each once.
const (
	lockName    = "hub.lock.json"
	lockVersion = 1
	maxLock     = 64 << 20
)

// Lock says exactly what a bundle holds.
type Lock struct {
	Version int          `json:"format_version"`
	Repos   []LockedRepo `json:"repos"`
}

// LockedRepo is one snapshot of a bundle.
type LockedRepo struct {
	Type     RepoType     `json:"type"`
	ID       string       `json:"id"`
	Revision string       `json:"revision"`
	Commit   string       `json:"commit"`
	Files    []LockedFile `json:"files"`
}

// LockedFile is one file of a bundle.
type LockedFile struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
	ETag string `json:"etag"`
}

// Pack pulls repositories and writes them to w as one bundle. The same commits give
// the same bytes.
func (c *Client) Pack(ctx context.Context, w io.Writer, repos []Repo, opts PullOptions) (*Lock, error) {
	if opts.LocalDir != "" || opts.DryRun {
		return nil, fmt.Errorf("packing: %w: a bundle is made from the cache", ErrInvalid)
	}
	lock := &Lock{Version: lockVersion}
	content := map[string]PulledFile{}
	for _, r := range repos {
		snap, err := c.Pull(ctx, r, opts)
		if err != nil {
			return nil, fmt.Errorf("packing: %w", err)
		}
		one := LockedRepo{Type: r.kind(), ID: r.ID, Revision: r.revision(), Commit: snap.Commit}
		for _, f := range snap.Files {
			if err := checkETag(f.ETag); err != nil {
				return nil, fmt.Errorf("packing %q: %w", f.Path, err)
			}
			one.Files = append(one.Files, LockedFile{f.Name, f.Size, f.ETag})
			content[f.ETag] = f
		}
		lock.Repos = append(lock.Repos, one)
	}
	text, err := json.MarshalIndent(lock, "", "  ")
	if err != nil {
		return nil, err
	}
	out := tar.NewWriter(w)
	header := func(name string, size int64) error {
		return out.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, Format: tar.FormatPAX})
	}
	if err := header(lockName, int64(len(text))); err != nil {
		return nil, fmt.Errorf("packing: %w", err)
	}
	if _, err := out.Write(text); err != nil {
		return nil, fmt.Errorf("packing: %w", err)
	}
	etags := make([]string, 0, len(content))
	for etag := range content {
		etags = append(etags, etag)
	}
	slices.Sort(etags)
	for _, etag := range etags {
		f := content[etag]
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := header("blobs/"+etag, f.Size); err != nil {
			return nil, fmt.Errorf("packing %q: %w", f.Name, err)
		}
		if err := copyInto(out, f.Path); err != nil {
			return nil, fmt.Errorf("packing %q: %w", f.Name, err)
		}
	}
	if err := out.Close(); err != nil {
		return nil, fmt.Errorf("packing: %w", err)
	}
	return lock, nil
}

func copyInto(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// Unpack fills the cache from a bundle, with the same checks as a download: names
// must stay inside, and content must have its hash. It makes no request. A bundle
// that is not what its lock says is ErrDamaged.
func (c *Client) Unpack(ctx context.Context, r io.Reader) ([]Snapshot, error) {
	snaps, err := c.unpack(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("unpacking: %w", err)
	}
	return snaps, nil
}

func (c *Client) unpack(ctx context.Context, r io.Reader) ([]Snapshot, error) {
	in := tar.NewReader(r)
	l, err := readLock(in)
	if err != nil {
		return nil, err
	}
	// A content may be needed in several repositories; it comes once.
	wanted := map[string][]LockedRepo{}
	sizes := map[string]int64{}
	for _, one := range l.Repos {
		for _, f := range one.Files {
			if old, ok := sizes[f.ETag]; ok && old != f.Size {
				return nil, fmt.Errorf("%w: the lock gives content %s two sizes", ErrDamaged, f.ETag)
			}
			sizes[f.ETag] = f.Size
			if n := len(wanted[f.ETag]); n == 0 || wanted[f.ETag][n-1].folder() != one.folder() {
				wanted[f.ETag] = append(wanted[f.ETag], one)
			}
		}
	}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		etag, ok := strings.CutPrefix(h.Name, "blobs/")
		if size, known := sizes[etag]; !ok || !known || h.Size != size || h.Typeflag != tar.TypeReg {
			return nil, fmt.Errorf("%w: entry %q is not in the lock", ErrDamaged, h.Name)
		}
		if err := c.unpackBlob(ctx, in, etag, h.Size, wanted[etag]); err != nil {
			return nil, fmt.Errorf("content %s: %w", etag, err)
		}
	}
	var snaps []Snapshot
	for _, one := range l.Repos {
		snap, err := c.unpackSnapshot(one)
		if err != nil {
			return nil, err
		}
		snaps = append(snaps, snap)
	}
	return snaps, nil
}

func (o LockedRepo) repo() Repo     { return Repo{o.Type, o.ID, o.Revision} }
func (o LockedRepo) folder() string { return o.repo().folder() }

func readLock(in *tar.Reader) (*Lock, error) {
	h, err := in.Next()
	if err != nil || h.Name != lockName || h.Size > maxLock {
		return nil, fmt.Errorf("%w: the file does not begin with %s; is it a bundle?", ErrDamaged, lockName)
	}
	var l Lock
	if err := json.NewDecoder(in).Decode(&l); err != nil {
		return nil, fmt.Errorf("%w: reading %s: %w", ErrDamaged, lockName, err)
	}
	if l.Version != lockVersion {
		return nil, fmt.Errorf("%w: bundle format %d is not known here; use a newer hubtool", ErrDamaged, l.Version)
	}
	for _, one := range l.Repos {
		if err := one.repo().validate(); err != nil || !isCommit(one.Commit) {
			return nil, fmt.Errorf("%w: the lock names repository %q at commit %q", ErrDamaged, one.ID, one.Commit)
		}
		for _, f := range one.Files {
			if err := errors.Join(checkPath(f.Path), checkETag(f.ETag)); err != nil {
				return nil, err
			}
		}
	}
	return &l, nil
}

// unpackBlob puts one content into every repository that needs it.
func (c *Client) unpackBlob(ctx context.Context, in io.Reader, etag string, size int64, repos []LockedRepo) error {
	var from string
	for _, one := range repos {
		s := c.store(one.repo())
		if s.blobOK(etag, size) {
			from = s.blob(etag)
		}
	}
	for _, one := range repos {
		s := c.store(one.repo())
		if s.blobOK(etag, size) {
			continue
		}
		if err := os.MkdirAll(filepath.Join(s.dir, "blobs"), 0o777); err != nil {
			return err
		}
		if from != "" {
			if err := copyFile(from, s.blob(etag)); err != nil {
				return err
			}
			continue
		}
		held, err := lock(ctx, s.lockPath(etag), c.waiting(File{Path: etag, Size: size}))
		if err != nil {
			return err
		}
		err = c.receiveBlob(in, s, etag, size)
		held.unlock()
		if err != nil {
			return err
		}
		from = s.blob(etag)
	}
	return nil
}

func (c *Client) receiveBlob(in io.Reader, s store, etag string, size int64) error {
	p, err := openPartial(s.blob(etag), false)
	if err != nil {
		return err
	}
	p.etag, p.size = etag, size
	p.tell = func(st State) { c.report(Event{File: etag, State: st, Done: p.pos, Total: size}) }
	if err := p.copyFrom(in); err != nil {
		return err
	}
	return p.publish(func(from string) error { return os.Rename(from, s.blob(etag)) })
}

// unpackSnapshot links the files of one repository, once its content is there.
func (c *Client) unpackSnapshot(one LockedRepo) (Snapshot, error) {
	s := c.store(one.repo())
	snap := Snapshot{Repo: one.repo(), Commit: one.Commit, Dir: s.snapshot(one.Commit)}
	if err := os.MkdirAll(snap.Dir, 0o777); err != nil {
		return snap, err
	}
	c.bestEffort("marking the cache", writeCacheTag(s.root))
	for _, f := range one.Files {
		if !s.pointerOK(one.Commit, f.Path, f.ETag, f.Size) {
			if !s.blobOK(f.ETag, f.Size) {
				return snap, fmt.Errorf("%w: the bundle lacks the content of %q", ErrDamaged, f.Path)
			}
			if err := s.link(one.Commit, f.Path, f.ETag, false, c.noSymlinks); err != nil {
				return snap, err
			}
		}
		snap.Files = append(snap.Files, PulledFile{Name: f.Path, Path: s.pointer(one.Commit, f.Path), Size: f.Size, ETag: f.ETag, Cached: true})
	}
	return snap, s.writeRef(one.Revision, one.Commit)
}
