package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// upload is one local file on its way into a repository.
type upload struct {
	local  string // path on this disk
	name   string // path in the repository
	size   int64
	mtime  time.Time
	git    string // git's blob id; set when hashed
	sha256 string // set when hashed, if it goes to LFS
	lfs    bool
	remote string // id of what the repository has under the name; "" if unknown or nothing
}

// walk lists what a push of root would send, sorted by name. All names that cannot
// be sent are in one error: leaving files out silently would look like success.
func walk(root string, opts PushOptions) ([]*upload, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	prefix := strings.Trim(path.Clean("/"+filepath.ToSlash(opts.PathInRepo)), "/")
	if slices.Contains(strings.Split(filepath.ToSlash(opts.PathInRepo), "/"), "..") {
		return nil, fmt.Errorf("%w: path in the repository %q leads out of it", ErrInvalid, opts.PathInRepo)
	}
	if info.Mode().IsRegular() {
		if prefix == "" || strings.HasSuffix(opts.PathInRepo, "/") {
			prefix = path.Join(prefix, filepath.Base(root))
		}
		u := &upload{local: root, name: prefix, size: info.Size(), mtime: info.ModTime()}
		return []*upload{u}, checkUploadName(u.name)
	}
	realRoot, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	sel := newSelector(opts.Include, opts.Exclude)
	var found []*upload
	var problems []error
	err = filepath.WalkDir(realRoot, func(p string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(realRoot, p)
		if relErr != nil {
			return relErr
		}
		rel = filepath.ToSlash(rel)
		switch {
		case err != nil:
			problems = append(problems, err)
			return nil
		case d.IsDir():
			if d.Name() == ".git" || strings.HasSuffix("/"+rel, "/"+localMeta) {
				return fs.SkipDir
			}
			return nil
		case d.Name() == ".git" || !sel.match(rel):
			return nil
		}
		u, err := inspect(realRoot, p, path.Join(prefix, rel))
		if err != nil {
			problems = append(problems, fmt.Errorf("%q: %w", rel, err))
			return nil
		}
		if u != nil {
			found = append(found, u)
		}
		return nil
	})
	if err = errors.Join(append(problems, err)...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	slices.SortFunc(found, func(a, b *upload) int { return strings.Compare(a.name, b.name) })
	return found, nil
}

// inspect decides about one entry of the folder. Links are content if they stay in
// the folder, or lead into a Hub cache's blobs, as the links of a snapshot do.
func inspect(root, p, name string) (*upload, error) {
	if err := checkUploadName(name); err != nil {
		return nil, err
	}
	info, err := os.Stat(p)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	real, err := filepath.EvalSymlinks(p)
	if err != nil {
		return nil, err
	}
	if rel, err := filepath.Rel(root, real); (err != nil || !filepath.IsLocal(rel)) && !isCacheBlob(real) {
		return nil, fmt.Errorf("is a link that leads out of the folder, to %q", real)
	}
	if info.IsDir() {
		return nil, nil // a link to a folder inside: its files are sent from there
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is neither a file nor a folder")
	}
	f, err := os.Open(p)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	f.Close()
	return &upload{local: p, name: name, size: info.Size(), mtime: info.ModTime()}, nil
}

// isCacheBlob recognises …/models--owner--name/blobs/<etag> and the store that
// repositories share, …/blobs/<2 hex>/<hash>.
func isCacheBlob(real string) bool {
	dir := filepath.Dir(real)
	if filepath.Base(dir) == "blobs" && strings.Contains(filepath.Base(filepath.Dir(dir)), "s--") {
		return true
	}
	_, err := os.Stat(filepath.Join(filepath.Dir(dir), ".huggingface-shared-blobs"))
	return err == nil && filepath.Base(filepath.Dir(dir)) == "blobs"
}

// checkUploadName refuses names that the Hub refuses or that could not be pulled
// again.
func checkUploadName(name string) error {
	if err := checkPath(name); err != nil {
		return err
	}
	for _, part := range strings.Split(name, "/") {
		if part == ".git" || part == ".cache" {
			return fmt.Errorf("%w: a repository cannot contain %s", ErrInvalid, part)
		}
	}
	return nil
}

// unchanged tells whether the file is still the one that was hashed.
func (u *upload) unchanged() error {
	info, err := os.Stat(u.local)
	if err != nil {
		return err
	}
	if info.Size() != u.size || !info.ModTime().Equal(u.mtime) {
		return fmt.Errorf("%w: %q changed while it was being pushed; push again", ErrConflict, u.local)
	}
	return nil
}
