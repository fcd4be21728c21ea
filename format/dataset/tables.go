package dataset

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// openTables reads csv, tsv, json and jsonl files whose rows name image files. datasets takes such a column for images
// where the card declares it as one; here it may also be named in the options, as cast_column(name, Image()) would. Paths
// start from the data set's directory, where datasets starts from the working directory.
func (d *Dataset) openTables(files *tree, splits []splitFiles, declared features, opts Options) error {
	source := directory(d.dir)
	var image, label column
	var all []labelled
	for i, s := range splits {
		var shards []shard
		for k, f := range s.files {
			name := filepath.Join(files.root, filepath.FromSlash(f))
			t, err := readTableFile(files.root, f)
			if err != nil {
				return fileError(name, err)
			}
			t.declare(declared)
			if i == 0 && k == 0 {
				if image, err = chooseImage(t.columns, opts.ImageColumn); err != nil {
					return fmt.Errorf("%w; a column of paths is one of images if the card declares it so", err)
				}
				if label, err = chooseLabel(t.columns, opts); err != nil {
					return err
				}
			}
			for _, want := range []string{image.name, label.name} {
				if want != "" && !slices.ContainsFunc(t.columns, func(c column) bool { return c.name == want }) {
					return fileError(name, fmt.Errorf("%w: no column %q as in the other files", ErrColumn, want))
				}
			}
			one, err := t.shard(source, image.name, label.name, imagePath)
			if err != nil {
				return fileError(name, err)
			}
			one.name = name
			shards = append(shards, one)
			all = append(all, one)
		}
		d.add(s.split, shards)
	}
	if label.name == "" {
		return nil
	}
	return d.codeLabels(label, all)
}

// imagePath leaves paths as they are: readImageFile knows which of them it may open.
func imagePath(v cell) (string, error) {
	if strings.Contains(v.text, "://") {
		return "", fmt.Errorf("%w: the image %q is not on this disk", ErrUnsupported, v.text)
	}
	return v.text, nil
}

// readTableFile reads a file of any of the kinds, compressed with gzip or not.
func readTableFile(root, name string) (*table, error) {
	text, err := directory(root).read(name)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".gz") {
		if text, err = gunzip(text); err != nil {
			return nil, err
		}
	}
	t := &table{}
	switch {
	case hasExtension(name, ".csv"):
		err = t.readCSV(text, ',')
	case hasExtension(name, ".tsv"):
		err = t.readCSV(text, '\t')
	case hasExtension(name, ".zip"):
		err = fmt.Errorf("%w: a table inside an archive; unpack it first", ErrUnsupported)
	default:
		err = t.readJSON(text)
	}
	return t, err
}

func hasExtension(name, ext string) bool { return slices.Contains(extensions(name), ext) }

func gunzip(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, damaged("%w", err)
	}
	limit := int64(len(b))*maxRatio + freeSpace
	out, err := io.ReadAll(io.LimitReader(z, limit+1))
	if err != nil {
		return nil, damaged("unpacking: %w", err)
	}
	if int64(len(out)) > limit {
		return nil, bomb()
	}
	return out, nil
}

// declare settles what the columns are good for. The card's features, where there are any, give their kinds.
func (t *table) declare(declared features) {
	for i := range t.columns {
		c := &t.columns[i]
		f, _ := declared.find(c.name)
		c.kind, c.names = f.kind, f.names
		c.holdsImages = t.cells[i] != nil && allTexts(t.cells[i])
		c.holdsLabels = t.cells[i] != nil
	}
}

func allTexts(cells []cell) bool {
	for _, v := range cells {
		if v.number {
			return false
		}
	}
	return true
}
