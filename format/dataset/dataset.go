// Package dataset reads image-classification data sets from local disk: Hub data-set repositories, folders of parquet
// files, folders of images, WebDataset archives and tables that name image files. It finds configurations, splits, class names and rows as the Python package datasets
// does, so that a script and hubtool given the same directory see the same rows in the same order.
//
//	d, err := dataset.Open("food101", dataset.Options{})
//	rows, err := d.Select("train[:5000]")
//	train, test, err := rows.TrainTestSplit(0.1, 42)
//	row, err := train.At(0) // encoded image, label
//
// Nothing is fetched and no image is decoded here.
package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
)

// Options choose what Open reads. The zero value takes the default configuration and the only image and label columns.
type Options struct {
	Config      string // configuration; "" for the default one
	ImageColumn string // "" for the only column of type Image
	LabelColumn string // "" for the only column of type ClassLabel
	// Unlabelled permits a data set without a label column; every Label is then -1. Otherwise its absence is an error.
	Unlabelled bool
	// Cache is where images are unpacked to once, from parquet files whose layout does not allow fetching a single
	// row (most files written before 2025). Without a folder such files are decoded a row group at a time on every visit.
	Cache Cache
	Notes Notes
}

// Notes are told what takes a while. Any of them may be nil.
type Notes struct {
	// Unpacking is told the path of each file that is about to be unpacked into the cache: some seconds for a gigabyte.
	Unpacking func(path string)
	// TooLarge is told of each file that is not unpacked because the cache may not become that large, and why. It is
	// decoded a row group at a time on every visit.
	TooLarge func(path string, why error)
}

// Dataset is an opened data set. It is safe for concurrent use and keeps its files open until Close.
type Dataset struct {
	dir     string
	configs []string
	config  string
	splits  []split
	shards  []shard
	closers []io.Closer // archives, which several shards may share
	names   []string
	arrival *arrival // nil: all files are here
}

// split is a named run of whole shards.
type split struct {
	name         string
	first, after int // shards
	rows         int

	once sync.Once
	err  error
}

// shard is one file, or one folder's worth of files, of rows in a fixed order.
type shard interface {
	path() string
	rows() int
	// load prepares reading rows. It is called once, before row and label.
	load() error
	row(i int) (Row, error)
	label(i int) int
	Close() error
}

// SplitInfo describes a split of a data set.
type SplitInfo struct {
	Name string
	Rows int
}

// Open finds the splits and class names of the data set in dir. It reads headers and listings, no images.
//
// Errors: os.ErrNotExist, ErrNoData, ErrConfigName, ErrColumn, ErrUnsupported and ErrDamaged, by errors.Is.
func Open(dir string, opts Options) (*Dataset, error) {
	d := &Dataset{dir: dir}
	if err := d.open(context.Background(), opts); err != nil {
		return nil, errors.Join(fmt.Errorf("opening data set %q: %w", dir, err), d.Close())
	}
	return d, nil
}

func (d *Dataset) open(ctx context.Context, opts Options) error {
	info, err := os.Stat(d.dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: a data set is a directory, this is a file", ErrUnsupported)
	}
	c, err := readCard(d.dir)
	if err != nil {
		return err
	}
	files, err := d.listing()
	if err != nil {
		return err
	}
	if c.configs == nil {
		c.configs = files.convertedConfigs()
	}
	cfg, err := c.choose(opts.Config)
	if err != nil {
		return err
	}
	d.config, d.configs = cfg.name, c.configNames()
	files = files.below(cfg.dataDir)
	if cfg.patterns == nil {
		if cfg.patterns, err = files.findPatterns(); err != nil {
			return err
		}
	}
	splits, err := files.resolve(cfg.patterns)
	if err != nil {
		return err
	}
	kind, err := files.inferKind(splits)
	if err != nil {
		return err
	}
	keep(kind, splits)
	declared := c.info(cfg, opts.Config)
	switch {
	case d.arrival != nil && kind != parquetKind:
		return fmt.Errorf("%w: these are %s files", ErrStreaming, kind)
	case d.arrival != nil:
		return d.openArriving(ctx, files, splits, declared, opts)
	}
	switch kind {
	case parquetKind:
		err = d.openParquet(files, splits, declared.features, opts)
	case imageFolderKind:
		err = d.openFolder(files, splits, cfg, opts)
	case webDatasetKind:
		err = d.openWebDataset(files, splits, declared.features, opts)
	case csvKind, jsonKind:
		err = d.openTables(files, splits, declared.features, opts)
	case "arrow":
		err = fmt.Errorf("%w: these are the arrow files of save_to_disk; write them with push_to_hub or to_parquet instead", ErrUnsupported)
	default:
		err = fmt.Errorf("%w: these are %s files; parquet, folders of images, WebDataset tar files and tables that name images are read", ErrUnsupported, kind)
	}
	if err != nil {
		return err
	}
	return d.checkRows(declared.rows)
}

