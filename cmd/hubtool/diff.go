package main

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

func (e *env) diffCommand() *cli.Command {
	return &cli.Command{
		Name:        "diff",
		Usage:       "compare the tensors of two models, adapters or .safetensors files",
		ArgsUsage:   "REF REF",
		Description: "Lists tensors that differ, and by how much. Differences are no error. Names count without a prefix that\nonly one side has, such as vit. before those of a classifier.",
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usage("reading the command line", "diff takes two REFs")
			}
			return e.diff(c.Context, c.Args().Get(0), c.Args().Get(1))
		},
	}
}

// diffReport is what diff prints.
type diffReport struct {
	First   string              `json:"first"`
	Second  string              `json:"second"`
	Equal   int                 `json:"equal"` // tensors
	Tensors []format.Difference `json:"tensors"`
}

func (e *env) diff(ctx context.Context, first, second string) error {
	r := diffReport{First: first, Second: second}
	var open [2]*format.Checkpoint
	for i, ref := range []string{first, second} {
		path, err := e.model(ctx, ref)
		if err != nil {
			return err
		}
		if open[i], err = format.Open(adapters.Dir(path)); err != nil {
			return err
		}
		defer open[i].Close()
	}
	list, equal, err := format.Diff(ctx, open[0], open[1], func(done, total int) {
		e.report(step{Task: "comparing", Done: int64(done), Total: int64(total), Unit: "tensors"})
	})
	if err != nil {
		return err
	}
	r.Equal, r.Tensors = equal, orEmpty(list)
	for i, d := range r.Tensors { // JSON has no such numbers
		if math.IsNaN(d.MaxAbs) || math.IsInf(d.MaxAbs, 0) || math.IsNaN(d.RMS) || math.IsInf(d.RMS, 0) {
			r.Tensors[i].MaxAbs, r.Tensors[i].RMS, r.Tensors[i].Detail = 0, 0, "values that are not finite"
		}
	}
	return e.result(r.text, r)
}

func (r diffReport) text(w io.Writer) {
	for _, d := range r.Tensors {
		fmt.Fprintf(w, "%-14s %s", d.Status, oneLine(d.Name))
		if d.Detail != "" {
			fmt.Fprintf(w, "  %s", d.Detail)
		}
		if d.Different > 0 {
			fmt.Fprintf(w, "  %d of %d elements, at most %.3g, rms %.3g", d.Different, d.Elements, d.MaxAbs, d.RMS)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%d tensors equal, %d not\n", r.Equal, len(r.Tensors))
}
