package dataset

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A WebDataset is a tar archive whose members of one key make a row: cat/7.jpg and cat/7.cls are the columns jpg and cls
// of the row cat/7. The archive is walked once, from header to header, and images are then read where they are.

// openWebDataset reads tar archives as datasets does, and beyond that takes the folders of an archive for labels where
// nothing else is a label: tar files of one folder per class are common.
func (d *Dataset) openWebDataset(files *tree, splits []splitFiles, declared features, opts Options) error {
	var all []*tarShard
	for _, s := range splits {
		var shards []shard
		for _, f := range s.files {
			name := filepath.Join(files.root, filepath.FromSlash(f))
			t, err := openTar(name, opts.Cache.Dir)
			if err != nil {
				return err
			}
			all = append(all, t)
			shards = append(shards, t)
		}
		d.add(s.split, shards)
	}
	return d.useTars(all, declared, opts)
}

// useTars settles which fields of the archives are images and labels.
func (d *Dataset) useTars(all []*tarShard, declared features, opts Options) error {
	// datasets infers the columns from the first archive of the last split.
	first := d.shards[d.splits[len(d.splits)-1].first].(*tarShard)
	columns, err := first.columns(declared)
	if err != nil {
		return fileError(first.name, err)
	}
	image, err := chooseImage(columns, opts.ImageColumn)
	if err != nil {
		return err
	}
	var label column
	if folders := keyFolders(all); folders != nil && opts.LabelColumn == "" && !hasLabel(columns) {
		label = column{name: folderColumn, kind: classLabelKind, names: folders}
	} else if label, err = chooseLabel(columns, opts); err != nil {
		return err
	}
	withLabels := make([]labelled, len(all))
	for i, t := range all {
		t.image, t.labels = image.name, label.name
		withLabels[i] = t
	}
	if label.name == "" {
		return nil
	}
	return d.codeLabels(label, withLabels)
}

// folderColumn stands for the folder in the key; no member can have this name, because a field follows a dot.
const folderColumn = "/"

// keyFolders returns the sorted names of the folders that samples lie in where those can be labels: there are several,
// all at the same depth.
func keyFolders(shards []*tarShard) []string {
	var part folderPart
	for _, t := range shards {
		for _, s := range t.samples {
			part.images = append(part.images, s.key)
		}
	}
	return folderLabels([][]folderPart{{part}}, nil)
}

// inferred is the number of samples that the columns are inferred from.
const inferred = 5

// columns are the declared ones or else the fields of the first samples, which must be the same for each.
func (t *tarShard) columns(declared features) ([]column, error) {
	if len(t.samples) == 0 {
		return nil, damaged("it has no samples, which are files such as 7.jpg and 7.cls")
	}
	var columns []column
	if declared != nil {
		for _, f := range declared {
			c := column{name: f.column, kind: f.kind, names: f.names, holdsImages: f.kind == imageKind}
			c.holdsLabels = !c.holdsImages
			columns = append(columns, c)
		}
		return columns, nil
	}
	for i := range t.samples[:min(inferred, len(t.samples))] {
		s := &t.samples[i]
		fresh, err := t.inferColumns(s)
		if err != nil {
			return nil, err
		}
		if i > 0 && !slices.Equal(fieldNames(s), fieldNames(&t.samples[0])) {
			return nil, damaged("the samples %q and %q have different members, %q and %q", t.samples[0].key, s.key,
				fieldNames(&t.samples[0]), fieldNames(s))
		}
		for _, c := range fresh {
			if !slices.ContainsFunc(columns, func(have column) bool { return have.name == c.name }) {
				columns = append(columns, c)
			}
		}
	}
	return columns, nil
}

func fieldNames(s *tarSample) []string {
	var names []string
	for _, f := range s.fields {
		names = append(names, f.name)
	}
	slices.Sort(names)
	return names
}

