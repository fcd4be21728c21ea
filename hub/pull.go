package hub

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/hubtool/hubtool/internal/hashing"
)

// PullOptions select what Pull brings and where to. The zero value brings the whole
// repository into the cache.
type PullOptions struct {
	Include []string // wildcards as in Python's allow_patterns; * matches / too
	Exclude []string // taken away from what Include selects
	Files   []string // exact names, or folders with a trailing slash; each must exist

	LocalDir string // put plain files here instead of links into the cache
	Force    bool   // fetch again what is here; overwrite local changes in LocalDir
	DryRun   bool   // say what would be done; nothing is written

	// NoCacheFallback makes an unreachable Hub an error even if the cache could answer.
	NoCacheFallback bool
}

// Snapshot is a repository at a commit on this disk.
type Snapshot struct {
	Repo    Repo
	Commit  string
	Dir     string // holds the files under their names
	Files   []PulledFile
	Fetched int64 // body bytes that came over the network
}

// PulledFile is one file of a snapshot.
type PulledFile struct {
	Name    string // in the repository
	Path    string // on this disk
	Size    int64
	ETag    string // SHA-256 of LFS files, git's blob id of others
	SHA256  string // of the content; empty after a dry run for a file not in LFS
	Cached  bool   // nothing had to be fetched
	Kept    bool   // LocalDir has another content, which was left alone
	Fetched int64
}

// Pull brings the selected files of a repository to this disk and returns where
// they are. The revision is resolved once, so all files are of one commit. What is
// there already is not fetched; a file cut short by an earlier run is resumed.
//
// If the Hub cannot be asked, the cached snapshot of the revision is returned if it
// has every selected file, with a warning to the logger; offline that is the normal
// way. Errors unwrap to the package's sentinels; ErrEntry lists all names of Files
// that do not exist.
func (c *Client) Pull(ctx context.Context, r Repo, opts PullOptions) (*Snapshot, error) {
	snap, err := c.pull(ctx, r, opts)
	if err != nil {
		return nil, fmt.Errorf("pulling %q: %w", r, err)
	}
	return snap, nil
}

func (c *Client) pull(ctx context.Context, r Repo, opts PullOptions) (_ *Snapshot, err error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	if opts.Force && c.offline {
		return nil, fmt.Errorf("%w: fetching again is impossible offline", ErrInvalid)
	}
	ctx = forDownload(ctx)
	s := c.store(r)
	commit, all, err := c.resolve(ctx, s, opts)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		// All names before any write, also of files that the patterns leave out.
		if err := f.check(); err != nil {
			return nil, err
		}
	}
	files, err := selectFiles(all, opts)
	if errors.Is(err, ErrEntry) && !opts.DryRun && opts.LocalDir == "" && listed(all) {
		c.bestEffort("noting what is missing", s.markAllMissing(commit, all, opts.Files))
	}
	if err != nil {
		return nil, err
	}
	t, err := c.target(s, commit, opts, files)
	if err != nil {
		return nil, err
	}
	if _, known := readTree(treeDir(s, opts), commit); !known && !opts.DryRun && listed(all) {
		c.bestEffort("saving the listing", writeTree(treeDir(s, opts), commit, all))
		defer func() {
			// A listing that led to this may be wrong itself.
			if errors.Is(err, ErrDamaged) || errors.Is(err, ErrSpace) {
				c.bestEffort("removing the listing", os.Remove(treePath(treeDir(s, opts), commit)))
			}
		}()
	}
	snap := &Snapshot{Repo: r, Commit: commit, Dir: t.dir(), Files: make([]PulledFile, len(files))}
	if err := c.each(ctx, len(files), func(ctx context.Context, i int) (err error) {
		snap.Files[i], err = t.bring(ctx, files[i])
		return err
	}); err != nil {
		return nil, err
	}
	for _, f := range snap.Files {
		snap.Fetched += f.Fetched
		if _, err := os.Stat(f.Path); err != nil && !opts.DryRun {
			return nil, fmt.Errorf("%q: %w", f.Name, errRemoved)
		}
	}
	if !opts.DryRun && opts.LocalDir == "" {
		// Last, so that a ref never names a commit that is not here. Best effort: the
		// cache may be read-only.
		c.bestEffort("creating the snapshot", os.MkdirAll(s.snapshot(commit), 0o777))
		c.bestEffort("writing the ref", s.writeRef(r.revision(), commit))
	}
	return snap, nil
}

// each runs work for 0 … n-1, as many at a time as the client has jobs, and stops
// at the first error.
func (c *Client) each(ctx context.Context, n int, work func(context.Context, int) error) error {
	return each(ctx, c.jobs, n, work)
}

func each(ctx context.Context, jobs, n int, work func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(n, jobs) {
		wg.Go(func() {
			for i := range next {
				if err := work(ctx, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// A target is where Pull puts files: the cache or a plain directory.
type target interface {
	dir() string
	bring(ctx context.Context, f File) (PulledFile, error)
}

func (c *Client) target(s store, commit string, opts PullOptions, files []File) (target, error) {
	if opts.LocalDir != "" {
		return c.openLocalDir(s, commit, opts, files)
	}
	if !opts.DryRun {
		if err := os.MkdirAll(s.snapshot(commit), 0o777); err == nil {
			err = checkCollisions(s.snapshot(commit), files)
			if err != nil {
				return nil, err
			}
		}
	}
	return &cacheTarget{c, s, commit, opts}, nil
}

type cacheTarget struct {
	c      *Client
	s      store
	commit string
	opts   PullOptions
}

func (t *cacheTarget) dir() string { return t.s.snapshot(t.commit) }

func (t *cacheTarget) bring(ctx context.Context, f File) (PulledFile, error) {
	if t.opts.DryRun {
		cached := t.s.pointerOK(t.commit, f.Path, f.ETag(), f.Size) || t.s.blobOK(f.ETag(), f.Size)
		return PulledFile{Name: f.Path, Path: t.s.pointer(t.commit, f.Path), Size: f.Size, ETag: f.ETag(), SHA256: f.SHA256, Cached: cached && !t.opts.Force}, nil
	}
	got, err := t.c.ensure(ctx, t.s, t.commit, f, "", t.opts.Force)
	if err == nil && got.SHA256 == "" {
		got.SHA256, err = fileSHA256(got.Path)
	}
	return got, err
}

// fileSHA256 hashes a file; the ones that are not in LFS are small.
func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := hashing.NewSHA256()
	if _, err := io.Copy(h, f); err != nil {
		return "", errors.Join(fmt.Errorf("hashing %q", path), err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
