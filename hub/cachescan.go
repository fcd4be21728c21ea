package hub

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// CacheReport is what a cache holds.
type CacheReport struct {
	Dir      string
	Repos    []CachedRepo // by size, largest first
	Size     int64        // bytes on disk; content that several revisions share counts once
	Warnings []error      // what is in the cache's directory and not understood; left alone
}

// CachedRepo is one repository of a cache.
type CachedRepo struct {
	Repo      Repo // without a revision
	Dir       string
	Size      int64
	Revisions []CachedRevision // newest first
	Modified  time.Time
	Partial   []string // files in flight, or left by a run that died
	Broken    []string // snapshot entries that lead nowhere
}

// CachedRevision is one commit of a cached repository.
type CachedRevision struct {
	Commit   string
	Dir      string
	Refs     []string // revisions that mean it here
	Size     int64
	Files    int
	Modified time.Time

	blobs map[string]int64 // path in the repository's folder → bytes of content
}

// ignoredInCache are names that are no repositories and no cause for a warning.
var ignoredInCache = []string{".locks", "hubtool-merges", "hubtool-records", "CACHEDIR.TAG", ".DS_Store", "Thumbs.db", "desktop.ini"}

// ScanCache lists the cache. Nothing is read but directories; no request is made.
func (c *Client) ScanCache() (*CacheReport, error) {
	report := &CacheReport{Dir: c.cacheDir}
	entries, err := os.ReadDir(c.cacheDir)
	if errors.Is(err, os.ErrNotExist) {
		return report, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the cache: %w", err)
	}
	for _, e := range entries {
		if slices.Contains(ignoredInCache, e.Name()) || isSharedStore(filepath.Join(c.cacheDir, e.Name())) {
			continue
		}
		r, ok := repoOfFolder(e.Name())
		if !ok {
			if !strings.HasPrefix(e.Name(), "kernels--") {
				report.Warnings = append(report.Warnings, fmt.Errorf("%q is no repository's folder", filepath.Join(c.cacheDir, e.Name())))
			}
			continue
		}
		one, err := c.store(r).scan()
		if err != nil {
			report.Warnings = append(report.Warnings, err)
			continue
		}
		report.Repos = append(report.Repos, one)
		report.Size += one.Size
	}
	slices.SortFunc(report.Repos, func(a, b CachedRepo) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Dir, b.Dir))
	})
	return report, nil
}

// isSharedStore recognises the folder of content that Python shares between
// repositories.
func isSharedStore(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, ".huggingface-shared-blobs"))
	return err == nil
}

// repoOfFolder reads a folder's name such as models--owner--name.
func repoOfFolder(folder string) (Repo, bool) {
	plural, rest, _ := strings.Cut(folder, "--")
	t, err := ParseRepoType(plural)
	r := Repo{Type: t, ID: strings.Replace(rest, "--", "/", 1)}
	return r, err == nil && strings.HasSuffix(plural, "s") && r.validate() == nil
}

func (s store) scan() (CachedRepo, error) {
	one := CachedRepo{Repo: s.repo, Dir: s.dir}
	refs := s.refs()
	commits, err := os.ReadDir(filepath.Join(s.dir, "snapshots"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return one, err
	}
	all := map[string]int64{}
	for _, e := range commits {
		if !e.IsDir() {
			continue
		}
		rev, broken, err := s.scanRevision(e.Name())
		if err != nil {
			return one, err
		}
		rev.Refs = refs[e.Name()]
		for path, size := range rev.blobs {
			all[resolved(path)] = size
		}
		one.Broken = append(one.Broken, broken...)
		one.Revisions = append(one.Revisions, rev)
	}
	// Content that no snapshot shows takes space all the same.
	blobs, _ := os.ReadDir(filepath.Join(s.dir, "blobs"))
	for _, e := range blobs {
		path := s.blob(e.Name())
		if info, err := os.Stat(path); err == nil {
			all[resolved(path)] = info.Size()
		}
		if strings.HasSuffix(e.Name(), ".incomplete") {
			one.Partial = append(one.Partial, path)
		}
	}
	for path, size := range all {
		one.Size += size
		if info, err := os.Stat(path); err == nil && info.ModTime().After(one.Modified) {
			one.Modified = info.ModTime()
		}
	}
	slices.SortFunc(one.Revisions, func(a, b CachedRevision) int {
		return cmp.Or(b.Modified.Compare(a.Modified), cmp.Compare(a.Commit, b.Commit))
	})
	return one, nil
}

func (s store) scanRevision(commit string) (rev CachedRevision, broken []string, err error) {
	rev = CachedRevision{Commit: commit, Dir: s.snapshot(commit), blobs: map[string]int64{}}
	err = filepath.WalkDir(rev.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			broken = append(broken, path)
			return nil
		}
		rev.Files++
		rev.blobs[firstHop(path)] = info.Size()
		if info.ModTime().After(rev.Modified) {
			rev.Modified = info.ModTime()
		}
		return nil
	})
	for _, size := range rev.blobs {
		rev.Size += size
	}
	return rev, broken, err
}

// firstHop is where a snapshot's entry leads: a blob, or the entry itself where
// there are no links. The blob may again be a link, into the shared store.
func firstHop(entry string) string {
	target, err := os.Readlink(entry)
	switch {
	case err != nil:
		return entry
	case filepath.IsAbs(target):
		return filepath.Clean(target)
	}
	return filepath.Join(filepath.Dir(entry), target)
}

func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// refs gives the revisions that mean each commit.
func (s store) refs() map[string][]string {
	out := map[string][]string{}
	top := filepath.Join(s.dir, "refs")
	_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		rel, _ := filepath.Rel(top, path)
		name := filepath.ToSlash(rel)
		if commit, ok := s.readRef(name); ok {
			out[commit] = append(out[commit], name)
		}
		return nil
	})
	return out
}
