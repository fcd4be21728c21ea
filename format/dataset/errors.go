package dataset

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hubtool/hubtool/internal/nearest"
)

// What a caller may test with errors.Is. The first four mean that the user named something that is not there, and
// their text lists what is.
var (
	// ErrConfigName: the repository has no configuration of that name, or has several and none was chosen.
	ErrConfigName = errors.New("no such configuration")
	// ErrSplit: a split expression is malformed, names a split that does not exist or selects no rows.
	ErrSplit = errors.New("no such split")
	// ErrColumn: an image or label column does not exist, has an unusable type, or several fit and none was chosen.
	ErrColumn = errors.New("no such column")
	// ErrClass: a class was asked for that does not exist, twice, or of which there are no rows.
	ErrClass = errors.New("no such class")
	// ErrDamaged: a file contradicts itself or its format; reading the same bytes again will not help.
	ErrDamaged = errors.New("damaged file")
	// ErrUnsupported: the files are of a kind that this package does not read.
	ErrUnsupported = errors.New("unsupported data files")
	// ErrNoData: the directory holds no data files, or a data_files pattern matches none.
	ErrNoData = errors.New("no data files")
)

// Error says which file, and where known which row of it, could not be read.
type Error struct {
	Path string // file, as opened
	Row  int    // row inside the file, counted from 0; -1 when the error concerns the whole file
	Err  error
}

func (e *Error) Error() string {
	if e.Row < 0 {
		return fmt.Sprintf("reading %q: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("reading row %d of %q: %v", e.Row, e.Path, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

func fileError(path string, err error) error {
	return &Error{Path: path, Row: -1, Err: err}
}

func rowError(path string, row int, err error) error {
	return &Error{Path: path, Row: row, Err: err}
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}

// notFound words "no such X" errors: what was asked for, what is there, and what was probably meant.
func notFound(sentinel error, asked string, have []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%q%s", asked, nearest.DidYouMean(asked, have))
	if len(have) > 0 {
		fmt.Fprintf(&b, " (there is: %s)", strings.Join(have, ", "))
	}
	return fmt.Errorf("%w: %s", sentinel, b.String())
}
