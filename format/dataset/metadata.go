package dataset

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// table is a metadata file: the columns of text and whole numbers, other columns empty.
type table struct {
	name    string // inside its source
	columns []column
	cells   [][]cell // by column; nil where a column is neither text nor whole numbers
	rows    int
}

// openMetadata reads a folder of images that has metadata files. Their rows, in their order, are the rows of the split;
// images that they do not name do not count, and a split without metadata is empty.
func (d *Dataset) openMetadata(splits []splitFiles, parts [][]folderPart, opts Options) error {
	type metadata struct {
		source imageSource
		table  *table
	}
	bySplit := make([][]metadata, len(splits))
	var first *table
	for i := range splits {
		for _, p := range parts[i] {
			for _, name := range p.metadata {
				t, err := readTable(p.source, name)
				if err != nil {
					return fileError(filepath.Join(p.source.path(), name), err)
				}
				if first == nil {
					first = t
				}
				if !slices.EqualFunc(t.columns, first.columns, func(a, b column) bool { return a.name == b.name }) {
					return fmt.Errorf("%w: the metadata files %q and %q have different columns (%s and %s)", ErrColumn,
						first.name, t.name, columnNames(first.columns, nil), columnNames(t.columns, nil))
				}
				bySplit[i] = append(bySplit[i], metadata{p.source, t})
			}
		}
	}
	image, err := chooseImage(first.columns, opts.ImageColumn)
	if err != nil {
		return fmt.Errorf("%w; metadata names images in a column file_name or *_file_name", err)
	}
	label, err := chooseLabel(first.columns, opts)
	if err != nil {
		return err
	}
	var all []labelled
	for i, s := range splits {
		var shards []shard
		for _, m := range bySplit[i] {
			one, err := m.table.shard(m.source, image.name, label.name, belowMetadata(m.table.name))
			if err != nil {
				return fileError(filepath.Join(m.source.path(), m.table.name), err)
			}
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

// shard makes rows of a table; resolve gives the name of a cell's image in source.
func (t *table) shard(source imageSource, image, label string, resolve func(cell) (string, error)) (*folderShard, error) {
	s := &folderShard{source: source}
	for i, c := range t.columns {
		switch c.name {
		case image:
			for row, v := range t.cells[i] {
				name, err := resolve(v)
				if err != nil {
					return nil, fmt.Errorf("row %d: %w", row, err)
				}
				s.names = append(s.names, name)
			}
		case label:
			if s.labels = t.cells[i]; s.labels == nil {
				return nil, fmt.Errorf("%w: %q holds no labels", ErrColumn, label)
			}
		}
	}
	return s, nil
}

// belowMetadata resolves a file_name, which is relative to the folder of the metadata file and must not lead out of it.
func belowMetadata(file string) func(cell) (string, error) {
	return func(v cell) (string, error) {
		if v.null {
			return "", nil
		}
		name := strings.ReplaceAll(path.Clean(v.text), `\`, "/")
		if v.number || strings.Contains(v.text, "://") || !filepath.IsLocal(filepath.FromSlash(path.Clean(name))) {
			return "", damaged("the file_name %q is not a relative path below the metadata file", v.text)
		}
		return path.Join(path.Dir(file), name), nil
	}
}

func readTable(source imageSource, name string) (*table, error) {
	text, err := source.read(name)
	if err != nil {
		return nil, err
	}
	t := &table{name: name}
	switch path.Ext(name) {
	case ".csv":
		err = t.readCSV(text, ',')
	case ".jsonl":
		err = t.readJSON(text)
	default:
		err = t.readParquet(text)
	}
	if err != nil {
		return nil, err
	}
	if t.rows == 0 {
		return nil, damaged("the metadata has no rows")
	}
	for i := range t.columns {
		t.columns[i].describe(t.cells[i])
	}
	return t, nil
}

// describe works out what a metadata column is good for. A column file_name becomes the column image, and x_file_name
// the column x.
func (c *column) describe(cells []cell) {
	if prefix, ok := strings.CutSuffix(c.name, "file_name"); ok && cells != nil {
		if prefix == "" {
			c.name, c.kind, c.holdsImages = "image", imageKind, true
			return
		}
		if prefix, ok = strings.CutSuffix(prefix, "_"); ok {
			c.name, c.kind, c.holdsImages = prefix, imageKind, true
			return
		}
	}
	c.holdsLabels = cells != nil
}

// add appends a column.
func (t *table) add(c column, cells []cell) {
	if c.name == "" { // the index that pandas writes; its reader calls it so, too
		c.name = fmt.Sprintf("Unnamed: %d", len(t.columns))
	}
	t.columns = append(t.columns, c)
	t.cells = append(t.cells, cells)
}

// missing are the texts that pandas, with which datasets reads CSV, takes for null.
var missing = []string{
	"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
	"NULL", "NaN", "None", "n/a", "nan", "null",
}

func (t *table) readCSV(text []byte, separator rune) error {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))))
	r.Comma = separator
	r.LazyQuotes = true
	r.FieldsPerRecord = -1
	header, err := r.Read()
	if err != nil {
		return damaged("reading the header: %w", err)
	}
	texts := make([][]string, len(header))
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damaged("%w", err)
		}
		if len(record) > len(header) {
			line, _ := r.FieldPos(0)
			return damaged("line %d has %d fields, the header %d", line, len(record), len(header))
		}
		for i := range header {
			value := ""
			if i < len(record) {
				value = record[i]
			}
			texts[i] = append(texts[i], value)
		}
		t.rows++
	}
	for i, name := range header {
		t.add(column{name: name}, textCells(texts[i]))
	}
	return nil
}

// textCells gives a column of texts the type that all its values share: whole numbers, truth values or text; nil for
// fractions.
func textCells(texts []string) []cell {
	cells := make([]cell, len(texts))
	numbers, fractions, truths := true, true, true
	for i, text := range texts {
		cells[i].text = text
		if cells[i].null = slices.Contains(missing, text); cells[i].null {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		fractions = fractions && err == nil
		numbers = fractions && numbers && f == float64(int64(f))
		cells[i].n = int64(f)
		truths = truths && (strings.EqualFold(text, "true") || strings.EqualFold(text, "false"))
	}
	if fractions && !numbers {
		return nil
	}
	for i := range cells {
		switch {
		case cells[i].null:
			cells[i] = cell{null: true}
		case numbers:
			cells[i].number = true
		case truths:
			cells[i] = boolCell(strings.EqualFold(cells[i].text, "true"))
		}
	}
	return cells
}

// readJSON reads objects on lines of their own, or one list of them.
func (t *table) readJSON(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	list := bytes.HasPrefix(bytes.TrimSpace(text), []byte("["))
	if list {
		if _, err := decoder.Token(); err != nil {
			return damaged("%w", err)
		}
	}
	index := map[string]int{}
	usable := []bool{}
	for {
		if list && !decoder.More() {
			break
		}
		var row map[string]any
		if err := decoder.Decode(&row); errors.Is(err, io.EOF) && !list {
			break
		} else if err != nil {
			return damaged("row %d: %w", t.rows, err)
		}
		names := make([]string, 0, len(row))
		for name := range row {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if _, known := index[name]; !known {
				index[name] = len(t.columns)
				t.add(column{name: name}, slices.Repeat([]cell{{null: true}}, t.rows))
				usable = append(usable, true)
			}
		}
		for name, i := range index {
			value, ok := jsonCell(row[name])
			usable[i] = usable[i] && ok
			t.cells[i] = append(t.cells[i], value)
		}
		t.rows++
	}
	for i, ok := range usable {
		if !ok {
			t.cells[i] = nil
		}
	}
	return nil
}

func jsonCell(value any) (cell, bool) {
	switch v := value.(type) {
	case nil:
		return cell{null: true}, true
	case string:
		return cell{text: v}, true
	case bool:
		return boolCell(v), true
	case json.Number:
		n, err := v.Int64()
		return cell{number: true, n: n, text: v.String()}, err == nil
	case map[string]any: // an image as datasets stores it, by its path
		if path, ok := v["path"].(string); ok && v["bytes"] == nil {
			return cell{text: path}, true
		}
	}
	return cell{}, false
}

func (t *table) readParquet(text []byte) error {
	return guard(func() error {
		s := &parquetShard{name: t.name}
		if err := s.open(bytes.NewReader(text), int64(len(text))); err != nil {
			return err
		}
		declared, err := s.declared()
		if err != nil {
			return err
		}
		for _, c := range s.columns(declared) {
			var cells []cell
			if c.holdsLabels {
				err := s.each(s.pq.Root().Column(c.name).Index(), func(v parquet.Value) error {
					value, err := parquetCell(v)
					cells = append(cells, value)
					return err
				})
				if err != nil {
					return err
				}
			}
			t.add(column{name: c.name, kind: c.kind, names: c.names}, cells)
		}
		t.rows = s.rows()
		return nil
	})
}
