package dataset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// cell is a value as a file stores it: a whole number, a text or null. Labels come as any of them.
type cell struct {
	null   bool
	number bool
	n      int64
	text   string
}

// labelCoder turns stored labels into indexes of names.
type labelCoder struct {
	names  []string
	byName map[string]int
}

func newLabelCoder(names []string) (*labelCoder, error) {
	c := &labelCoder{names, make(map[string]int, len(names))}
	for i, name := range names {
		if _, twice := c.byName[name]; twice {
			return nil, damaged("the class name %q occurs twice", name)
		}
		c.byName[name] = i
	}
	return c, nil
}

// code follows ClassLabel of datasets: a name may have spaces around it or be a number in quotes; null and -1 mean that
// the row has no label.
func (c *labelCoder) code(v cell) (int, error) {
	if v.null {
		return -1, nil
	}
	if !v.number {
		if i, ok := c.byName[v.text]; ok {
			return i, nil
		}
		if i, ok := c.byName[strings.TrimSpace(v.text)]; ok {
			return i, nil
		}
		n, err := strconv.ParseInt(strings.TrimSpace(v.text), 10, 64)
		if err != nil {
			return 0, damaged("the label %q is none of the %d class names", v.text, len(c.names))
		}
		v.n = n
	}
	if v.n < -1 || v.n >= int64(len(c.names)) {
		return 0, damaged("the label %d is outside the %d classes", v.n, len(c.names))
	}
	return int(v.n), nil
}

// maxPlainClasses bounds the class numbers of a column that does not declare its classes; larger ones are identifiers
// of something else.
const maxPlainClasses = 1 << 16

// labelScanner collects the classes of a column that is not declared as a ClassLabel. Names are sorted, as
// class_encode_column does; numbers stay as they are and are their own names, so that label n is class n.
type labelScanner struct {
	names   map[string]bool
	highest int64
	numbers bool
}

func newLabelScanner() *labelScanner {
	return &labelScanner{names: map[string]bool{}, highest: -1}
}

func (s *labelScanner) add(v cell) error {
	switch {
	case v.null:
		return nil
	case !v.number:
		s.names[v.text] = true
	case v.n < -1 || v.n >= maxPlainClasses:
		return fmt.Errorf("%w: %d is no class number", ErrColumn, v.n)
	default:
		s.numbers = true
		s.highest = max(s.highest, v.n)
	}
	if s.numbers && len(s.names) > 0 {
		return fmt.Errorf("%w: labels are names in some files and numbers in others", ErrColumn)
	}
	return nil
}

func (s *labelScanner) classes() []string {
	if s.numbers {
		return numberNames(int(s.highest) + 1)
	}
	names := make([]string, 0, len(s.names))
	for name := range s.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// parquetCell reads a value of an integer, string or boolean column.
func parquetCell(v parquet.Value) (cell, error) {
	switch v.Kind() {
	case parquet.Int32:
		return cell{number: true, n: int64(v.Int32())}, nil
	case parquet.Int64:
		return cell{number: true, n: v.Int64()}, nil
	case parquet.ByteArray:
		return cell{text: string(v.ByteArray())}, nil
	case parquet.Boolean:
		return boolCell(v.Boolean()), nil
	}
	if v.IsNull() {
		return cell{null: true}, nil
	}
	return cell{}, fmt.Errorf("%w: a label of type %s", ErrColumn, v.Kind())
}

// boolCell spells truth values as Python does: that is how class_encode_column names them.
func boolCell(b bool) cell {
	if b {
		return cell{text: "True"}
	}
	return cell{text: "False"}
}
