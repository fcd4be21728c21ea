package format

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Kinds of failure that callers tell apart with [errors.Is].
var (
	// ErrDamaged marks a file that breaks the rules of its format, by accident
	// or on purpose.
	ErrDamaged = errors.New("damaged file")

	// ErrUnsupported marks a sound file of a kind this package does not read.
	ErrUnsupported = errors.New("unsupported file")

	// ErrConfig marks a JSON configuration with a missing or malformed field.
	ErrConfig = errors.New("malformed configuration")
)

// An Error says which file, and where known which tensor, an operation failed on.
type Error struct {
	Op     string // what was being done, a gerund: "reading header of"
	Path   string // the file; empty for bytes in memory
	Tensor string // the tensor; empty when the whole file is at fault
	Kind   error  // ErrDamaged, ErrUnsupported, ErrConfig, or nil
	Err    error  // the cause
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
		if e.Path != "" {
			fmt.Fprintf(&b, " %q", e.Path)
		}
		b.WriteString(": ")
	}
	if e.Tensor != "" {
		fmt.Fprintf(&b, "tensor %q: ", e.Tensor)
	}
	fmt.Fprint(&b, e.Err)
	return b.String()
}

// Unwrap makes errors.Is see both the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Kind == nil {
		return []error{e.Err}
	}
	return []error{e.Kind, e.Err}
}

// damaged is an ErrDamaged about one tensor, or about the file if tensor is empty.
func damaged(tensor, msg string, args ...any) *Error {
	return &Error{Tensor: tensor, Kind: ErrDamaged, Err: fmt.Errorf(msg, args...)}
}

// at adds what was being done to which file. The path that package os repeats
// in its own errors is dropped.
func at(op, path string, err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) && e.Op == "" {
		full := *e
		full.Op, full.Path = op, path
		return &full
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return &Error{Op: op, Path: path, Err: err}
}
