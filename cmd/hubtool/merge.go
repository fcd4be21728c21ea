package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
)

type mergeOptions struct {
	base, out, rounding string
	force               bool
}

// roundings are the values of --rounding.
var roundings = map[string]adapters.Rounding{"peft": adapters.RoundPEFT, "peft-safe": adapters.RoundSafe, "once": adapters.RoundOnce}

func (e *env) mergeCommand() *cli.Command {
	o := mergeOptions{rounding: "peft"}
	return &cli.Command{
		Name:      "merge",
		Usage:     "add adapters to their base and write a checkpoint that transformers loads",
		ArgsUsage: "ADAPTER[*W]...",
		Description: "*W scales an adapter's update, 1 if absent. The checkpoint has the base's files, names and types; a\n" +
			"base without a head becomes the classifier that the adapter was trained for.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "base", Usage: "base model; default: the one that the first adapter's config names", Destination: &o.base},
			&cli.StringFlag{Name: "out", Usage: "write into `DIR`", Required: true, Destination: &o.out},
			choice("rounding", "peft: bit for bit as merge_and_unload(); peft-safe: as with safe_merge=True; once: after the last adapter only", &o.rounding, "peft", "peft-safe", "once"),
			&cli.BoolFlag{Name: "force", Usage: "replace what is in DIR", Destination: &o.force},
		},
		Action: func(c *cli.Context) error { return e.merge(c.Context, c.Args().Slice(), o) },
	}
}

// mergeSummary is what merge prints.
type mergeSummary struct {
	Out            string                 `json:"out"`
	Base           string                 `json:"base"`
	Adapters       []string               `json:"adapters"`
	Tensors        map[string]int         `json:"tensors"`
	Shards         []adapters.MergedShard `json:"shards"`
	Seconds        float64                `json:"seconds"`
	BytesPerSecond float64                `json:"bytes_per_second"`
	PeakRSS        int64                  `json:"peak_rss"`
}

func (e *env) merge(ctx context.Context, refs []string, o mergeOptions) error {
	s, err := e.mergeInto(ctx, refs, o)
	if err != nil {
		return err
	}
	return e.result(func(w io.Writer) { fmt.Fprintln(w, s.Out) }, s)
}

func (e *env) mergeInto(ctx context.Context, refs []string, o mergeOptions) (*mergeSummary, error) {
	start := time.Now()
	var weights []float64
	var dirs []string
	baseDir := ""
	for i, ref := range refs {
		name, weight, err := splitWeight(ref)
		if err != nil {
			return nil, err
		}
		base, dir, err := e.modelDirs(ctx, name, o.base)
		if err != nil {
			return nil, err
		}
		if dir == "" {
			return nil, withHint(fmt.Errorf("opening the adapter %q: it has no %s: %w", name, format.AdapterConfigFile, fs.ErrNotExist), "merge takes adapters, and the base with --base")
		}
		if i == 0 {
			baseDir = base
		}
		refs[i], weights, dirs = name, append(weights, weight), append(dirs, dir)
	}
	if err := checkOut(o, baseDir); err != nil {
		return nil, err
	}
	m, err := e.openForMerge(baseDir, dirs)
	if err != nil {
		return nil, err
	}
	defer m.checkpoint.Close()
	out := o.out
	if o.force {
		out += ".new" // the old one goes when the new one is complete
		defer os.RemoveAll(out)
		if err := os.RemoveAll(out); err != nil {
			return nil, fmt.Errorf("merging: %w", err)
		}
	}
	result, err := adapters.Merge(ctx, m.checkpoint, m.config, m.adapters, out, adapters.MergeOptions{
		Rounding: roundings[o.rounding], Weights: weights, Labels: m.labels,
		Progress: func(ev adapters.MergeEvent) {
			e.report(step{Task: "merging", Done: ev.Done, Total: ev.Total, Unit: "bytes", Text: ev.Shard})
		},
	})
	if err != nil {
		return nil, err
	}
	if o.force {
		if err := errors.Join(os.RemoveAll(o.out), os.Rename(out, o.out)); err != nil {
			return nil, fmt.Errorf("merging: replacing %q: %w", o.out, err)
		}
	}
	for _, name := range result.LeftOut {
		e.note("the base's %q is not copied", name)
	}
	s := &mergeSummary{Out: o.out, Base: baseDir, Adapters: refs, Shards: result.Shards, Seconds: time.Since(start).Seconds(), PeakRSS: peakRSS(),
		Tensors: map[string]int{"merged": result.Merged, "copied": result.Copied, "added": result.Added}}
	for _, shard := range s.Shards {
		s.BytesPerSecond += float64(shard.Size) / s.Seconds
	}
	return s, nil
}

