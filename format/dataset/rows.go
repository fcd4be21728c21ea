package dataset

import (
	"fmt"
	"math"
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
}

// rowRef names a row by shard and position in the shard, eight bytes a row.
type rowRef struct {
	shard, row uint32
}

// Len returns the number of rows.
func (r *Rows) Len() int { return len(r.refs) }

// ClassNames returns the label names, in label order, of the data set that the rows belong to.
func (r *Rows) ClassNames() []string { return r.dataset.ClassNames() }

// At reads row i, counted from 0. It panics when i is out of range, as a slice does; a row that cannot be read is an
// *Error that names the file and the row in it.
func (r *Rows) At(i int) (Row, error) {
	ref := r.refs[i]
	s := r.dataset.shards[ref.shard]
	row, err := s.row(int(ref.row))
	if err != nil {
		return Row{}, rowError(s.path(), int(ref.row), err)
	}
	return row, nil
}

// Where returns the file that row i lies in, or the folder of its images, and its number there, counted from 0.
func (r *Rows) Where(i int) (path string, row int) {
	ref := r.refs[i]
	return r.dataset.shards[ref.shard].path(), int(ref.row)
}

// Label returns the label of row i without reading its image.
func (r *Rows) Label(i int) int {
	ref := r.refs[i]
	return r.dataset.shards[ref.shard].label(int(ref.row))
}

// Pick returns the rows at the given positions, in that order. A position may occur more than once.
func (r *Rows) Pick(positions []int) *Rows {
	refs := make([]rowRef, len(positions))
	for i, p := range positions {
		refs[i] = r.refs[p]
	}
	return &Rows{r.dataset, refs}
}

// TrainTestSplit shuffles the rows and divides them in two, exactly as Dataset.train_test_split(test_size, seed=seed)
// of the Python package does: the same rows in the same order on both sides.
//
// A testSize below 1 is a share of the rows, rounded up; from 1 it is a number of rows and must be whole.
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
	classes = make([]int, len(r.dataset.names))
	for i := range r.refs {
		if label := r.Label(i); label >= 0 {
			classes[label]++
		} else {
			unlabelled++
		}
	}
	return classes, unlabelled
}
