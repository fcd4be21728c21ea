package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

// reduceOptions choose ranks, in all commands that make adapters of adapters.
type reduceOptions struct {
	rank   int
	energy float64
	size   string
	out    string
	names  string
	force  bool
}

func (o *reduceOptions) flags(size bool) []cli.Flag {
	list := []cli.Flag{
		&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write into `DIR`", Required: true, Destination: &o.out},
		count("rank", "give every module the rank `R`", 1, &o.rank),
		fraction("energy", "give every module the smallest rank that keeps a share `E` of its update's sum of squares, such as 0.99", &o.energy),
		choice("names", "names of modules: transformers5, transformers4 or both; default: as they are", &o.names, "transformers5", "transformers4", "both"),
		&cli.BoolFlag{Name: "force", Usage: "replace what is in DIR", Destination: &o.force},
	}
	if size {
		list = append(list, &cli.StringFlag{Name: "size", Usage: "choose ranks for a file of at most `SIZE`, such as 10MB", Destination: &o.size})
	}
	return list
}

// reduction checks what was chosen.
func (o *reduceOptions) reduction() (r adapters.Reduction, err error) {
	var problems []string
	given := 0
	for _, on := range []bool{o.rank != 0, o.energy != 0, o.size != ""} {
		if on {
			given++
		}
	}
	if given > 1 {
		problems = append(problems, "--rank, --energy and --size exclude each other")
	}
	r = adapters.Reduction{Rank: o.rank, Energy: o.energy}
	if o.size != "" {
		if r.Size, err = parseSize(o.size); err != nil {
			problems = append(problems, fmt.Sprintf("--size: %v", err))
		}
	}
	if entries, err := os.ReadDir(o.out); err == nil && len(entries) > 0 && !o.force {
		problems = append(problems, fmt.Sprintf("--out %q exists and is not empty: choose another folder, or --force", o.out))
	}
	if len(problems) > 0 {
		return r, usage("reading the command line", problems...)
	}
	return r, nil
}

// madeAdapter is what these commands print.
type madeAdapter struct {
	Out      string   `json:"out"`
	Adapters []string `json:"adapters,omitempty"`
	*adapters.Loss
	Bytes int64 `json:"bytes"`
}

func (m madeAdapter) text(w io.Writer) {
	fmt.Fprintln(w, m.Out)
	fmt.Fprintf(w, "%d modules, ", m.Modules)
	if m.Ranks[0] == m.Ranks[1] {
		fmt.Fprintf(w, "rank %d", m.Ranks[0])
	} else {
		fmt.Fprintf(w, "ranks %d to %d", m.Ranks[0], m.Ranks[1])
	}
	fmt.Fprintf(w, ", %d parameters, %s; relative error %.3g", m.Parameters, byteSize(m.Bytes), m.Relative)
	if m.WorstIn != "" {
		fmt.Fprintf(w, ", at most %.3g, in %s", m.Worst, oneLine(m.WorstIn))
	}
	fmt.Fprintln(w)
}

func (e *env) composeCommand() *cli.Command {
	o := reduceOptions{}
	combination := "cat"
	return &cli.Command{
		Name:      "compose",
		Usage:     "make one LoRA adapter of several, weighted with *W",
		ArgsUsage: "ADAPTER[*W]...",
		Description: "The new adapter's update is the sum of the others'; its rank is the sum of theirs unless --rank or\n" +
			"--energy finds the best one of lower rank. What adapters hold whole, such as a classifier or the\n" +
			"embeddings that PEFT saves beside an adapter of them, comes along; several must not differ in it.",
		Flags: append(o.flags(false),
			choice("combination", "cat: add updates; linear: add factors, as PEFT's combination_type of the same name", &combination, "cat", "linear")),
		Action: func(c *cli.Context) error {
			if c.NArg() < 1 {
				return usage("reading the command line", "compose takes at least one ADAPTER")
			}
			return e.recompose(c.Context, c.Args().Slice(), o, combination == "linear", "")
		},
	}
}

func (e *env) resizeCommand() *cli.Command {
	o := reduceOptions{}
	return &cli.Command{
		Name:        "resize",
		Usage:       "give an adapter another rank",
		ArgsUsage:   "ADAPTER",
		Description: "Keeps the best approximation of each update, which is found exactly.",
		Flags:       o.flags(true),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usage("reading the command line", "resize takes one ADAPTER")
			}
			if o.rank == 0 && o.energy == 0 && o.size == "" {
				return usage("reading the command line", "one of --rank, --energy and --size is needed")
			}
			return e.recompose(c.Context, c.Args().Slice(), o, false, "")
		},
	}
}

