package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// resolve finds the commit that the revision means and its listing: from the Hub,
// or from the cache where the Hub need not or cannot be asked.
func (c *Client) resolve(ctx context.Context, s store, opts PullOptions) (commit string, files []File, err error) {
	commit = s.repo.revision()
	cachedCommit, hasRef := s.readRef(commit)
	if !isCommit(commit) {
		first := ctx
		if hasRef && !opts.NoCacheFallback {
			first = withAttempts(ctx, 1)
		}
		info, err := c.info(first, s.repo)
		switch {
		case err == nil:
			commit = info.SHA
		case opts.NoCacheFallback || !soft(err) || ctx.Err() != nil:
			return "", nil, err
		default:
			return c.resolveCached(s, cachedCommit, opts, err)
		}
	}
	for _, dir := range []string{treeDir(s, opts), s.dir} {
		if files, ok := readTree(dir, commit); ok {
			return commit, files, nil
		}
	}
	for f, err := range c.Files(ctx, s.repo.at(commit)) {
		if err == nil {
			files = append(files, f)
			continue
		}
		// A ref that names another commit says that no pull of this one was finished.
		unfinished := commit != s.repo.revision() && commit != cachedCommit
		if opts.NoCacheFallback || !soft(err) || ctx.Err() != nil || unfinished {
			return "", nil, err
		}
		return c.resolveCached(s, commit, opts, err)
	}
	return commit, files, nil
}

// treeDir is where the listing of a pull's commit is kept.
func treeDir(s store, opts PullOptions) string {
	if opts.LocalDir != "" {
		return filepath.Join(opts.LocalDir, filepath.FromSlash(localMeta))
	}
	return s.dir
}

// newestTree is the commit whose listing was saved last in a folder, or "".
func newestTree(dir string) (commit string) {
	var newest time.Time
	entries, _ := os.ReadDir(filepath.Join(dir, "trees"))
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if info, err := e.Info(); ok && isCommit(name) && err == nil && info.ModTime().After(newest) {
			commit, newest = name, info.ModTime()
		}
	}
	return commit
}

// listed tells a listing of the Hub from one made of what a snapshot holds, which
// must not be taken for the commit's.
func listed(files []File) bool {
	return len(files) > 0 && !slices.ContainsFunc(files, func(f File) bool { return f.unlisted })
}

// resolveCached answers from the cache after the Hub could not be asked. reason is
// why; it is the error if the cache has no answer either.
func (c *Client) resolveCached(s store, commit string, opts PullOptions, reason error) (string, []File, error) {
	if opts.LocalDir != "" {
		if commit == "" {
			commit = newestTree(treeDir(s, opts))
		}
		if files, ok := readTree(treeDir(s, opts), commit); ok {
			return commit, files, nil // what the directory lacks, bringing it will tell
		}
	}
	if commit == "" && !errors.Is(reason, ErrOffline) && !errors.Is(reason, ErrNetwork) {
		return "", nil, reason // the Hub has answered
	}
	if commit == "" {
		return "", nil, fmt.Errorf("%w; the cache does not know revision %q (give a commit to use a cached one)", reason, s.repo.revision())
	}
	if !c.offline {
		c.log.Warn("the Hub cannot be asked; using the cached snapshot, which may be out of date", "commit", commit, "reason", reason)
	}
	if files, ok := readTree(s.dir, commit); ok {
		var missing []string
		selected, err := selectFiles(files, opts)
		for _, f := range selected {
			if !s.pointerOK(commit, f.Path, f.ETag(), f.Size) && !s.blobOK(f.ETag(), f.Size) {
				missing = append(missing, f.Path)
			}
		}
		if len(missing) > 0 && !opts.DryRun { // which says what is here and what is not
			return "", nil, fmt.Errorf("%w; the cached snapshot lacks %s", reason, strings.Join(missing, ", "))
		}
		return commit, files, err
	}
	files, err := s.listSnapshot(commit)
	if err != nil || len(files) == 0 {
		return "", nil, fmt.Errorf("%w; the cache has no snapshot of commit %s", reason, commit)
	}
	if _, err := selectFiles(files, opts); err != nil {
		return "", nil, fmt.Errorf("%w; in the cached snapshot: %v", reason, err)
	}
	c.log.Warn("the cached snapshot was not verified to be complete: it has no listing", "commit", commit)
	return commit, files, nil
}

// selectFiles applies the options to a listing. Folders and exact names of Files
// must each select something: a typing error is not an empty success.
func selectFiles(files []File, opts PullOptions) ([]File, error) {
	sel := newSelector(opts.Include, opts.Exclude)
	wanted := make(map[string]bool, len(opts.Files))
	for _, name := range opts.Files {
		wanted[strings.TrimPrefix(name, "./")] = false
	}
	var out []File
	for _, f := range files {
		named := len(wanted) == 0
		for name := range wanted {
			if f.Path == name || strings.HasSuffix(name, "/") && strings.HasPrefix(f.Path, name) {
				wanted[name], named = true, true
			}
		}
		if named && sel.match(f.Path) {
			out = append(out, f)
		}
	}
	var missing []string
	for name, found := range wanted {
		if !found {
			missing = append(missing, fmt.Sprintf("%q", name))
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, fmt.Errorf("%w: %s", ErrEntry, strings.Join(missing, ", "))
	}
	slices.SortFunc(out, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return out, nil
}
