package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/hub"
)

type mergeOptions struct {
	base, out, rounding, shardSize      string
	jobs                                int // 0: not given
	force, inPlace, allowMissing, untie bool
	allowNonFinite                      bool
	dryRun, verify, stream              bool

	push    string // repository; "" for none
	options hub.PushOptions
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
			"base without a head becomes the classifier that the adapter was trained for. Interrupted by a crash,\n" +
			"the same command goes on with the files that are missing. With --push and without --out each file of\n" +
			"weights is sent as soon as it is written, and removed: at most one is on this disk.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "base", Usage: "base model; default: the one that the first adapter's config names", Destination: &o.base},
			&cli.BoolFlag{Name: "stream", Usage: "read the base from the Hub while merging, without storing it", Destination: &o.stream},
			&cli.StringFlag{Name: "out", Usage: "write into `DIR`", Destination: &o.out},
			choice("rounding", "peft: bit for bit as merge_and_unload(); peft-safe: as with safe_merge=True; once: after the last adapter only", &o.rounding, "peft", "peft-safe", "once"),
			&cli.StringFlag{Name: "shard-size", Usage: "largest `SIZE` of a file of weights, such as 5GB; keep: the base's files", Value: "keep", Destination: &o.shardSize},
			&cli.BoolFlag{Name: "in-place", Usage: "change the base's own files, which must be local and nobody else's", Destination: &o.inPlace},
			&cli.BoolFlag{Name: "allow-missing", Usage: "leave out tensors of adapters for which the base has no place", Destination: &o.allowMissing},
			&cli.BoolFlag{Name: "allow-nonfinite-base", Usage: "keep what is not a finite number in the base's weights", Destination: &o.allowNonFinite},
			&cli.BoolFlag{Name: "untie", Usage: "give the head a tensor of its own where it shares embeddings that change", Destination: &o.untie},
			&cli.BoolFlag{Name: "verify", Usage: "recompute a sample of the merged weights before they get their name", Destination: &o.verify},
			&cli.BoolFlag{Name: "dry-run", Usage: "only tell what would be fetched, written and sent", Destination: &o.dryRun},
			&cli.StringFlag{Name: "push", Usage: "push the result to `REPO`", Destination: &o.push},
			&cli.BoolFlag{Name: "private", Usage: "make REPO private if it is created", Destination: &o.options.Private},
			&cli.BoolFlag{Name: "create-pr", Usage: "open a pull request in REPO", Destination: &o.options.CreatePR},
			&cli.StringFlag{Name: "message", Usage: "first line of the commit's message in REPO", Destination: &o.options.Message},
			count("jobs", "write `N` files at the same time (default: 2, with --stream 1)", 1, &o.jobs),
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

	// With --dry-run nothing was written, and this is what would have changed.
	DryRun  bool     `json:"dry_run,omitempty"`
	Bytes   int64    `json:"bytes,omitempty"`
	Changed []string `json:"changed,omitempty"`

	Fetch  int64 `json:"fetch,omitempty"` // bytes of the base
	Send   int64 `json:"send,omitempty"`  // bytes of weights
	onDisk int64 // of weights, at a time

	CommitURL   string  `json:"commit_url,omitempty"`
	PullRequest *string `json:"pull_request,omitempty"`
	Fetched     int64   `json:"bytes_fetched,omitempty"` // of the base, with --stream
	Sent        int64   `json:"bytes_sent,omitempty"`
}

func (s *mergeSummary) text(w io.Writer) {
	if !s.DryRun {
		for _, line := range []string{s.Out, s.CommitURL} {
			if line != "" {
				fmt.Fprintln(w, line)
			}
		}
		return
	}
	for _, name := range s.Changed {
		fmt.Fprintf(w, "%s\n", oneLine(name))
	}
	fmt.Fprintf(w, "%d tensors would change, %d be copied, %d be added: %s in %d files\n",
		s.Tensors["merged"], s.Tensors["copied"], s.Tensors["added"], byteSize(s.Bytes), len(s.Shards))
	if s.Fetch > 0 {
		fmt.Fprintf(w, "%s of %s would be fetched\n", byteSize(s.Fetch), s.Base)
	}
	if s.Send > 0 {
		fmt.Fprintf(w, "%s of weights would be sent, %s of them at a time be on this disk\n", byteSize(s.Send), byteSize(s.onDisk))
	}
}

