package hub

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// store is one repository's folder in the cache.
type store struct {
	root string // the cache
	dir  string // the repository's folder in it
	repo Repo
}

func (c *Client) store(r Repo) store {
	return store{c.cacheDir, filepath.Join(c.cacheDir, r.folder()), r}
}

func (s store) blob(etag string) string { return filepath.Join(s.dir, "blobs", etag) }

func (s store) snapshot(commit string) string { return filepath.Join(s.dir, "snapshots", commit) }

func (s store) lockPath(etag string) string {
	return filepath.Join(s.root, ".locks", s.repo.folder(), etag+".lock")
}

func (s store) pointer(commit, path string) string {
	return filepath.Join(s.snapshot(commit), filepath.FromSlash(path))
}

// cacheTag marks the cache for backup programs; only its first line matters.
const cacheTag = "Signature: 8a477f597d28d172789f06886806bc55\n" +
	"# This file is a cache directory tag created by huggingface_hub.\n" +
	"# For information about cache directory tags, see:\n" +
	"#\thttps://bford.info/cachedir/\n"

func writeCacheTag(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	path := filepath.Join(dir, "CACHEDIR.TAG")
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	return writeAtomic(path, []byte(cacheTag), 0o666)
}

// randomName is the eight hex digits that make a temporary name unique.
func randomName() string {
	var b [4]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// writeAtomic puts a small file under its name complete or not at all.
func writeAtomic(path string, data []byte, mode os.FileMode) error {
	tmp := path + "." + randomName() + ".tmp"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// readRef is the commit that a revision last meant here. Other writers may have
// ended the file with a newline.
func (s store) readRef(revision string) (commit string, ok bool) {
	text, err := os.ReadFile(filepath.Join(s.dir, "refs", filepath.FromSlash(revision)))
	commit = strings.TrimSpace(string(text))
	return commit, err == nil && isCommit(commit)
}

// writeRef records what a revision means; Python reads the file without trimming.
func (s store) writeRef(revision, commit string) error {
	if revision == commit {
		return nil
	}
	path := filepath.Join(s.dir, "refs", filepath.FromSlash(revision))
	if text, err := os.ReadFile(path); err == nil && string(text) == commit {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return writeAtomic(path, []byte(commit), 0o666)
}

// markMissing remembers that a commit has no such file, as Python's
// try_to_load_from_cache wants to know.
func (s store) markMissing(commit, path string) error {
	marker := filepath.Join(s.dir, ".no_exist", commit, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(marker), 0o777); err != nil {
		return err
	}
	return os.WriteFile(marker, nil, 0o666)
}

// markAllMissing marks those names that the commit's listing does not have.
func (s store) markAllMissing(commit string, files []File, names []string) error {
	errs := []error{os.MkdirAll(s.snapshot(commit), 0o777), s.writeRef(s.repo.revision(), commit)}
	for _, name := range names {
		exists := slices.ContainsFunc(files, func(f File) bool { return f.Path == name })
		if !exists && checkPath(name) == nil {
			errs = append(errs, s.markMissing(commit, name))
		}
	}
	return errors.Join(errs...)
}

var safeETag = regexp.MustCompile(`^[0-9A-Za-z._-]{1,128}$`)

// checkETag refuses a name that the server chose and that is no plain file name.
func checkETag(etag string) error {
	if !safeETag.MatchString(etag) || strings.Contains(etag, "..") || etag == "." {
		return fmt.Errorf("%w: the server names the content %q, which cannot be a file name", ErrDamaged, etag)
	}
	return nil
}

// normalETag strips the weak mark and the quotes of a header value.
func normalETag(header string) string {
	return strings.Trim(strings.TrimPrefix(strings.TrimSpace(header), "W/"), `"`)
}
