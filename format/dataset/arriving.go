package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
)

// ErrStreaming means that a data set cannot be used before all of it is here: it is not made of Parquet files, its card does not say
// how many rows its splits have, or its labels are not of a type that names the classes.
var ErrStreaming = errors.New("not readable before all of it is here")

// arrival is where the files of a data set come from while it is in use.
type arrival struct {
	files  []File
	fetch  func(ctx context.Context, name string) error
	splits []*arriving
}

// File is a file of a data set that may still have to come.
type File struct {
	Name string // slash-separated, relative to the data set's directory
	Size int64  // bytes
}

// OpenArriving opens a data set of Parquet files of which only the card need be in dir yet. files are all its files; fetch brings one of them there. The first data file is fetched at once, the others
// by [Dataset.Fetch]. Until then the sizes of splits are those that the card declares, and a row that has not come makes
// its reader wait.
//
// The rows are those that [Open] would find, in the same order. The error is ErrStreaming where that cannot be promised.
func OpenArriving(ctx context.Context, dir string, files []File, fetch func(ctx context.Context, name string) error, opts Options) (*Dataset, error) {
	d := &Dataset{dir: dir, arrival: &arrival{files: slices.Clone(files), fetch: fetch}}
	slices.SortFunc(d.arrival.files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	if err := d.open(ctx, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("opening data set %q: %w", dir, err), d.Close())
	}
	return d, nil
}

// openArriving takes the place of openParquet: the first file settles the columns for all.
func (d *Dataset) openArriving(ctx context.Context, files *tree, splits []splitFiles, declared info, opts Options) error {
	first := &arriving{dataset: d, opts: opts, changed: make(chan struct{})}
	for i, s := range splits {
		a := first
		if i > 0 {
			a = &arriving{dataset: d, opts: opts, changed: make(chan struct{})}
		}
		a.total = declared.rows[s.split]
		if a.total == 0 {
			return fmt.Errorf("%w: the card does not say how many rows the split %q has", ErrStreaming, s.split)
		}
		for _, f := range s.files {
			name := filepath.Join(files.root, filepath.FromSlash(f))
			if strings.HasSuffix(f, ".zip") {
				return fmt.Errorf("%w: %q is an archive", ErrStreaming, f)
			}
			a.files = append(a.files, name)
		}
		d.arrival.splits = append(d.arrival.splits, a)
		d.add(s.split, []shard{a})
	}
	shard, err := first.fetchNext(ctx)
	if err != nil {
		return err
	}
	if declared.features == nil {
		if declared.features, err = shard.declared(); err != nil {
			return errors.Join(err, shard.Close())
		}
	}
	columns := shard.columns(declared.features)
	image, err := chooseImage(columns, opts.ImageColumn)
	if err != nil {
		return errors.Join(err, shard.Close())
	}
	label, err := chooseLabel(columns, opts)
	if err == nil && label.name != "" && label.kind != classLabelKind {
		err = fmt.Errorf("%w: the classes in column %q are not declared", ErrStreaming, label.name)
	}
	if err != nil {
		return errors.Join(err, shard.Close())
	}
	d.names = label.names
	coder, err := newLabelCoder(d.names)
	if err != nil {
		return errors.Join(err, shard.Close())
	}
	for _, a := range d.arrival.splits {
		a.imageColumn, a.labelColumn, a.coder = image.name, label.name, coder
	}
	return first.publish(shard)
}

// Fetch brings the files that the rows need, those of the first argument first, in the order of the data set, and makes
// their rows readable as they come. Images that cannot be read in place are unpacked into the cache meanwhile. It returns
// when all is here; an error is also what waiting readers get.
func (d *Dataset) Fetch(ctx context.Context, rows ...*Rows) error {
	if d.arrival == nil {
		return nil
	}
	unpack := make(chan func(), 1024)
	var unpacking sync.WaitGroup
	unpacking.Go(func() {
		for work := range unpack {
			if ctx.Err() == nil {
				work()
			}
		}
	})
	err := d.fetch(ctx, rows, unpack)
	close(unpack)
	unpacking.Wait()
	if err != nil {
		for _, a := range d.arrival.splits {
			a.fail(err)
		}
	}
	return err
}

func (d *Dataset) fetch(ctx context.Context, rows []*Rows, unpack chan<- func()) error {
	for _, a := range d.arrival.splits {
		a.unpackAll(unpack) // what came when the data set was opened
	}
	for _, r := range rows {
		for s, a := range d.arrival.splits {
			for need := r.reach(d.splits[s].first); a.here() < need; {
				shard, err := a.fetchNext(ctx)
				if err != nil {
					return err
				}
				if err := a.publish(shard); err != nil {
					return err
				}
				a.unpackAll(unpack)
			}
		}
	}
	return nil
}

// reach is how many rows of a shard must be there for these rows.
func (r *Rows) reach(shard int) int {
	need := 0
	for _, ref := range r.refs {
		if int(ref.shard) == shard {
			need = max(need, int(ref.row)+1)
		}
	}
	return need
}