// splitWeight divides ADAPTER*W. A name may itself contain a star only before the last one.
func splitWeight(ref string) (name string, weight float64, err error) {
	i := strings.LastIndexByte(ref, '*')
	if i < 0 {
		return ref, 1, nil
	}
	weight, err = strconv.ParseFloat(ref[i+1:], 64)
	if err != nil || weight != weight {
		return "", 0, usage("reading the command line", fmt.Sprintf("%q: %q behind the star is no weight", ref, ref[i+1:]))
	}
	return ref[:i], weight, nil
}

// checkOut refuses to write over what is there, and always over the base.
func checkOut(o mergeOptions, baseDir string) error {
	out, err := filepath.Abs(o.out)
	if err != nil {
		return fmt.Errorf("merging: %w", err)
	}
	for _, pair := range [][2]string{{out, realPath(baseDir)}, {realPath(baseDir), realPath(out)}} {
		if rel, err := filepath.Rel(pair[1], pair[0]); err == nil && (rel == "." || !strings.HasPrefix(rel, "..") && pair[0] != out) {
			return usage("reading the command line", fmt.Sprintf("--out %q holds the base: choose another folder", o.out))
		}
	}
	entries, err := os.ReadDir(out)
	if err == nil && len(entries) > 0 && !o.force {
		return usage("reading the command line", fmt.Sprintf("--out %q exists and is not empty: choose another folder, or --force", o.out))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return usage("reading the command line", fmt.Sprintf("--out %q: %v", o.out, cause(err)))
	}
	if err == nil && len(entries) == 0 { // a rename does not replace a folder everywhere
		if err := os.Remove(out); err != nil {
			return fmt.Errorf("merging: %w", err)
		}
	}
	return nil
}

func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return path
}

// toMerge is a base with the adapters for it, opened without an engine.
type toMerge struct {
	checkpoint *format.Checkpoint
	config     *format.ModelConfig
	adapters   []*adapters.Adapter
	labels     []string
}

// openForMerge opens the classifiers that hubtool knows as such, so that their heads fit, and any other
// checkpoint by its tensors.
func (e *env) openForMerge(baseDir string, dirs []string) (m toMerge, err error) {
	if m.config, err = format.ReadModelConfig(baseDir); err != nil {
		return m, err
	}
	var base adapters.Base
	if c, err := train.Open(baseDir, train.OpenOptions{Adapter: dirs[0]}); err == nil {
		m.checkpoint, m.labels, base = c.Checkpoint, c.Labels, train.Base(c.Model, nil)
	} else if errors.Is(err, format.ErrUnsupported) {
		if m.checkpoint, err = format.Open(baseDir); err != nil {
			return m, err
		}
		base = adapters.CheckpointBase(m.config.ModelType, m.checkpoint)
	} else {
		return m, err
	}
	defer func() {
		if err != nil {
			m.checkpoint.Close()
		}
	}()
	for _, dir := range dirs {
		a, err := adapters.Load(dir, base)
		if err != nil {
			return m, err
		}
		e.adapterNotes(a)
		m.adapters = append(m.adapters, a)
	}
	return m, nil
}