// inferColumns gives a sample's fields their kinds by their extensions. An object of JSON is a column for each of its
// members, called json.member.
func (t *tarShard) inferColumns(s *tarSample) ([]column, error) {
	var columns []column
	for _, f := range s.fields {
		c := column{name: f.name}
		switch ext := fieldExtension(f.name); {
		case kindOf["."+ext] == imageFolderKind:
			c.kind, c.holdsImages = imageKind, true
		case slices.Contains(jsonFields, ext):
			members, err := t.object(f)
			if err != nil {
				return nil, fmt.Errorf("sample %q: %w", s.key, err)
			}
			for name, value := range members {
				if _, ok := jsonCell(value); ok {
					columns = append(columns, column{name: f.name + "." + name, holdsLabels: true})
				}
			}
		default:
			c.holdsLabels = slices.Contains(numberFields, ext) || slices.Contains(textFields, ext)
		}
		columns = append(columns, c)
	}
	slices.SortStableFunc(columns, func(a, b column) int { return cmp.Compare(a.name, b.name) }) // maps have no order
	return columns, nil
}

// The extensions that datasets decodes, as far as they can be labels.
var (
	numberFields = []string{"cls", "cls2", "index", "inx", "id"}
	textFields   = []string{"txt", "text", "transcript"}
	jsonFields   = []string{"json", "jsn"}
)

func fieldExtension(field string) string {
	return strings.ToLower(field[strings.LastIndexByte(field, '.')+1:])
}

// maxField bounds the memory for a text or an object; images have the bound of archive members.
const maxField = 16 << 20

func (t *tarShard) object(f tarField) (map[string]any, error) {
	text, err := t.read(f, maxField)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var members map[string]any
	if err := decoder.Decode(&members); err != nil {
		return nil, damaged("member %q: %w", f.name, err)
	}
	return members, nil
}

// cell reads the label of a sample; one without that member has none.
func (t *tarShard) cell(s *tarSample) (cell, error) {
	if t.labels == folderColumn {
		return cell{text: parentName(s.key)}, nil
	}
	f, ok := s.field(t.labels)
	if !ok {
		return t.objectCell(s)
	}
	text, err := t.read(f, maxField)
	if err != nil {
		return cell{}, err
	}
	if !slices.Contains(numberFields, fieldExtension(f.name)) {
		return cell{text: string(text)}, nil
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return cell{}, damaged("the member %q of sample %q is %.20q, which is no number", f.name, s.key, text)
	}
	return cell{number: true, n: n}, nil
}

// objectCell reads a label out of an object of JSON.
func (t *tarShard) objectCell(s *tarSample) (cell, error) {
	for _, f := range s.fields {
		member, ok := strings.CutPrefix(t.labels, f.name+".")
		if !ok || !slices.Contains(jsonFields, fieldExtension(f.name)) {
			continue
		}
		members, err := t.object(f)
		if err != nil {
			return cell{}, err
		}
		value, ok := jsonCell(members[member])
		if !ok {
			return cell{}, damaged("the member %q of sample %q is neither a text nor a whole number", t.labels, s.key)
		}
		return value, nil
	}
	return cell{null: true}, nil
}

func (t *tarShard) path() string           { return t.name }
func (t *tarShard) rows() int              { return len(t.samples) }
func (t *tarShard) setCoder(c *labelCoder) { t.coder = c }
func (t *tarShard) Close() error           { return t.close() }

func (t *tarShard) eachLabel(visit func(cell) error) error {
	for i := range t.samples {
		if i == len(t.cells) {
			value, err := t.cell(&t.samples[i])
			if err != nil {
				return rowError(t.name, i, err)
			}
			t.cells = append(t.cells, value)
		}
		if err := visit(t.cells[i]); err != nil {
			return rowError(t.name, i, err)
		}
	}
	return nil
}

func (t *tarShard) load() error {
	if t.labels == "" {
		return nil
	}
	return t.eachLabel(func(v cell) error {
		code, err := t.coder.code(v)
		t.codes = append(t.codes, int32(code))
		return err
	})
}

func (t *tarShard) label(i int) int {
	if t.labels == "" {
		return -1
	}
	return int(t.codes[i])
}

func (t *tarShard) row(i int) (Row, error) {
	s := &t.samples[i]
	f, ok := s.field(t.image)
	if !ok {
		return Row{}, damaged("the image is null: the sample %q has no member %q", s.key, t.image)
	}
	image, err := t.read(f, maxMember)
	return Row{Image: image, Path: s.key + "." + t.image, Label: t.label(i)}, err
}
