package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/format"
)

func (e *env) inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "describe an adapter, a model or a .safetensors file",
		ArgsUsage: "REF [FILE]",
		Description: "Of the weights only the headers are read, also of a repository that is not in the cache. FILE is one of\n" +
			"the repository's files of weights, or of the folder's.",
		Action: func(c *cli.Context) error {
			report, err := e.inspectRef(c.Context, c.Args().First(), c.Args().Get(1))
			if err != nil {
				return err
			}
			return e.result(func(w io.Writer) { describe(w, report) }, report)
		},
	}
}

func describe(w io.Writer, r *format.Report) {
	if a := r.AdapterReport; a != nil {
		base := "unknown"
		if a.BaseModel != nil {
			base = *a.BaseModel
		}
		fmt.Fprintf(w, "adapter     %s, rank %s, alpha %s\n", oneLine(a.PeftType), orDash(a.R), orDash(a.Alpha))
		fmt.Fprintf(w, "base model  %s\n", oneLine(base))
		fmt.Fprintf(w, "adapts      %d modules\n", len(a.Modules))
		if len(a.ModulesToSave) > 0 {
			fmt.Fprintf(w, "saves whole %s\n", oneLine(strings.Join(a.ModulesToSave, ", ")))
		}
		fmt.Fprintf(w, "parameters  %d in %d tensors\n", r.Parameters, len(r.Tensors))
	}
	if m := r.ModelReport; m != nil {
		fmt.Fprintf(w, "model       %s\n", oneLine(cmp.Or(strings.Join(m.Architectures, ", "), "-")))
		fmt.Fprintf(w, "parameters  %d in %d tensors, %s\n", r.Parameters, len(r.Tensors), byteSize(m.Bytes))
		for _, name := range slices.Sorted(maps.Keys(m.DTypes)) {
			fmt.Fprintf(w, "%-11s %d parameters\n", name, m.DTypes[name])
		}
		for _, s := range m.Shards {
			fmt.Fprintf(w, "file        %s, %s, %d tensors\n", oneLine(s.Name), byteSize(s.Size), s.Tensors)
		}
	}
	fmt.Fprintln(w)
	for _, t := range r.Tensors {
		fmt.Fprintf(w, "%-5s %-16s %s\n", t.DType, strings.ReplaceAll(fmt.Sprint(t.Shape), " ", ", "), oneLine(t.Name))
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "warning: %s\n", oneLine(warning))
	}
}

func orDash(raw json.RawMessage) string {
	if raw == nil {
		return "-"
	}
	return oneLine(string(raw))
}
