package dataset

import (
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// folderPart is a directory's share of a split, or an archive of it: image files and metadata files by their names
// inside it, in reading order.
type folderPart struct {
	source   imageSource
	images   []string
	metadata []string
}

// imageSource is where image files are read from: a directory or an archive. It is safe for concurrent use.
type imageSource interface {
	path() string
	read(name string) ([]byte, error)
	Close() error
}

// directory is an imageSource on disk; names are relative to it.
type directory string

func (d directory) path() string                     { return string(d) }
func (d directory) read(name string) ([]byte, error) { return readImageFile(string(d), name) }
func (d directory) Close() error                     { return nil }

// openFolder reads a folder of images: labels come from the folders that the images lie in or, where there are metadata
// files, from those. It follows datasets' ImageFolder, with one difference: labels of images inside archives are the
// folders in the archive, as its documentation says, where version 5.2 takes the folder of the archive and fails.
func (d *Dataset) openFolder(files *tree, splits []splitFiles, cfg config, opts Options) error {
	parts := make([][]folderPart, len(splits))
	for i, s := range splits {
		var err error
		parts[i], err = d.folderParts(files, s.files)
		if err != nil {
			return err
		}
	}
	return d.openParts(splits, parts, cfg, opts)
}

// openParts settles where labels come from, and adds the splits.
func (d *Dataset) openParts(splits []splitFiles, parts [][]folderPart, cfg config, opts Options) error {
	metadata := slices.ContainsFunc(slices.Concat(parts...), func(p folderPart) bool { return len(p.metadata) > 0 })
	if metadata && !cfg.noMetadata {
		return d.openMetadata(splits, parts, opts)
	}

	labels := folderLabels(parts, cfg.dropLabels)
	columns := []column{{name: "image", kind: imageKind, holdsImages: true}}
	if labels != nil {
		columns = append(columns, column{name: "label", kind: classLabelKind, names: labels, holdsLabels: true})
		if f, ok := cfg.features.find("label"); ok && f.kind == classLabelKind {
			columns[1].names = f.names
		}
	}
	if _, err := chooseImage(columns, opts.ImageColumn); err != nil {
		return err
	}
	label, err := chooseLabel(columns, opts)
	if err != nil {
		return fmt.Errorf("%w; folders count as labels where there are several and all images lie at the same depth", err)
	}
	var all []labelled
	for i, s := range splits {
		var shards []shard
		for _, p := range parts[i] {
			one := &folderShard{source: p.source, names: p.images}
			if label.name != "" {
				for _, name := range p.images {
					one.labels = append(one.labels, cell{text: parentName(name)})
				}
				all = append(all, one)
			}
			shards = append(shards, one)
		}
		d.add(s.split, shards)
	}
	if label.name == "" {
		return nil
	}
	return d.codeLabels(label, all)
}

// folderParts sorts the files of a split into what lies on disk and what lies in each archive.
func (d *Dataset) folderParts(files *tree, names []string) ([]folderPart, error) {
	disk := folderPart{source: directory(files.root)}
	var archives []folderPart
	for _, f := range names {
		switch {
		case isImage(f):
			disk.images = append(disk.images, f)
		case slices.Contains(metadataFiles, path.Base(f)):
			disk.metadata = append(disk.metadata, f)
		case strings.EqualFold(path.Ext(f), ".zip"):
			z, err := openArchive(filepath.Join(files.root, filepath.FromSlash(f)))
			if err != nil {
				return nil, err
			}
			d.closers = append(d.closers, z)
			archives = append(archives, z.part())
		default:
			return nil, fmt.Errorf("%w: %q, a compressed single image; unpack it first", ErrUnsupported, f)
		}
	}
	return append([]folderPart{disk}, archives...), nil
}

func isImage(name string) bool {
	return kindOf[strings.ToLower(path.Ext(name))] == imageFolderKind
}

func parentName(name string) string {
	if parent := path.Base(path.Dir(name)); parent != "." {
		return parent
	}
	return ""
}

// folderLabels returns the sorted names of the folders that images lie in, over all splits, or nil where folders are
// no labels: that is decided by drop, or else by there being several, all at the same depth.
func folderLabels(parts [][]folderPart, drop *bool) []string {
	labels, depths := map[string]bool{}, map[int]bool{}
	for _, split := range parts {
		for _, p := range split {
			for _, name := range p.images {
				labels[parentName(name)] = true
				depths[strings.Count(name, "/")] = true
			}
		}
	}
	use := len(labels) > 1 && len(depths) == 1
	if drop != nil {
		use = !*drop
	}
	if !use {
		return nil
	}
	names := make([]string, 0, len(labels))
	for name := range labels {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// folderShard is a list of image files with a label each.
type folderShard struct {
	name   string // of the table that lists them; "": the source's
	source imageSource
	names  []string // "" where a metadata row names no file
	labels []cell   // nil: unlabelled
	coder  *labelCoder
	codes  []int32
}

func (s *folderShard) path() string           { return cmp.Or(s.name, s.source.path()) }
func (s *folderShard) rows() int              { return len(s.names) }
func (s *folderShard) setCoder(c *labelCoder) { s.coder = c }
func (s *folderShard) Close() error           { return nil }

func (s *folderShard) eachLabel(visit func(cell) error) error {
	for i, v := range s.labels {
		if err := visit(v); err != nil {
			return rowError(s.path(), i, err)
		}
	}
	return nil
}

func (s *folderShard) load() error {
	return s.eachLabel(func(v cell) error {
		code, err := s.coder.code(v)
		s.codes = append(s.codes, int32(code))
		return err
	})
}

func (s *folderShard) label(i int) int {
	if s.codes == nil {
		return -1
	}
	return int(s.codes[i])
}

func (s *folderShard) row(i int) (Row, error) {
	r := Row{Path: s.names[i], Label: s.label(i)}
	if r.Path == "" {
		return Row{}, damaged("the row names no image file")
	}
	var err error
	r.Image, err = s.source.read(r.Path)
	return r, err
}
