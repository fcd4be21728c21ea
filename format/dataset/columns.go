package dataset

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// openParquet opens all shards and settles which columns hold images and labels. Features declared by the repository's
// card count before those in the files, as in datasets.
func (d *Dataset) openParquet(files *tree, splits []splitFiles, declared features, opts Options) error {
	var all []*parquetShard
	for _, s := range splits {
		var shards []shard
		for _, f := range s.files {
			shard, err := openParquetShard(d.dir, filepath.Join(files.root, filepath.FromSlash(f)))
			if err != nil {
				return err
			}
			all = append(all, shard)
			shards = append(shards, shard)
		}
		d.add(s.split, shards)
	}
	if len(all) == 0 {
		return fmt.Errorf("%w in %q", ErrNoData, d.dir)
	}
	first := all[0]
	if declared == nil {
		if text, ok := first.pq.Lookup("huggingface"); ok {
			var err error
			if declared, err = parseArrowMetadata(text); err != nil {
				return fileError(first.name, err)
			}
		}
	}
	image, err := chooseImage(first, declared, opts.ImageColumn)
	if err != nil {
		return err
	}
	label, names, err := chooseLabel(first, declared, opts)
	if err != nil {
		return err
	}
	d.names = names
	for _, s := range all {
		column := s.pq.Root().Column(image)
		var ok bool
		if s.image, s.imagePath, ok = bytesAndPath(column); !ok {
			return fileError(s.name, fmt.Errorf("%w: %q is no image column here", ErrColumn, image))
		}
		if label == "" {
			continue
		}
		column = s.pq.Root().Column(label)
		if column == nil || !column.Leaf() {
			return fileError(s.name, fmt.Errorf("%w: %q is no label column here", ErrColumn, label))
		}
		s.labelColumn = int(column.Index())
		s.decodeLabel = func(v parquet.Value) (int, error) {
			n := v.Int64()
			if n < -1 || n >= int64(len(names)) {
				return 0, damaged("label %d is outside the %d classes", n, len(names))
			}
			return int(n), nil
		}
	}
	return nil
}

func chooseImage(s *parquetShard, declared features, asked string) (string, error) {
	return chooseColumn(s, declared, asked, "image", "Image")
}

func chooseLabel(s *parquetShard, declared features, opts Options) (string, []string, error) {
	column, err := chooseColumn(s, declared, opts.LabelColumn, "label", "ClassLabel")
	if err != nil {
		return "", nil, err
	}
	f, _ := declared.find(column)
	return column, f.names, nil
}

func chooseColumn(s *parquetShard, declared features, asked, role, kind string) (string, error) {
	if asked != "" {
		for _, c := range s.columns() {
			if c == asked {
				return c, nil
			}
		}
		return "", notFound(ErrColumn, asked, s.columns())
	}
	var candidates []string
	for _, c := range s.columns() {
		if f, ok := declared.find(c); ok && f.kind == kind {
			candidates = append(candidates, c)
		}
	}
	if len(candidates) == 1 {
		return candidates[0], nil
	}
	return "", fmt.Errorf("%w: %d %s columns (%s) among %s", ErrColumn, len(candidates), role,
		strings.Join(candidates, ", "), strings.Join(s.columns(), ", "))
}
