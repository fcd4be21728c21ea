package dataset

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
)

// Row is one labelled image.
type Row struct {
	Image []byte // the encoded file (PNG, JPEG, …), never decoded here; the caller owns the slice
	Path  string // the file's name where the data set keeps one, otherwise ""; for messages, not for opening
	Label int    // index into ClassNames; -1 where the row has no label
}

// Rows is an ordered selection of rows. It is immutable and safe for concurrent use.
type Rows struct {
	dataset *Dataset
	refs    []rowRef
	classes *classSubset // nil: all classes of the data set
}

// classSubset renumbers labels.
type classSubset struct {
	names []string
	code  []int // by the data set's label; -1 where the class is left out
}

// rowRef names a row by shard and position in the shard, eight bytes a row.
type rowRef struct {
	shard, row uint32
}

// Len returns the number of rows.
func (r *Rows) Len() int { return len(r.refs) }

// ClassNames returns the label names in label order: those of the data set, unless [Rows.OnlyClasses] chose some.
func (r *Rows) ClassNames() []string {
	if r.classes != nil {
		return slices.Clone(r.classes.names)
	}
	return r.dataset.ClassNames()
}

// OnlyClasses returns the rows of the named classes, in the order of the rows. Label n is then the class names[n]: the
// data set is as if it had no others. Unknown names, names given twice and a selection without rows are errors, ErrClass.
func (r *Rows) OnlyClasses(names []string) (*Rows, error) {
	have := r.ClassNames()
	for i, name := range names {
		if !slices.Contains(have, name) {
			return nil, notFound(ErrClass, name, have)
		}
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("%w: %q is named twice", ErrClass, name)
		}
	}
	chosen := r.NumberedAs(names)
	if chosen.Len() == 0 {
		return nil, fmt.Errorf("%w: none of the %d rows is of a class in %q", ErrClass, len(r.refs), names)
	}
	return chosen, nil
}

// NumberedAs returns the rows whose class is among names, in the order of the rows: label n is the class names[n], as a
// model numbers it, and a name that the data set does not have is of no row.
func (r *Rows) NumberedAs(names []string) *Rows {
	subset := &classSubset{names: slices.Clone(names), code: slices.Repeat([]int{-1}, len(r.dataset.names))}
	for label, name := range r.ClassNames() {
		if r.classes != nil {
			label = slices.Index(r.classes.code, label)
		}
		if label >= 0 {
			subset.code[label] = slices.Index(names, name)
		}
	}
	chosen := &Rows{dataset: r.dataset, classes: subset}
	for _, ref := range r.refs {
		if label := r.dataset.shards[ref.shard].label(int(ref.row)); label >= 0 && subset.code[label] >= 0 {
			chosen.refs = append(chosen.refs, ref)
		}
	}
	return chosen
}

// recode gives a label of the data set its number among the chosen classes.
func (r *Rows) recode(label int) int {
	if r.classes == nil || label < 0 {
		return label
	}
	return r.classes.code[label]
}

// At reads row i, counted from 0. It panics when i is out of range, as a slice does; a row that cannot be read is an
// *Error that names the file and the row in it.
func (r *Rows) At(i int) (Row, error) {
	ref := r.refs[i]
	s := r.dataset.shards[ref.shard]
	row, err := s.row(int(ref.row))
	if err != nil {
		path, at := r.Where(i)
		return Row{}, rowError(path, at, err)
	}
	row.Label = r.recode(row.Label)
	return row, nil
}

// Where returns the file that row i lies in, or the folder of its images, and its number there, counted from 0.
func (r *Rows) Where(i int) (path string, row int) {
	ref := r.refs[i]
	s := r.dataset.shards[ref.shard]
	if a, ok := s.(*arriving); ok {
		return a.where(int(ref.row))
	}
	return s.path(), int(ref.row)
}

// Wait returns when row i can be read without waiting for a file that has not come yet, see [OpenArriving], with the
// error that [Dataset.Fetch] ended with if the row never comes.
func (r *Rows) Wait(ctx context.Context, i int) error {
	ref := r.refs[i]
	if a, ok := r.dataset.shards[ref.shard].(*arriving); ok {
		return a.wait(ctx, int(ref.row))
	}
	return nil
}

// InFileOrder returns the same rows in the order of the data set's files.
func (r *Rows) InFileOrder() *Rows {
	sorted := *r
	sorted.refs = slices.Clone(r.refs)
	slices.SortStableFunc(sorted.refs, func(a, b rowRef) int { return cmp.Or(cmp.Compare(a.shard, b.shard), cmp.Compare(a.row, b.row)) })
	return &sorted
}

// Label returns the label of row i without reading its image.
func (r *Rows) Label(i int) int {
	ref := r.refs[i]
	return r.recode(r.dataset.shards[ref.shard].label(int(ref.row)))
}

// Pick returns the rows at the given positions, in that order. A position may occur more than once.
func (r *Rows) Pick(positions []int) *Rows {
	refs := make([]rowRef, len(positions))
	for i, p := range positions {
		refs[i] = r.refs[p]
	}
	return &Rows{r.dataset, refs, r.classes}
}

// TrainTestSplit shuffles the rows and divides them in two, exactly as Dataset.train_test_split(test_size, seed=seed)
// of the Python package does: the same rows in the same order on both sides.
//
// A testSize below 1 is a share of the rows, rounded up; from 1 it is a number of rows and must be whole. The only error
// is a testSize that leaves no rows on a side.
func (r *Rows) TrainTestSplit(testSize float64, seed uint64) (train, test *Rows, err error) {
	n := len(r.refs)
	var tests int
	switch {
	case testSize > 0 && testSize < 1:
		tests = int(math.Ceil(testSize * float64(n)))
	case testSize >= 1 && testSize == math.Trunc(testSize) && testSize < float64(n):
		tests = int(testSize)
	default:
		return nil, nil, fmt.Errorf("splitting %d rows: test size %v is neither a share between 0 and 1 nor a whole number below %d",
			n, testSize, n)
	}
	if tests >= n {
		return nil, nil, fmt.Errorf("splitting %d rows: test size %v leaves no training rows; use a smaller one", n, testSize)
	}
	order := newGenerator(seed).permutation(n)
	return r.Pick(order[tests:]), r.Pick(order[:tests]), nil
}

// Counts returns how many rows each class has, in label order, and how many rows have no label.
func (r *Rows) Counts() (classes []int, unlabelled int) {
	classes = make([]int, len(r.ClassNames()))
	for i := range r.refs {
		if label := r.Label(i); label >= 0 {
			classes[label]++
		} else {
			unlabelled++
		}
	}
	return classes, unlabelled
}
