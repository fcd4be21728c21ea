package hub

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Verification is how the files here compare with the Hub's.
type Verification struct {
	Repo      Repo
	Commit    string
	Dir       string
	Checked   int
	Damaged   []Mismatch // content that is not what its own name in the cache says
	Different []Mismatch // sound content, but not the Hub's at this commit
	Missing   []string   // on the Hub and not here, as after a pull of some files
	Extra     []string   // here and not on the Hub
}

// Mismatch is a file with its expected and its actual hash.
type Mismatch struct{ Name, Want, Got string }

// Verify hashes the cached files of a repository at the commit that its revision
// last meant here, or the files in localDir if that is not "", and compares them
// with the Hub's listing. Offline it uses the listing that the cache has; without
// one, cached content is compared with its own name.
func (c *Client) Verify(ctx context.Context, r Repo, localDir string) (*Verification, error) {
	v, err := c.verify(ctx, r, localDir)
	if err != nil {
		return nil, fmt.Errorf("verifying %q: %w", r, err)
	}
	return v, nil
}

func (c *Client) verify(ctx context.Context, r Repo, localDir string) (*Verification, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	s := c.store(r)
	v := &Verification{Repo: r, Commit: r.revision()}
	if !isCommit(v.Commit) {
		commit, ok := s.readRef(v.Commit)
		if !ok && localDir == "" {
			return nil, fmt.Errorf("%w in the cache: %s", ErrRevision, v.Commit)
		}
		if localDir != "" && !(ok && c.offline) {
			info, err := c.info(ctx, r)
			if err != nil {
				return nil, err
			}
			commit = info.SHA
		}
		v.Commit = commit
	}
	v.Dir = s.snapshot(v.Commit)
	if localDir != "" {
		v.Dir = localDir
	}
	if _, err := os.Stat(v.Dir); err != nil {
		return nil, fmt.Errorf("%w in the cache: commit %s", ErrRevision, v.Commit)
	}
	files, err := c.listing(ctx, s, v)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := checkPath(f.Path); err != nil {
			return nil, err
		}
	}
	var mu sync.Mutex
	err = c.each(ctx, len(files), func(_ context.Context, i int) error {
		found, err := c.verifyFile(v.Dir, files[i])
		mu.Lock()
		defer mu.Unlock()
		found(v)
		return err
	})
	if err != nil {
		return nil, err
	}
	v.Extra, err = extras(v.Dir, files)
	byName := func(a, b Mismatch) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(v.Damaged, byName)
	slices.SortFunc(v.Different, byName)
	slices.Sort(v.Missing)
	return v, err
}

// listing is what the commit should hold.
func (c *Client) listing(ctx context.Context, s store, v *Verification) ([]File, error) {
	if c.offline {
		if files, ok := readTree(s.dir, v.Commit); ok {
			return files, nil
		}
		return s.listSnapshot(v.Commit)
	}
	var files []File
	for f, err := range c.Files(ctx, v.Repo.at(v.Commit)) {
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// verifyFile hashes one file and returns how to note the result.
func (c *Client) verifyFile(dir string, f File) (func(*Verification), error) {
	path := filepath.Join(dir, filepath.FromSlash(f.Path))
	file, err := os.Open(path)
	if err != nil {
		return func(v *Verification) { v.Missing = append(v.Missing, f.Path) }, nil
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return func(*Verification) {}, err
	}
	c.report(Event{File: f.Path, State: Checking, Total: info.Size()})
	got, err := hashAs(file, info.Size(), f.ETag())
	if err != nil {
		return func(*Verification) {}, fmt.Errorf("hashing %q: %w", path, err)
	}
	m := Mismatch{f.Path, f.ETag(), got}
	return func(v *Verification) {
		v.Checked++
		switch link, err := os.Readlink(path); {
		case got == f.ETag() || got == "" && info.Size() == f.Size:
		case err == nil && filepath.Base(link) != f.ETag() && soundBlob(path, filepath.Base(link)):
			v.Different = append(v.Different, m)
		case err == nil:
			v.Damaged = append(v.Damaged, m)
		default:
			v.Different = append(v.Different, m) // a plain file, which anyone may have edited
		}
	}, nil
}

// soundBlob tells whether content is what its name says.
func soundBlob(path, name string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false
	}
	got, err := hashAs(f, info.Size(), name)
	return err == nil && got == name
}

// hashAs hashes content in the way that an ETag was made; "" for an ETag that is no
// hash.
func hashAs(r io.Reader, size int64, etag string) (string, error) {
	h := newHash(etag, size)
	if h == nil {
		return "", nil
	}
	_, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), err
}

// extras lists files that are in dir and not in the listing.
func extras(dir string, files []File) ([]string, error) {
	known := map[string]bool{}
	for _, f := range files {
		known[f.Path] = true
	}
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		name := filepath.ToSlash(rel)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == localMeta):
			return fs.SkipDir
		case !d.IsDir() && !known[name]:
			out = append(out, name)
		}
		return nil
	})
	return out, err
}