// recompose makes a LoRA adapter of others. base may name their base, for methods that need it.
func (e *env) recompose(ctx context.Context, refs []string, o reduceOptions, linear bool, base string) error {
	reduce, err := o.reduction()
	if err != nil {
		return err
	}
	as, weights, names, err := e.loadAdapters(ctx, refs, base)
	if err != nil {
		return err
	}
	spelled, err := o.spelling(as.dirs[0])
	if err != nil {
		return err
	}
	opts := adapters.ComposeOptions{Weights: weights, Linear: linear, Reduce: reduce, Names: spelled}
	if base != "" {
		closeBase, err := e.baseWeights(ctx, base, &opts)
		if err != nil {
			return err
		}
		defer func() { _ = closeBase() }() // it was only read
	}
	made, loss, err := adapters.Compose(as.list, opts)
	if err != nil {
		return err
	}
	return e.saveMade(ctx, made, loss, o, spelled, names, as.dirs[0])
}

type loadedAdapters struct {
	dirs []string
	list []*adapters.Adapter
}

// loadAdapters opens adapters, for a base if one is named, else for what their files tell of it.
func (e *env) loadAdapters(ctx context.Context, refs []string, baseRef string) (as loadedAdapters, weights []float64, names []string, err error) {
	for _, ref := range refs {
		name, weight, err := splitWeight(ref)
		if err != nil {
			return as, nil, nil, err
		}
		dir, err := e.model(ctx, name)
		if err != nil {
			return as, nil, nil, err
		}
		dir = adapters.Dir(dir)
		if _, err := os.Stat(filepath.Join(dir, format.AdapterConfigFile)); errors.Is(err, fs.ErrNotExist) {
			return as, nil, nil, fmt.Errorf("opening the adapter %q: it has no %s: %w", name, format.AdapterConfigFile, fs.ErrNotExist)
		}
		as.dirs, weights, names = append(as.dirs, dir), append(weights, weight), append(names, name)
	}
	base, err := e.adaptersBase(ctx, baseRef, as.dirs)
	if err != nil {
		return as, nil, nil, err
	}
	for _, dir := range as.dirs {
		a, err := adapters.Load(dir, base)
		if err != nil {
			return as, nil, nil, err
		}
		e.adapterNotes(a)
		as.list = append(as.list, a)
	}
	return as, weights, names, nil
}

func (e *env) adaptersBase(ctx context.Context, ref string, dirs []string) (adapters.Base, error) {
	if ref == "" {
		return adapters.FilesBase(dirs...)
	}
	dir, err := e.model(ctx, ref)
	if err != nil {
		return adapters.Base{}, err
	}
	cfg, err := format.ReadModelConfig(dir)
	if err != nil {
		return adapters.Base{}, err
	}
	ck, err := format.Open(dir)
	if err != nil {
		return adapters.Base{}, err
	}
	defer ck.Close()
	return adapters.CheckpointBase(cfg, ck, dirs...)
}

// baseWeights lets methods that depend on the base read it.
func (e *env) baseWeights(ctx context.Context, ref string, opts *adapters.ComposeOptions) (closeBase func() error, err error) {
	dir, err := e.model(ctx, ref)
	if err != nil {
		return nil, err
	}
	cfg, err := format.ReadModelConfig(dir)
	if err != nil {
		return nil, err
	}
	ck, err := format.Open(dir)
	if err != nil {
		return nil, err
	}
	opts.Weight = func(module string) ([]float32, error) {
		for t := range ck.Tensors() {
			if format.Canonical(cfg.ModelType, t.Info().Name) == module+".weight" {
				return format.Floats(t)
			}
		}
		return nil, fmt.Errorf("%w: the base has no %q", adapters.ErrMismatch, module)
	}
	return ck.Close, nil
}

// spelling is the generation of names that was asked for, or that of an adapter's file.
func (o *reduceOptions) spelling(dir string) (format.Names, error) {
	if o.names != "" {
		return format.ParseNames(o.names)
	}
	ck, err := format.Open(dir)
	if err != nil {
		return 0, err
	}
	defer ck.Close()
	classic, current := false, false
	for t := range ck.Tensors() {
		name := t.Info().Name
		classic = classic || strings.Contains(name, ".encoder.layer.")
		current = current || strings.Contains(name, ".layers.")
	}
	switch {
	case classic && current:
		return format.BothNames, nil
	case classic:
		return format.Transformers4, nil
	}
	return format.Transformers5, nil
}

// saveMade writes a new adapter, and beside it what the old one had for people and programs.
func (e *env) saveMade(ctx context.Context, a *adapters.Adapter, loss *adapters.Loss, o reduceOptions, names format.Names, from []string, like string) error {
	if err := a.Save(ctx, o.out, names); err != nil {
		return err
	}
	for _, name := range []string{"id2label.json", "preprocessor_config.json"} {
		data, err := os.ReadFile(filepath.Join(like, name))
		if err != nil {
			continue // not every adapter has them
		}
		if err := format.WriteFileAtomic(filepath.Join(o.out, name), data); err != nil {
			return err
		}
	}
	e.adapterNotes(a)
	m := madeAdapter{Out: o.out, Adapters: from, Loss: loss}
	if info, err := os.Stat(filepath.Join(o.out, adapters.File)); err == nil {
		m.Bytes = info.Size()
	}
	return e.result(m.text, m)
}