// listing is what the directory holds, or will hold.
func (d *Dataset) listing() (*tree, error) {
	if d.arrival != nil {
		t := &tree{root: d.dir}
		for _, f := range d.arrival.files {
			t.files = append(t.files, f.Name)
		}
		return t, nil
	}
	return listTree(d.dir)
}

// checkRows compares the splits with the numbers of rows that the card declares, as datasets does: a shard that is
// missing would otherwise go unnoticed.
func (d *Dataset) checkRows(declared map[string]int) error {
	for _, s := range d.Splits() {
		if want, ok := declared[s.Name]; ok && want != s.Rows {
			return damaged("split %q has %d rows, its card declares %d; fetch the missing files or correct dataset_info", s.Name, s.Rows, want)
		}
	}
	for name := range declared {
		if d.split(name) == nil {
			return damaged("the card declares split %q, which has no files; fetch them or correct dataset_info", name)
		}
	}
	return nil
}

// add appends a split made of the given shards.
func (d *Dataset) add(name string, shards []shard) {
	d.splits = append(d.splits, split{name: name, first: len(d.shards), after: len(d.shards) + len(shards)})
	d.shards = append(d.shards, shards...)
	s := &d.splits[len(d.splits)-1]
	for _, shard := range shards {
		s.rows += shard.rows()
	}
}

// Close closes the files. Rows cannot be read afterwards.
func (d *Dataset) Close() error {
	var errs []error
	for _, s := range d.shards {
		errs = append(errs, s.Close())
	}
	for _, c := range d.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Dir is the folder that holds it: of a repository, the one of a commit.
func (d *Dataset) Dir() string { return d.dir }

// Configs lists the configurations of the data set; a repository that declares none has one called default.
func (d *Dataset) Configs() []string { return slices.Clone(d.configs) }

// Config is the name of the configuration that was opened.
func (d *Dataset) Config() string { return d.config }

// Splits lists the splits in the data set's own order.
func (d *Dataset) Splits() []SplitInfo {
	infos := make([]SplitInfo, len(d.splits))
	for i := range d.splits {
		infos[i] = SplitInfo{d.splits[i].name, d.splits[i].rows}
	}
	return infos
}

// ClassNames returns the names of the labels, in label order; empty for an unlabelled data set.
func (d *Dataset) ClassNames() []string { return slices.Clone(d.names) }

// Select returns the rows that a split expression names, in the slicing language of datasets: a split, optionally with
// a slice in rows or whole percents, and sums of those, such as
//
//	train    train[:5000]    train[10%:20%]    train[-100:]    train[:90%]+validation
//
// Percentages round to the nearest row, halves to even; "(pct1_dropremainder)" after the slice counts whole
// hundredths. The word all, alone, is the sum of all splits. An expression that selects nothing is an error, ErrSplit, as is an unknown split.
func (d *Dataset) Select(expr string) (*Rows, error) {
	sum := expr
	if expr == "all" {
		sum = strings.Join(d.splitNames(), "+")
	}
	terms, err := parseSplit(sum)
	if err != nil {
		return nil, err
	}
	rows := &Rows{dataset: d}
	for _, term := range terms {
		s := d.split(term.split)
		if s == nil {
			return nil, notFound(ErrSplit, term.split, d.splitNames())
		}
		from, to, err := term.bounds(s.rows)
		if err != nil {
			return nil, err
		}
		if from >= to {
			continue
		}
		if err := d.load(s); err != nil {
			return nil, err
		}
		rows.refs = d.appendRefs(rows.refs, s, from, to)
	}
	if len(rows.refs) == 0 {
		return nil, fmt.Errorf("%w: %q selects no rows (there is: %s)", ErrSplit, expr, d.sizes())
	}
	return rows, nil
}

// appendRefs adds rows [from, to) of a split.
func (d *Dataset) appendRefs(refs []rowRef, s *split, from, to int) []rowRef {
	start := 0
	for k := s.first; k < s.after && start < to; k++ {
		n := d.shards[k].rows()
		for i := max(from-start, 0); i < min(to-start, n); i++ {
			refs = append(refs, rowRef{uint32(k), uint32(i)})
		}
		start += n
	}
	return refs
}

// load prepares a split's shards once, however many selections use it.
func (d *Dataset) load(s *split) error {
	s.once.Do(func() {
		for _, shard := range d.shards[s.first:s.after] {
			if s.err = shard.load(); s.err != nil {
				return
			}
		}
	})
	return s.err
}

func (d *Dataset) split(name string) *split {
	for i := range d.splits {
		if d.splits[i].name == name {
			return &d.splits[i]
		}
	}
	return nil
}

func (d *Dataset) splitNames() []string {
	names := make([]string, len(d.splits))
	for i := range d.splits {
		names[i] = d.splits[i].name
	}
	return names
}

func (d *Dataset) sizes() string {
	parts := make([]string, len(d.splits))
	for i := range d.splits {
		parts[i] = fmt.Sprintf("%s with %d rows", d.splits[i].name, d.splits[i].rows)
	}
	return strings.Join(parts, ", ")
}
