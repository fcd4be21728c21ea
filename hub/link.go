package hub

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// blobOK tells whether a blob is there with its full size (-1 if unknown) and is
// content of this cache: a file, or a link into the store that Python shares
// between repositories.
func (s store) blobOK(etag string, size int64) bool {
	return s.inside(s.blob(etag), size, filepath.Join(s.dir, "blobs"), filepath.Join(s.root, "blobs"))
}

// pointerOK tells whether a snapshot's entry leads to that content. It may be a
// regular file, on systems without links.
func (s store) pointerOK(commit, path, etag string, size int64) bool {
	p := s.pointer(commit, path)
	if target, err := os.Readlink(p); err == nil && etag != "" && filepath.Base(target) != etag {
		return false
	}
	return s.inside(p, size, s.snapshot(commit), filepath.Join(s.dir, "blobs"), filepath.Join(s.root, "blobs"))
}

func (s store) inside(path string, size int64, dirs ...string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || size >= 0 && info.Size() != size {
		return false
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	for _, d := range dirs {
		if d, err = filepath.EvalSymlinks(d); err == nil && strings.HasPrefix(real, d+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// show links a file into its snapshot and makes sure that the entry leads somewhere:
// the content may be removed from the cache at any moment.
func (s store) show(commit string, f File, fresh, noSymlinks bool) error {
	if err := s.link(commit, f.Path, f.ETag(), fresh, noSymlinks); err != nil {
		return err
	}
	if !s.pointerOK(commit, f.Path, f.ETag(), f.Size) {
		return errors.Join(errRemoved, os.Remove(s.pointer(commit, f.Path)))
	}
	return nil
}

var errRemoved = errors.New("another program removed it from the cache meanwhile; run again")

// link makes the snapshot's entry for a blob. fresh says that the blob has just
// been written, so that without links it may be moved instead of copied.
func (s store) link(commit, path, etag string, fresh, noSymlinks bool) error {
	entry := s.pointer(commit, path)
	if err := s.makeDirs(commit, path); err != nil {
		return err
	}
	if !noSymlinks {
		target, err := filepath.Rel(filepath.Dir(entry), s.blob(etag))
		if err != nil {
			return err
		}
		tmp := entry + "." + randomName() + ".tmp"
		if err := os.Symlink(target, tmp); err == nil {
			// Renamed over the old entry, so that there is one at every moment.
			if err = os.Rename(tmp, entry); err != nil {
				os.Remove(tmp)
			}
			return err
		}
	}
	if fresh {
		return os.Rename(s.blob(etag), entry)
	}
	return copyFile(s.blob(etag), entry)
}

// makeDirs creates the directories of a snapshot's entry. Through a root, so that a
// link planted among them cannot lead out of the repository's folder.
func (s store) makeDirs(commit, path string) error {
	if err := os.MkdirAll(s.snapshot(commit), 0o777); err != nil {
		return err
	}
	dir := filepath.Dir(filepath.FromSlash(path))
	if dir == "." {
		return nil
	}
	root, err := os.OpenRoot(s.snapshot(commit))
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// copyFile copies content under a temporary name, then renames it.
func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	tmp := to + "." + randomName() + ".tmp"
	dst, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	err = errors.Join(err, dst.Close())
	if err == nil {
		err = os.Rename(tmp, to)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// listSnapshot lists what a snapshot holds, for commits whose listing is unknown.
// Entries that are plain files have no ETag.
func (s store) listSnapshot(commit string) ([]File, error) {
	var files []File
	top := s.snapshot(commit)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return nil // a link to nothing: the file counts as missing
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		f := File{Path: filepath.ToSlash(rel), Size: info.Size(), unlisted: true}
		if link, err := os.Readlink(path); err == nil {
			f.BlobID = filepath.Base(link)
			if sha256Hex.MatchString(f.BlobID) {
				f.SHA256 = f.BlobID
			}
		}
		files = append(files, f)
		return nil
	})
	return files, err
}
