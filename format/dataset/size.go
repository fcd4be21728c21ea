package dataset

import (
	"errors"
	"os"
	"path/filepath"
)

// Size returns the bytes of a split's files on disk, or of those that will be there: those of images where they lie in folders, and those of whole
// files, each once, where a file holds many rows.
func (d *Dataset) Size(split string) (int64, error) {
	s := d.split(split)
	if s == nil {
		return 0, notFound(ErrSplit, split, d.splitNames())
	}
	total, counted := int64(0), map[string]bool{}
	for _, shard := range d.shards[s.first:s.after] {
		if a, ok := shard.(*arriving); ok {
			total += a.size()
			continue
		}
		for _, path := range filesOf(shard) {
			if counted[path] {
				continue
			}
			counted[path] = true
			info, err := os.Stat(path)
			if errors.Is(err, os.ErrNotExist) {
				continue // reading the row says so
			}
			if err != nil {
				return 0, err
			}
			total += info.Size()
		}
	}
	return total, nil
}

func filesOf(s shard) []string {
	if !inFolder(s) {
		return []string{s.path()}
	}
	var paths []string
	folder := s.(*folderShard)
	for _, name := range folder.names {
		name = filepath.FromSlash(name)
		if name != "" && !filepath.IsAbs(name) { // a table may name images by absolute paths
			name = filepath.Join(folder.source.path(), name)
		}
		if name != "" {
			paths = append(paths, name)
		}
	}
	return paths
}

// inFolder tells whether the images of a shard are files of their own.
func inFolder(s shard) bool {
	folder, ok := s.(*folderShard)
	if !ok {
		return false
	}
	_, ok = folder.source.(directory)
	return ok
}
