package dataset

import (
	"fmt"
	"slices"
	"strings"
)

// column is what choosing among columns needs to know about one.
type column struct {
	name  string
	kind  string   // the declared feature: "Image", "ClassLabel", another, or "" where none is declared
	names []string // of a ClassLabel

	holdsImages bool // its storage can be read as images
	holdsLabels bool // its storage can be read as labels
	imageLike   bool // a struct with bytes, which nothing but an image has
}

const (
	imageKind      = "Image"
	classLabelKind = "ClassLabel"
)

// chooseImage picks the image column: the one asked for, else the only one of type Image, else the only one that looks
// like it.
func chooseImage(columns []column, asked string) (column, error) {
	if asked != "" {
		c, err := askedColumn(columns, asked)
		if err == nil && !c.holdsImages {
			err = fmt.Errorf("%w: %q holds no images (there is: %s)", ErrColumn, asked, columnNames(columns, nil))
		}
		return c, err
	}
	return onlyColumn(columns, "image",
		func(c column) bool { return c.kind == imageKind && c.holdsImages },
		func(c column) bool { return c.imageLike },
	)
}

// chooseLabel picks the label column: the one asked for, else the only one of type ClassLabel, else the only one called
// label, labels or, as in a WebDataset, cls. An unlabelled data set gives a column without a name if that is permitted.
func chooseLabel(columns []column, opts Options) (column, error) {
	if asked := opts.LabelColumn; asked != "" {
		c, err := askedColumn(columns, asked)
		if err == nil && !c.holdsLabels {
			err = fmt.Errorf("%w: %q holds no labels (there is: %s)", ErrColumn, asked, columnNames(columns, nil))
		}
		return c, err
	}
	if opts.Unlabelled && !hasLabel(columns) {
		return column{}, nil
	}
	return onlyColumn(columns, "label", declaredLabel, conventionalLabel)
}

func declaredLabel(c column) bool { return c.kind == classLabelKind && c.holdsLabels }

func conventionalLabel(c column) bool {
	return slices.Contains([]string{"label", "labels", "cls"}, c.name) && c.holdsLabels
}

func hasLabel(columns []column) bool {
	return slices.ContainsFunc(columns, declaredLabel) || slices.ContainsFunc(columns, conventionalLabel)
}

func askedColumn(columns []column, asked string) (column, error) {
	for _, c := range columns {
		if c.name == asked {
			return c, nil
		}
	}
	var names []string
	for _, c := range columns {
		names = append(names, c.name)
	}
	return column{}, notFound(ErrColumn, asked, names)
}

// onlyColumn returns the column that meets the first condition which any column meets.
func onlyColumn(columns []column, role string, conditions ...func(column) bool) (column, error) {
	for _, fits := range conditions {
		candidates := 0
		var found column
		for _, c := range columns {
			if fits(c) {
				candidates++
				found = c
			}
		}
		switch {
		case candidates == 1:
			return found, nil
		case candidates > 1:
			return column{}, fmt.Errorf("%w: several columns could be the %s column; choose one of %s",
				ErrColumn, role, columnNames(columns, fits))
		}
	}
	return column{}, fmt.Errorf("%w: none is recognised as the %s column; name one (there is: %s)",
		ErrColumn, role, columnNames(columns, nil))
}

func columnNames(columns []column, fits func(column) bool) string {
	var names []string
	for _, c := range columns {
		if fits == nil || fits(c) {
			names = append(names, c.name)
		}
	}
	return strings.Join(names, ", ")
}