func (e *env) merge(ctx context.Context, refs []string, o mergeOptions) error {
	s, err := e.mergeInto(ctx, refs, o)
	if err != nil {
		return err
	}
	return e.result(s.text, s)
}

// sends tells whether files leave this disk as they are written.
func (o mergeOptions) sends() bool { return o.push != "" && o.out == "" && !o.inPlace }

// check refuses flags that do not go together, all problems at once.
func (o mergeOptions) check(refs []string) (shardSize int64, err error) {
	var problems []string
	refuse := func(when bool, problem string) {
		if when {
			problems = append(problems, problem)
		}
	}
	refuse(o.out == "" && !o.inPlace && !o.dryRun && o.push == "", "--out is missing")
	refuse(o.inPlace && (o.out != "" || o.force || o.shardSize != "keep" || o.verify || o.stream),
		"--in-place takes no --out, --force, --shard-size, --verify and --stream")
	refuse(o.push == "" && (o.options.Private || o.options.CreatePR || o.options.Message != ""), "--private, --create-pr and --message do nothing without --push")
	refuse(o.sends() && (o.force || o.verify || o.jobs != 0), "--force, --verify and --jobs are for what is written into --out")
	refuse(o.stream && o.verify, "--verify reads the base again, which --stream does not store: leave one of them out")
	if _, err := hub.ParseRepoAs(o.push, hub.Model); o.push != "" && err != nil {
		problems = append(problems, fmt.Sprintf("--push: %v", err))
	}
	if o.shardSize != "keep" && o.shardSize != "" {
		if shardSize, err = parseSize(o.shardSize); err != nil {
			problems = append(problems, fmt.Sprintf("--shard-size: %v", err))
		}
	}
	refuse(len(refs) == 0, "no ADAPTER is given")
	if len(problems) > 0 {
		return 0, usage("reading the command line", problems...)
	}
	return shardSize, nil
}

// parseSize reads a size in bytes: 5GB, 300MiB, 1000000.
func parseSize(s string) (int64, error) {
	units := []struct {
		suffix string
		bytes  float64
	}{{"KIB", 1 << 10}, {"MIB", 1 << 20}, {"GIB", 1 << 30}, {"TIB", 1 << 40}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1}}
	for _, u := range units {
		number, ok := strings.CutSuffix(strings.ToUpper(strings.TrimSpace(s)), u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if size := n * u.bytes; err == nil && size >= 1 && size < 1<<62 {
			return int64(size), nil
		}
		break
	}
	return 0, fmt.Errorf("%q is not a size such as 5GB", s)
}

// mergeInputs are what a merge reads.
type mergeInputs struct {
	names, dirs []string // of adapters
	weights     []float64
	base        string // a reference
}

func (e *env) mergeInputs(ctx context.Context, refs []string, base string) (in mergeInputs, err error) {
	for i, ref := range refs {
		name, weight, err := splitWeight(ref)
		if err != nil {
			return in, err
		}
		dir, itsBase, err := e.adapterAndBase(ctx, name, base)
		if err != nil {
			return in, err
		}
		if itsBase == "" {
			return in, withHint(fmt.Errorf("opening the adapter %q: it has no %s: %w", name, format.AdapterConfigFile, fs.ErrNotExist), "ADAPTER is an adapter; a base is named with --base")
		}
		if i == 0 {
			in.base = itsBase
		}
		in.names, in.weights, in.dirs = append(in.names, name), append(in.weights, weight), append(in.dirs, dir)
	}
	return in, nil
}

// lineReaders is how many ranges of a base are fetched at the same time: with a tenth of a second for
// every answer they fill a line of 2 Gbit/s, and hold 24 MB.
const lineReaders = 6