// arriving is a split whose files come one after another. To the data set it is one shard.
type arriving struct {
	dataset *Dataset
	opts    Options
	files   []string
	total   int // rows, as declared

	imageColumn, labelColumn string
	coder                    *labelCoder

	mu      sync.Mutex
	shards  []*parquetShard // of the first files
	ends    []int           // rows up to the end of each
	packed  int             // shards that unpackAll has seen
	err     error
	changed chan struct{} // closed at every change
	retired []io.Closer   // files of shards that were replaced, which somebody may still read
}

// fetchNext brings the next file and opens it.
func (a *arriving) fetchNext(ctx context.Context) (*parquetShard, error) {
	k := len(a.shards)
	if k == len(a.files) {
		return nil, damaged("the files of a split have %d rows, its card declares %d; correct dataset_info", a.here(), a.total)
	}
	name, err := filepath.Rel(a.dataset.dir, a.files[k])
	if err != nil {
		return nil, err
	}
	if err := a.dataset.arrival.fetch(ctx, filepath.ToSlash(name)); err != nil {
		return nil, err
	}
	return openParquetShard(a.dataset.dir, a.files[k], a.opts)
}

// publish makes the rows of an opened file readable: in place, or by row groups until they are unpacked.
func (a *arriving) publish(s *parquetShard) error {
	s.cache = Cache{}
	if err := a.prepare(s); err != nil {
		return errors.Join(err, s.Close())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	end := s.rows()
	if n := len(a.ends); n > 0 {
		end += a.ends[n-1]
	}
	a.shards, a.ends = append(a.shards, s), append(a.ends, end)
	if end > a.total || len(a.shards) == len(a.files) && end < a.total {
		return fileError(s.name, damaged("with this file its split has %d rows, its card declares %d; correct dataset_info", end, a.total))
	}
	close(a.changed)
	a.changed = make(chan struct{})
	return nil
}

func (a *arriving) prepare(s *parquetShard) error {
	if err := s.use(a.imageColumn, a.labelColumn); err != nil {
		return err
	}
	s.setCoder(a.coder)
	return s.load()
}

// unpackAll queues the unpacking of the files that are read by row groups.
func (a *arriving) unpackAll(queue chan<- func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for ; a.packed < len(a.shards); a.packed++ {
		if _, ok := a.shards[a.packed].store.(*groups); ok && a.opts.Cache.Dir != "" {
			k := a.packed
			queue <- func() { a.unpack(k) }
		}
	}
}

// unpack puts a shard with a record file in the place of one that is read by row groups. Where that fails the latter
// goes on serving.
func (a *arriving) unpack(k int) {
	s, err := openParquetShard(a.dataset.dir, a.files[k], a.opts)
	if err != nil {
		return
	}
	if err := a.prepare(s); err != nil {
		s.Close()
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.retired = append(a.retired, a.shards[k].file)
	a.shards[k] = s
}

func (a *arriving) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
		close(a.changed)
		a.changed = make(chan struct{})
	}
}

// here is how many rows are readable.
func (a *arriving) here() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ends) == 0 {
		return 0
	}
	return a.ends[len(a.ends)-1]
}

// wait returns when row i is readable, or never will be.
func (a *arriving) wait(ctx context.Context, i int) error {
	for {
		a.mu.Lock()
		err, changed := a.err, a.changed
		here := len(a.ends) > 0 && i < a.ends[len(a.ends)-1]
		a.mu.Unlock()
		switch {
		case here:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// find returns the file that holds row i, which it waits for, and the row's number there.
func (a *arriving) find(i int) (*parquetShard, int, error) {
	if err := a.wait(context.Background(), i); err != nil {
		return nil, 0, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	k := sort.SearchInts(a.ends, i+1)
	if k > 0 {
		i -= a.ends[k-1]
	}
	return a.shards[k], i, nil
}

func (a *arriving) path() string { return filepath.Dir(a.files[0]) }
func (a *arriving) rows() int    { return a.total }
func (a *arriving) load() error  { return nil }

func (a *arriving) row(i int) (Row, error) {
	s, k, err := a.find(i)
	if err != nil {
		return Row{}, err
	}
	return s.row(k)
}

// where is the file of row i and the row's number there; of a row that has not come, the folder and its number in the
// split.
func (a *arriving) where(i int) (string, int) {
	if i >= a.here() {
		return a.path(), i
	}
	s, k, err := a.find(i)
	if err != nil {
		return a.path(), i
	}
	return s.path(), k
}

// label is -1 also where the row will never come: reading it says why.
func (a *arriving) label(i int) int {
	s, k, err := a.find(i)
	if err != nil {
		return -1
	}
	return s.label(k)
}

// size is what the split's files take, or will take.
func (a *arriving) size() int64 {
	total := int64(0)
	for _, f := range a.dataset.arrival.files {
		if slices.Contains(a.files, filepath.Join(a.dataset.dir, filepath.FromSlash(f.Name))) {
			total += f.Size
		}
	}
	return total
}

func (a *arriving) Close() error {
	var errs []error
	for _, s := range a.shards {
		errs = append(errs, s.Close())
	}
	for _, f := range a.retired {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
