package main

import (
	"cmp"
	"encoding"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/hub"
)

// dataCache is where images made from data sets are kept; limit bounds it in bytes, unless it is 0.
func (e *env) dataCache(limit int64) dataset.Cache {
	dir := e.ownCache("records")
	if dir == "" {
		return dataset.Cache{}
	}
	return dataset.Cache{Dir: dir, Limit: limit}
}

// ownCache is a folder for what this program keeps between runs, apart from the Hub's files; "" if
// the system names none.
func (e *env) ownCache(kind string) string {
	if e.cacheDir != "" {
		return filepath.Join(e.cacheDir, "hubtool-"+kind)
	}
	home, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cmp.Or(os.Getenv("HF_HOME"), home), "hubtool", kind)
}

// cachedImages is the part of a cache's listing that is about images made from data sets.
type cachedImages struct {
	Path  string            `json:"path"`
	Size  int64             `json:"size"`
	Files []cachedImageFile `json:"files"`
}

type cachedImageFile struct {
	Name string    `json:"name"`
	Kind string    `json:"kind"`
	From string    `json:"from"`
	Size int64     `json:"size"`
	Used time.Time `json:"used"`
}

func newCachedImages(dir string, entries []dataset.CacheEntry) cachedImages {
	c := cachedImages{dir, 0, []cachedImageFile{}}
	for _, e := range entries {
		c.Size += e.Size
		c.Files = append(c.Files, cachedImageFile{e.Name, e.Kind, e.Note, e.Size, e.Used})
	}
	return c
}

func (c cachedImages) text(w io.Writer) {
	if len(c.Files) == 0 {
		return
	}
	fmt.Fprintln(w)
	for _, f := range c.Files {
		fmt.Fprintf(w, "%10s  %s  used %s  %s\n", byteSize(f.Size), f.Name, f.Used.Format("2006-01-02 15:04"), oneLine(f.From))
	}
	fmt.Fprintf(w, "%10s  of images in %s\n", byteSize(c.Size), c.Path)
}

// imageFile is what ls calls a file of images.
var imageFile = regexp.MustCompile(`^[0-9a-f]{40}\.\S+$`)

// planRemoval finds what the operands name: repositories, revisions and files of images.
func (e *env) planRemoval(c *cli.Context, found *hub.CacheReport) (cacheRemoval, error) {
	entries, err := e.dataCache(0).Entries()
	if err != nil {
		return cacheRemoval{}, err
	}
	named := map[string]bool{}
	var targets []hub.Repo
	for _, name := range c.Args().Slice() {
		if imageFile.MatchString(name) {
			named[name] = true
			continue
		}
		r, err := repo(c, name)
		if err != nil {
			return cacheRemoval{}, err
		}
		targets = append(targets, r)
	}
	var images []dataset.CacheEntry
	for _, one := range entries {
		if named[one.Name] {
			images = append(images, one)
			delete(named, one.Name)
		}
	}
	for name := range named {
		return cacheRemoval{}, fmt.Errorf("removing %q from the cache: %w", name, os.ErrNotExist)
	}
	removal, err := found.PlanRemoval(targets...)
	if err != nil {
		err = withHint(err, "\"hubtool cache ls\" lists what is there; a data set is hf://datasets/owner/name")
	}
	return cacheRemoval{hub: removal, images: images}, err
}

// removeImages removes files of images, less those that a process uses: their bytes are kept.
func (e *env) removeImages(entries []dataset.CacheEntry) (removed []dataset.CacheEntry, kept int64, err error) {
	for _, one := range entries {
		ok, err := e.dataCache(0).Remove(one)
		if err != nil {
			return removed, kept, err
		}
		if !ok {
			e.note("%q stays: a process uses it", one.Name)
			kept += one.Size
			continue
		}
		removed = append(removed, one)
	}
	return removed, kept, nil
}

// textFlag is a flag of any type that reads itself from text.
type textFlag struct{ to encoding.TextUnmarshaler }

func (f textFlag) String() string { return "" }

func (f textFlag) Set(text string) error {
	if err := f.to.UnmarshalText([]byte(text)); err != nil {
		return fmt.Errorf("must be %w", err) // as errors of settings are worded, see setValue
	}
	return nil
}
