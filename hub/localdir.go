package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// localDir is a plain directory with a repository's files in it. What is known
// about them is kept as Python keeps it:
//
//	<dir>/.cache/huggingface/.gitignore                   *
//	<dir>/.cache/huggingface/download/<path>.metadata     commit, ETag, time
//	<dir>/.cache/huggingface/download/<path>.lock
//	<dir>/.cache/huggingface/trees/<commit>.json
//
// Everything goes through root, so that no link in the directory leads a write out
// of it.
type localDir struct {
	c      *Client
	s      store
	commit string
	opts   PullOptions
	path   string
	root   *os.Root
}

const localMeta = ".cache/huggingface"

func (c *Client) openLocalDir(s store, commit string, opts PullOptions, files []File) (target, error) {
	abs, err := filepath.Abs(opts.LocalDir)
	if err != nil {
		return nil, err
	}
	t := &localDir{c: c, s: s, commit: commit, opts: opts, path: abs}
	for _, f := range files {
		if f.Path == localMeta || strings.HasPrefix(f.Path, localMeta+"/") {
			return nil, fmt.Errorf("%w: file name %q is where the directory's own records are", ErrDamaged, f.Path)
		}
	}
	if opts.DryRun {
		if t.root, err = os.OpenRoot(abs); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return t, err
	}
	if err := os.MkdirAll(abs, 0o777); err != nil {
		return nil, err
	}
	if err := checkCollisions(abs, files); err != nil {
		return nil, err
	}
	if t.root, err = os.OpenRoot(abs); err != nil {
		return nil, err
	}
	meta := filepath.Join(abs, filepath.FromSlash(localMeta))
	for _, sub := range []string{"/download", "/trees"} {
		if err := t.root.MkdirAll(localMeta+sub, 0o777); err != nil {
			return nil, t.escaped(err)
		}
	}
	if err := t.root.WriteFile(localMeta+"/.gitignore", []byte("*"), 0o666); err != nil {
		return nil, err
	}
	return t, writeCacheTag(meta)
}

// escaped explains the refusal of a link that leads out of the directory.
func (t *localDir) escaped(err error) error {
	if err != nil && strings.Contains(err.Error(), "escapes") {
		return fmt.Errorf("%w: a link in %q leads out of it: %v", ErrDamaged, t.path, err)
	}
	return err
}

func (t *localDir) dir() string { return t.path }

// bring makes one file current. A file that the user has changed is left alone and
// reported unless Force says otherwise.
func (t *localDir) bring(ctx context.Context, f File) (PulledFile, error) {
	got, err := t.tryBring(ctx, f)
	if err != nil {
		return got, fmt.Errorf("downloading %q to %q: %w", f.Path, t.path, t.escaped(err))
	}
	return got, nil
}

func (t *localDir) tryBring(ctx context.Context, f File) (PulledFile, error) {
	got := PulledFile{Name: f.Path, Path: filepath.Join(t.path, filepath.FromSlash(f.Path)), Size: f.Size, ETag: f.ETag(), SHA256: f.SHA256, Cached: true}
	if t.root == nil { // a dry run into a directory that does not exist yet
		got.Cached = false
		return got, nil
	}
	var l *fileLock
	if !t.opts.DryRun {
		for _, dir := range []string{path.Dir(f.Path), path.Dir(localMeta + "/download/" + f.Path)} {
			if err := t.root.MkdirAll(filepath.FromSlash(dir), 0o777); err != nil {
				return got, err
			}
		}
		var err error
		if l, err = lock(ctx, t.metaPath(f, ".lock"), t.c.waiting(f)); err != nil {
			return got, err
		}
		defer l.unlock()
	}
	state, err := t.state(f)
	if err != nil {
		return got, err
	}
	if t.opts.DryRun {
		got.Cached, got.Kept = state == current, state == changed && !t.opts.Force
		return got, nil
	}
	switch {
	case state == current && !t.opts.Force:
		t.c.report(Event{File: f.Path, State: Skipped, Done: f.Size, Total: f.Size})
	case state == changed && !t.opts.Force:
		t.c.log.Warn("the file was changed here and is left alone; force the pull to overwrite it", "file", got.Path)
		t.c.report(Event{File: f.Path, State: Skipped, Done: f.Size, Total: f.Size})
		got.Kept = true
		return got, nil
	default:
		if err := t.write(ctx, f, &got, l.file != nil); err != nil {
			return got, err
		}
	}
	if got.SHA256 == "" {
		if got.SHA256, err = fileSHA256(got.Path); err != nil {
			return got, err
		}
	}
	return got, t.writeMetadata(f)
}

// write puts the content in place: copied from the cache if it is there, else
// fetched.
func (t *localDir) write(ctx context.Context, f File, got *PulledFile, locked bool) error {
	etag := f.ETag()
	if err := checkETag(etag); err != nil {
		return err
	}
	name := filepath.FromSlash(f.Path)
	stem := filepath.Join(filepath.Dir(t.metaPath(f, "")), shortHash(path.Base(f.Path)+".metadata")+"."+etag)
	rename := func(from string) error {
		rel, err := filepath.Rel(t.path, from)
		if err != nil {
			return err
		}
		return t.root.Rename(rel, name)
	}
	if !t.opts.Force && t.s.blobOK(etag, f.Size) {
		if err := t.copyBlob(stem, f, rename); !errors.Is(err, ErrDamaged) {
			return err
		}
		t.c.log.Warn("the cached content is damaged; fetching it again", "blob", t.s.blob(etag))
	}
	p, err := openPartial(stem, locked)
	if err != nil {
		return err
	}
	src := &source{resolve: t.c.resolveURL(t.s.repo.at(t.commit), f.Path), etag: etag, size: f.Size}
	got.Cached = false
	got.Fetched, err = t.c.complete(ctx, p, src, f, rename)
	return err
}

// copyBlob takes the content from the cache, hashing it on the way.
func (t *localDir) copyBlob(stem string, f File, rename func(string) error) error {
	from, err := os.Open(t.s.blob(f.ETag()))
	if err != nil {
		return err
	}
	defer from.Close()
	p, err := openPartial(stem, false)
	if err != nil {
		return err
	}
	p.etag, p.size = f.ETag(), f.Size
	p.tell = func(State) { t.c.report(Event{File: f.Path, State: Checking, Done: p.pos, Total: f.Size}) }
	if err := p.copyFrom(from); err != nil {
		return err
	}
	t.c.report(Event{File: f.Path, State: Skipped, Done: f.Size, Total: f.Size})
	return p.publish(rename)
}