func (e *env) mergeInto(ctx context.Context, refs []string, o mergeOptions) (*mergeSummary, error) {
	start := time.Now()
	// What a merge allocates are a few large buffers, so that collecting costs nothing; by default the
	// heap would be twice as large.
	defer debug.SetGCPercent(debug.SetGCPercent(25))
	shardSize, err := o.check(refs)
	if err != nil {
		return nil, err
	}
	in, err := e.mergeInputs(ctx, refs, o.base)
	if err != nil {
		return nil, err
	}
	base, err := e.openBase(ctx, in.names[0], in.base, o.stream)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	if o.out != "" && !o.dryRun {
		if err := checkOut(o, base.dir); err != nil {
			return nil, err
		}
	}
	plan, err := e.planMerge(ctx, base, in, o, shardSize)
	if err != nil {
		return nil, err
	}
	s := &mergeSummary{Out: o.out, Base: base.name, Adapters: in.names, DryRun: o.dryRun}
	push := mergePush{card: mergeCard{base: base, adapters: in.names, rounding: o.rounding}}
	if o.push != "" {
		if err := e.openPush(ctx, &push, o); err != nil { // which may refuse, before the work is done
			return nil, err
		}
	}
	result := plan.Result()
	switch {
	case o.dryRun:
		s.plan(plan, o)
	case o.sends():
		result, err = e.mergeSend(ctx, plan, &push, o.command(refs))
	case o.inPlace:
		s.Out = base.dir
		result, err = plan.InPlace(ctx)
	default:
		result, err = mergeWrite(ctx, plan, o)
	}
	if err != nil {
		return nil, err
	}
	e.mergeNotes(result)
	if o.push != "" && !o.dryRun && !o.sends() {
		if err := e.pushMerged(ctx, &push, s.Out); err != nil {
			return nil, err
		}
	}
	if c := push.commit; c != nil {
		r := newPushReport(c)
		s.CommitURL, s.PullRequest, s.Sent = r.URL, r.PullRequest, r.Sent
	}
	s.Shards, s.Fetched = result.Shards, base.fetched()
	s.Tensors = map[string]int{"merged": result.Merged, "copied": result.Copied, "added": result.Added}
	s.Seconds, s.PeakRSS = time.Since(start).Seconds(), peakRSS()
	if !o.dryRun {
		s.BytesPerSecond = float64(plan.Bytes()) / s.Seconds
	}
	return s, nil
}

// planMerge checks that adapters and base fit, and plans their merge.
func (e *env) planMerge(ctx context.Context, base *weights, in mergeInputs, o mergeOptions, shardSize int64) (*adapters.MergePlan, error) {
	m, err := e.openForMerge(base, in.dirs)
	if err != nil {
		return nil, err
	}
	opts := adapters.MergeOptions{
		Rounding: roundings[o.rounding], Weights: in.weights, Labels: m.labels, ShardSize: shardSize,
		AllowMissing: o.allowMissing, AllowNonFinite: o.allowNonFinite, Untie: o.untie, Jobs: cmp.Or(o.jobs, 2), SideFiles: base.dir, Keep: o.stream,
		Progress: func(ev adapters.MergeEvent) {
			e.report(step{Task: "merging", Done: ev.Done, Total: ev.Total, Unit: "bytes", Text: ev.Shard})
		},
	}
	if o.sends() || o.stream && o.jobs == 0 {
		opts.Jobs = 1
	}
	if o.stream {
		opts.Readers = max(2, lineReaders/opts.Jobs)
	}
	if o.verify {
		opts.Check = func(dir string) error { return e.verifyMerged(ctx, dir, m, in.weights, o) }
	}
	plan, err := adapters.PlanMerge(m.checkpoint, m.config, m.adapters, opts)
	switch {
	case errors.Is(err, adapters.ErrUnused):
		err = withHint(err, "name the right base with --base, or leave them out with --allow-missing")
	case errors.Is(err, adapters.ErrTied):
		err = withHint(err, "--untie gives the model a tensor for each of them")
	}
	return plan, err
}

