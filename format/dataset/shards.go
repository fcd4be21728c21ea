package dataset

import (
	"fmt"
	"path/filepath"
	"strings"
)

// openParquet opens all parquet files and settles which columns hold images and labels. The features that the
// repository's card declares count before those noted in the first file.
func (d *Dataset) openParquet(files *tree, splits []splitFiles, declared features, opts Options) error {
	var all []*parquetShard
	for _, s := range splits {
		var shards []shard
		for _, f := range s.files {
			name := filepath.Join(files.root, filepath.FromSlash(f))
			if strings.HasSuffix(f, ".zip") {
				return fileError(name, fmt.Errorf("%w: parquet files inside an archive; unpack it first", ErrUnsupported))
			}
			shard, err := openParquetShard(d.dir, name, opts)
			if err != nil {
				return err
			}
			all = append(all, shard)
			shards = append(shards, shard)
		}
		d.add(s.split, shards)
	}
	if declared == nil {
		var err error
		if declared, err = all[0].declared(); err != nil {
			return err
		}
	}
	columns := all[0].columns(declared)
	image, err := chooseImage(columns, opts.ImageColumn)
	if err != nil {
		return err
	}
	label, err := chooseLabel(columns, opts)
	if err != nil {
		return err
	}
	labelled := make([]labelled, len(all))
	for i, s := range all {
		if err := s.use(image.name, label.name); err != nil {
			return err
		}
		labelled[i] = s
	}
	if label.name == "" {
		return nil
	}
	return d.codeLabels(label, labelled)
}

// labelled is a shard whose labels are stored values that need a coder.
type labelled interface {
	eachLabel(visit func(cell) error) error
	setCoder(*labelCoder)
}

// codeLabels gives all shards the class names of a label column. A column without declared names is read through once
// to collect them, over all splits, so that a class has the same number in each.
func (d *Dataset) codeLabels(label column, shards []labelled) error {
	d.names = label.names
	if label.kind != classLabelKind {
		scan := newLabelScanner()
		for _, s := range shards {
			if err := s.eachLabel(scan.add); err != nil {
				return err
			}
		}
		d.names = scan.classes()
	}
	coder, err := newLabelCoder(d.names)
	if err != nil {
		return err
	}
	for _, s := range shards {
		s.setCoder(coder)
	}
	return nil
}
