package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Download brings one file into the cache and returns its path there. A file that
// is already there at the revision's commit is not fetched again; if the Hub cannot
// be reached, the copy of the commit that the revision last meant is returned and
// logged as a warning. Errors unwrap to the package's sentinels.
func (c *Client) Download(ctx context.Context, r Repo, path string) (string, error) {
	if err := errors.Join(r.validate(), checkPath(path)); err != nil {
		return "", fmt.Errorf("downloading %q of %q: %w", path, r, err)
	}
	ctx = forDownload(ctx)
	s := c.store(r)
	cached, commit := "", r.revision()
	if !isCommit(commit) {
		commit, _ = s.readRef(commit)
	}
	if commit != "" && s.pointerOK(commit, path, "", -1) {
		cached = s.pointer(commit, path)
	}
	if cached != "" && isCommit(r.revision()) {
		return cached, nil // a commit never changes
	}
	if cached != "" {
		ctx := withAttempts(ctx, 1)
		m, err := c.stat(ctx, r, path)
		if err == nil {
			return c.downloadAt(ctx, s, m, path)
		}
		if !soft(err) || ctx.Err() != nil {
			return "", fmt.Errorf("downloading %q of %q: %w", path, r, err)
		}
		c.log.Warn("using the cached copy, which may be out of date", "file", path, "commit", commit, "reason", err)
		return cached, nil
	}
	m, err := c.statPatiently(ctx, r, path)
	if errors.Is(err, ErrEntry) && isCommit(m.commit) {
		// Best effort: it only saves Python a question.
		_ = errors.Join(s.markMissing(m.commit, path), s.writeRef(r.revision(), m.commit))
	}
	if err != nil {
		return "", fmt.Errorf("downloading: %w", err)
	}
	return c.downloadAt(ctx, s, m, path)
}

func (c *Client) downloadAt(ctx context.Context, s store, m metadata, path string) (string, error) {
	// A commit's listing, if it is here, knows what the metadata may lack.
	f := File{Path: path, Size: m.size, BlobID: m.etag}
	if sha256Hex.MatchString(m.etag) {
		f.SHA256 = m.etag
	}
	got, err := c.ensure(ctx, s, m.commit, f, m.location, false)
	if err != nil {
		return "", err
	}
	c.bestEffort("writing the ref", s.writeRef(s.repo.revision(), m.commit))
	return got.Path, nil
}

// soft tells failures for which a cached copy is a fair answer from those that say
// something about the revision itself, or that hiding would make harder to find.
func soft(err error) bool {
	for _, hard := range []error{ErrRevision, ErrEntry, ErrInvalid, ErrDamaged, errProxy, context.Canceled} {
		if errors.Is(err, hard) {
			return false
		}
	}
	var e *Error
	return errors.As(err, &e)
}

// bestEffort logs what may fail in a cache that cannot be written.
func (c *Client) bestEffort(what string, err error) {
	if err != nil {
		c.log.Debug(what+" failed", "error", err)
	}
}

// ensure brings one file of a commit into the snapshot, from the cache if it can.
// location is where the content is, if that is known already.
func (c *Client) ensure(ctx context.Context, s store, commit string, f File, location string, force bool) (PulledFile, error) {
	wrap := func(err error) error { return fmt.Errorf("downloading %q of %q: %w", f.Path, s.repo, err) }
	etag := f.ETag()
	if err := checkPath(f.Path); err != nil {
		return PulledFile{}, wrap(err)
	}
	got := PulledFile{Name: f.Path, Path: s.pointer(commit, f.Path), Size: f.Size, ETag: etag, SHA256: f.SHA256, Cached: true}
	if !force && s.pointerOK(commit, f.Path, etag, f.Size) {
		c.report(Event{File: f.Path, State: Skipped, Done: f.Size, Total: f.Size})
		return got, nil
	}
	if err := checkETag(etag); err != nil {
		return got, wrap(err)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "blobs"), 0o777); err != nil {
		return got, wrap(err)
	}
	c.bestEffort("marking the cache", writeCacheTag(s.root))
	l, err := lock(ctx, s.lockPath(etag), c.waiting(f))
	if err != nil {
		return got, wrap(err)
	}
	defer l.unlock()

	// Another process may have finished meanwhile, or another file has this content.
	if !force && s.blobOK(etag, f.Size) {
		if !s.pointerOK(commit, f.Path, etag, f.Size) {
			err = s.show(commit, f, false, c.noSymlinks)
		}
		c.report(Event{File: f.Path, State: Skipped, Done: f.Size, Total: f.Size})
		return got, wrapIf(err, wrap)
	}
	if !force && s.pointerOK(commit, f.Path, etag, f.Size) { // as a plain file
		return got, nil
	}
	p, err := openPartial(s.blob(etag), l.file != nil)
	if err != nil {
		return got, wrap(err)
	}
	src := &source{resolve: c.resolveURL(s.repo.at(commit), f.Path), etag: etag, size: f.Size, location: location}
	got.Fetched, err = c.complete(ctx, p, src, f, func(from string) error { return os.Rename(from, s.blob(etag)) })
	if err == nil {
		got.Cached, got.Size = false, p.pos
		err = s.show(commit, f, true, c.noSymlinks)
	}
	return got, wrapIf(err, wrap)
}

func wrapIf(err error, wrap func(error) error) error {
	if err == nil {
		return nil
	}
	return wrap(err)
}

// complete fills, verifies and publishes a partial file, and says how many bytes it
// fetched. On failure the file stays for the next run, unless its content is wrong.
func (c *Client) complete(ctx context.Context, p *partial, src *source, f File, rename func(string) error) (int64, error) {
	p.etag, p.size = src.etag, src.size
	p.tell = func(st State) { c.report(Event{File: f.Path, State: st, Done: p.pos, Total: p.size, Err: p.problem}) }
	err := p.rehash()
	if err == nil && newHash(p.etag, p.size) == nil && p.size >= 0 {
		c.log.Warn("the server's ETag is no hash; only the size can be checked", "file", f.Path, "etag", p.etag)
	}
	if free, ok := freeSpace(filepath.Dir(p.path)); err == nil && ok && p.size-p.pos > free {
		err = fmt.Errorf("%w: %q needs %d more bytes, %d are free", ErrSpace, filepath.Dir(p.path), p.size-p.pos, free)
	}
	if err == nil {
		err = explainXet(f, c.fill(ctx, p, src))
	}
	switch {
	case err == nil:
		return p.fetched, p.publish(rename)
	case errors.Is(err, ErrDamaged), p.pos == 0 && !p.mapped:
		p.discard()
	default:
		p.file.Close()
	}
	c.report(Event{File: f.Path, State: Failed, Done: p.pos, Total: p.size, Err: err})
	return p.fetched, err
}

// explainXet says why a listed file that the Hub keeps in Xet may have been refused. An answer with a code of the Hub,
// such as that of a gated repository, has another reason.
func explainXet(f File, err error) error {
	var e *Error
	if f.XetHash == "" || !errors.As(err, &e) || e.Status < 400 || e.Status >= 500 || e.Code != "" || retryableStatus(e.Status) {
		return err
	}
	return fmt.Errorf("%w; the Hub keeps the file in Xet and seems to serve it in no other way: the Hub's own client can read it", err)
}

// waiting reports that another process has a file's lock.
func (c *Client) waiting(f File) func(time.Duration) {
	return func(d time.Duration) {
		c.report(Event{File: f.Path, State: Waiting, Total: f.Size})
		c.log.Info("another process is downloading the file; waiting for it", "file", f.Path, "for", d)
	}
}