// mergeNotes tells what is remarkable about a merge.
func (e *env) mergeNotes(r adapters.MergeResult) {
	for _, name := range r.LeftOut {
		e.note("the base's %q is not copied", name)
	}
	if len(r.Unchecked) > 0 {
		e.note("these files of the base were not read in their order, so that their hashes could not be compared: %s", strings.Join(r.Unchecked, ", "))
	}
	if r.Resumed > 0 {
		e.note("%d of %d files were finished before", r.Resumed, len(r.Shards))
	}
}

// plan tells what a merge that is not done would do.
func (s *mergeSummary) plan(p *adapters.MergePlan, o mergeOptions) {
	s.Bytes, s.Changed = p.Bytes(), p.Result().Changed
	if o.inPlace {
		s.Bytes = p.InPlaceBytes()
	}
	if o.stream {
		s.Fetch = p.BaseBytes()
	}
	if o.push != "" {
		s.Send, s.onDisk = s.Bytes, s.Bytes
	}
	if o.sends() {
		s.onDisk = 0
		for _, shard := range p.Result().Shards {
			s.onDisk = max(s.onDisk, shard.Size)
		}
	}
}

// mergeWrite writes a planned merge; with --force the old result goes when the new one is complete.
func mergeWrite(ctx context.Context, plan *adapters.MergePlan, o mergeOptions) (result adapters.MergeResult, err error) {
	out := o.out
	if o.force {
		out += ".new"
		defer os.RemoveAll(out)
		if err := os.RemoveAll(out); err != nil {
			return result, fmt.Errorf("merging: %w", err)
		}
	}
	if result, err = plan.Write(ctx, out); err != nil || !o.force {
		return result, err
	}
	if err := errors.Join(os.RemoveAll(o.out), os.Rename(out, o.out)); err != nil {
		return result, fmt.Errorf("merging: replacing %q: %w", o.out, err)
	}
	return result, nil
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
	base, real := realPath(baseDir), realPath(out)
	for _, c := range []struct{ says, outer, inner string }{{"holds", real, base}, {"lies in", base, real}} {
		if rel, err := filepath.Rel(c.outer, c.inner); err == nil && filepath.IsLocal(rel) {
			return usage("reading the command line", fmt.Sprintf("--out %q %s the base: choose another folder", o.out, c.says))
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

// realPath is an absolute path without links, as far as it exists.
func realPath(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if parent := filepath.Dir(path); parent != path {
		return filepath.Join(realPath(parent), filepath.Base(path))
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
func (e *env) openForMerge(base *weights, dirs []string) (m toMerge, err error) {
	m.checkpoint = base.checkpoint
	if m.config, err = format.ReadModelConfig(base.dir); err != nil {
		return m, err
	}
	if scheme := adapters.Quantised(m.config, m.checkpoint); scheme != "" {
		return m, withHint(fmt.Errorf("opening the base %q: %w: it is quantised with %s", base.name, format.ErrUnsupported, scheme),
			"merge into the original model and quantise the result")
	}
	var known adapters.Base
	if c, err := train.Open(base.dir, train.OpenOptions{Adapter: dirs[0], Checkpoint: m.checkpoint}); err == nil {
		m.labels, known = c.Labels, train.Base(c.Model, nil)
	} else if !errors.Is(err, format.ErrUnsupported) {
		return m, err
	} else if known, err = adapters.CheckpointBase(m.config, m.checkpoint, dirs...); err != nil {
		return m, err
	}
	for _, warning := range m.checkpoint.Warnings() {
		e.note("the base: %s", warning)
	}
	for _, dir := range dirs {
		a, err := adapters.OpenToMerge(dir, known)
		if err != nil {
			return m, err
		}
		e.adapterNotes(a)
		m.adapters, base.adapters = append(m.adapters, a), append(base.adapters, a)
	}
	return m, nil
}
