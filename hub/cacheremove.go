package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Removal is what would be deleted from a cache; nothing is until Run.
type Removal struct {
	Repos     []string // repositories that go altogether
	Revisions []string // repository and commit
	Freed     int64    // bytes
	paths     []string // in the order of deletion: what shows content before content
	partial   []string // files in flight, kept if a process works on them
}

// PlanRemoval says what removing repositories, or the revision that a Repo names,
// deletes. A revision is a ref, a commit or the beginning of one. Content that
// another revision shows stays. A target that is not in the cache is ErrNotFound or
// ErrRevision.
func (c *CacheReport) PlanRemoval(targets ...Repo) (*Removal, error) {
	gone := make([]map[string]bool, len(c.Repos)) // by repository, then commit
	for _, t := range targets {
		i := slices.IndexFunc(c.Repos, func(r CachedRepo) bool { return r.Repo.kind() == t.kind() && r.Repo.ID == t.ID })
		if i < 0 {
			return nil, fmt.Errorf("removing %q from the cache: %w there", t, ErrNotFound)
		}
		if gone[i] == nil {
			gone[i] = map[string]bool{}
		}
		found := t.Revision == ""
		for _, rev := range c.Repos[i].Revisions {
			if rev.means(t.Revision) {
				gone[i][rev.Commit], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("removing %q from the cache: %w there", t, ErrRevision)
		}
	}
	plan := &Removal{}
	for i, commits := range gone {
		if commits != nil {
			plan.add(c.Repos[i], commits)
		}
	}
	return plan, nil
}

// means tells whether a revision, as a user gives it, is this one; "" is any.
func (rev CachedRevision) means(revision string) bool {
	return revision == "" || slices.Contains(rev.Refs, revision) || len(revision) >= 6 && strings.HasPrefix(rev.Commit, revision)
}

// PlanPrune says what is not needed: revisions that no ref means any more, and
// files that runs which died have left. Files that are being downloaded stay.
func (c *CacheReport) PlanPrune() *Removal {
	plan := &Removal{}
	for _, r := range c.Repos {
		gone := map[string]bool{}
		for _, rev := range r.Revisions {
			if len(rev.Refs) == 0 {
				gone[rev.Commit] = true
			}
		}
		if len(gone) > 0 {
			plan.add(r, gone)
		}
		if len(gone) < len(r.Revisions) || len(r.Revisions) == 0 {
			for _, p := range r.Partial {
				if info, err := os.Stat(p); err == nil && !beingWritten(p) {
					plan.Freed += info.Size()
					plan.partial = append(plan.partial, p)
				}
			}
		}
	}
	return plan
}

// add plans the removal of some revisions of a repository; of all, the repository.
func (p *Removal) add(r CachedRepo, gone map[string]bool) {
	if len(gone) == len(r.Revisions) {
		p.Repos = append(p.Repos, r.Repo.String())
		p.paths = append(p.paths, r.Dir)
		p.Freed += r.Size
		return
	}
	kept := map[string]bool{}
	for _, rev := range r.Revisions {
		if !gone[rev.Commit] {
			for path := range rev.blobs {
				kept[path] = true
			}
		}
	}
	var snapshots, refs, blobs []string
	for _, rev := range r.Revisions {
		if !gone[rev.Commit] {
			continue
		}
		p.Revisions = append(p.Revisions, r.Repo.at(rev.Commit).String())
		snapshots = append(snapshots, rev.Dir)
		for _, ref := range rev.Refs {
			refs = append(refs, filepath.Join(r.Dir, "refs", filepath.FromSlash(ref)))
		}
		for path, size := range rev.blobs {
			if kept[path] {
				continue
			}
			kept[path] = true // once, if two revisions that go share it
			// Content in the store that repositories share is Python's to remove; only
			// the link to it goes.
			if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
				p.Freed += size
			}
			if filepath.Dir(path) == filepath.Join(r.Dir, "blobs") {
				blobs = append(blobs, path)
			}
		}
	}
	p.paths = slices.Concat(p.paths, snapshots, refs, blobs)
}

// Empty tells that there is nothing to remove.
func (p *Removal) Empty() bool { return len(p.paths)+len(p.partial) == 0 }

// Run deletes what was planned. It goes on after a failure and returns all.
func (p *Removal) Run() error {
	var errs []error
	for _, path := range p.paths {
		if err := removeTree(path); err != nil {
			errs = append(errs, err)
		}
	}
	for _, path := range p.partial {
		if !beingWritten(path) {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing from the cache: %w", err)
	}
	return nil
}

// removeTree takes a repository's folder out of sight at once, so that a download
// that is running in it fails instead of mixing with what is left, and then deletes
// it. Other paths are just deleted.
func removeTree(path string) error {
	cache := filepath.Dir(path)
	if _, isRepo := repoOfFolder(filepath.Base(path)); isRepo {
		aside := filepath.Join(cache, ".locks", "removed-"+randomName())
		if os.MkdirAll(filepath.Dir(aside), 0o777) == nil && os.Rename(path, aside) == nil {
			path = aside
		}
	}
	return os.RemoveAll(path)
}

// beingWritten tells whether a process has a file in flight locked.
func beingWritten(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	ok, err := tryLock(f)
	return !ok && err == nil
}
