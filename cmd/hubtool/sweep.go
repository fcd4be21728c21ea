package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/internal/nearest"
)

func (e *env) sweepCommand() *cli.Command {
	return &cli.Command{
		Name:      "sweep",
		Usage:     "train once with each combination of several values, and compare the runs",
		ArgsUsage: "[CONFIG.yaml]",
		Description: "The values stand in the config's section sweep, or in --vary; each run has a folder in training.output_dir, and\n" +
			"report.html there compares them. Run again, it goes on: finished runs are kept, and interrupted ones resumed.\n" +
			"With --shard auto/N the tasks of a Kubernetes indexed Job or a Slurm array share the runs.",
		Flags: append(e.configFlags(),
			&cli.StringSliceFlag{Name: "vary", Usage: "values of a setting: `KEY=VALUE,VALUE`…, as in training.learning_rate=1e-3,5e-3; several times"},
			&cli.StringFlag{Name: "shard", Usage: "only part `I/N` of the runs, from 0/N on; auto[/N]: by the index of a Kubernetes or Slurm task"},
			&cli.BoolFlag{Name: "dry-run", Usage: "check the settings of all runs and list them"}),
		Action: func(c *cli.Context) error {
			return e.sweep(c.Context, c.Args().First(), c.StringSlice("vary"), c.String("shard"), c.Bool("dry-run"))
		},
	}
}

// axis is a setting and the values that it takes.
type axis struct {
	key    string
	values []string
}

// sweepRun is one combination.
type sweepRun struct {
	Dir    string            `json:"output_dir"`
	Values map[string]string `json:"values"`
	Status string            `json:"status"` // planned, kept, finished or failed
	Error  string            `json:"error,omitempty"`
	config *Config
}

type sweepResult struct {
	Runs   []*sweepRun `json:"runs"` // of this shard
	Report string      `json:"report"`
}

func (e *env) sweep(ctx context.Context, path string, vary []string, shardText string, dryRun bool) error {
	part, err := parseShard(shardText)
	if err != nil {
		return err
	}
	all, err := e.sweepRuns(path, vary)
	if err != nil {
		return err
	}
	from, to := part.of(len(all))
	out := &sweepResult{Runs: orEmpty(all[from:to])}
	root := filepath.Dir(all[0].Dir)
	var failed []string
	for i, r := range out.Runs {
		if r.Status = "planned"; dryRun {
			continue
		}
		e.note("run %d of %d: %s", from+i+1, len(all), r.Dir)
		switch err := e.sweepOne(ctx, r); {
		case ctx.Err() != nil:
			return withHint(err, "run the same command again: it goes on with %q", r.Dir)
		case err != nil:
			r.Status, r.Error = "failed", err.Error()
			failed = append(failed, fmt.Sprintf("%s: %v", r.Dir, err))
			e.note("%s failed: %v", r.Dir, err)
		}
	}
	if !dryRun {
		if out.Report, err = compareFinished(root, all); err != nil {
			return err
		}
	}
	if err := e.result(out.text, out); err != nil {
		return err
	}
	if len(failed) > 0 {
		return &problemError{doing: "sweeping", problems: failed, hint: "the other runs are finished; run the same command again to repeat these"}
	}
	return nil
}

func (s *sweepResult) text(w io.Writer) {
	for _, r := range s.Runs {
		fmt.Fprintf(w, "%s\t%s\n", r.Status, r.Dir)
	}
	if s.Report != "" {
		fmt.Fprintln(w, s.Report)
	}
}

// sweepRuns makes the configs of all combinations, the last axis changing fastest, and checks them.
func (e *env) sweepRuns(path string, vary []string) ([]*sweepRun, error) {
	base, axes, err := e.sweepAxes(path, vary)
	if err != nil {
		return nil, err
	}
	given := e.settings
	defer func() { e.settings = given }()
	n := 1
	for _, a := range axes {
		n *= len(a.values)
	}
	var runs []*sweepRun
	for i := range n {
		r := &sweepRun{Values: map[string]string{}}
		name := fmt.Sprintf("%0*d", len(fmt.Sprint(n-1)), i)
		e.settings = append([]setting(nil), given...)
		for rest, a := n, 0; a < len(axes); a++ {
			rest /= len(axes[a].values)
			value := axes[a].values[i/rest%len(axes[a].values)]
			e.settings = append(e.settings, setting{kebab(axes[a].key), axes[a].key, value})
			r.Values[axes[a].key] = value
			name += "-" + axes[a].key[strings.LastIndex(axes[a].key, ".")+1:] + "=" + unfit.ReplaceAllString(value, "_")
		}
		if r.config, err = e.sweepConfig(path); err != nil {
			return nil, err
		}
		r.Dir = filepath.Join(base.Training.OutputDir, name[:min(len(name), 120)])
		r.config.Training.OutputDir = r.Dir
		runs = append(runs, r)
	}
	return runs, nil
}

// unfit is what a folder's name had better not have.
var unfit = regexp.MustCompile(`[^A-Za-z0-9.,_+-]+`)

// sweepAxes reads which values are to be tried, and the settings without them.
func (e *env) sweepAxes(path string, vary []string) (*Config, []axis, error) {
	base, err := e.sweepConfig(path)
	if err != nil {
		return nil, nil, err
	}
	var problems []string
	axes := e.axes
	for _, text := range vary {
		key, values, ok := strings.Cut(text, "=")
		if !ok {
			problems = append(problems, fmt.Sprintf("--vary is %q, but must be like training.learning_rate=1e-3,5e-3", text))
			continue
		}
		axes = append(axes, axis{strings.ReplaceAll(key, "-", "_"), strings.Split(values, ",")})
	}
	keys := settingKeys()
	seen := map[string]bool{}
	for _, s := range e.settings {
		seen[s.key] = true
	}
	for _, a := range axes {
		switch {
		case !keys[a.key]:
			var names []string
			for key := range keys {
				names = append(names, key)
			}
			problems = append(problems, fmt.Sprintf("sweep: unknown key %q%s", a.key, nearest.DidYouMean(a.key, names)))
		case a.key == "training.output_dir" || a.key == "training.resume_from_checkpoint" || a.key == "training.hub_model_id":
			problems = append(problems, fmt.Sprintf("sweep: %s cannot be varied: every run has a folder of its own", a.key))
		case seen[a.key]:
			problems = append(problems, fmt.Sprintf("sweep: %s is given twice", a.key))
		}
		seen[a.key] = true
	}
	t := base.Training
	if len(axes) == 0 {
		problems = append(problems, "there is nothing to vary: add a section sweep to the config, or --vary KEY=VALUE,VALUE")
	}
	if t.PushToHub {
		problems = append(problems, "training.push_to_hub would push all runs to one repository: push the best with \"hubtool push\"")
	}
	if t.ResumeFromCheckpoint != "" {
		problems = append(problems, "training.resume_from_checkpoint does nothing: a sweep resumes its runs by itself")
	}
	if len(problems) > 0 {
		return nil, nil, usage("reading the settings", problems...)
	}
	return base, axes, nil
}

// sweepConfig is loadConfig for a file that may have a section sweep.
func (e *env) sweepConfig(path string) (*Config, error) {
	e.sweeping = true
	defer func() { e.sweeping = false }()
	return e.loadConfig(path)
}

// settingKeys are the keys that exist.
func settingKeys() map[string]bool {
	keys := map[string]bool{"adapter.names": true}
	for _, f := range defaultConfig().fields() {
		keys[f.key] = true
	}
	for _, k := range adapterKeys {
		keys["adapter."+k.name] = true
	}
	return keys
}

// takeSweep removes the section sweep from a config's root and reads it.
func (r *configReader) takeSweep(root *yaml.Node) (axes []axis) {
	for i := 0; root.Kind == yaml.MappingNode && i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != "sweep" {
			continue
		}
		r.eachKey(root.Content[i+1], "sweep", func(name string, k, values *yaml.Node) {
			if values.Kind != yaml.SequenceNode || len(values.Content) == 0 {
				r.at(k, "sweep.%s is %s, but must be a list of values", name, shown(values))
				return
			}
			a := axis{key: name}
			for _, v := range values.Content {
				text := v.Value
				if v.Kind != yaml.ScalarNode {
					var x any
					b, err := []byte(nil), v.Decode(&x)
					if err == nil {
						b, err = json.Marshal(x) // which is YAML, too
					}
					if err != nil {
						r.at(v, "sweep.%s: %v", name, err)
						return
					}
					text = string(b)
				}
				a.values = append(a.values, text)
			}
			axes = append(axes, a)
		})
		root.Content = append(root.Content[:i:i], root.Content[i+2:]...)
		break
	}
	return axes
}

// sweepOne trains a run, unless it is finished with the same settings already, from where it was.
func (e *env) sweepOne(ctx context.Context, r *sweepRun) error {
	text, err := r.config.Encode()
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(filepath.Join(r.Dir, "run.yaml")); err == nil { // written last
		if string(old) == string(text) {
			r.Status = "kept"
			return nil
		}
		return usage("sweeping", fmt.Sprintf("%q is of a run with other settings: choose another --out", r.Dir))
	}
	cfg := *r.config
	if saved, err := train.Checkpoints(r.Dir); err == nil && len(saved) > 0 {
		cfg.Training.ResumeFromCheckpoint = "true"
	}
	if _, err := e.trainOnce(ctx, &cfg); err != nil {
		return err
	}
	// How the run came about is no setting of it.
	r.Status = "finished"
	return format.WriteFileAtomic(filepath.Join(r.Dir, "run.yaml"), text)
}

// compareFinished writes the report about the runs that are finished by now, those of other tasks
// included, and again where one has finished meanwhile: so the last task's has all.
func compareFinished(root string, all []*sweepRun) (path string, err error) {
	for before := -1; ; {
		var dirs []string
		for _, r := range all {
			if _, err := os.Stat(filepath.Join(r.Dir, "run.yaml")); err == nil {
				dirs = append(dirs, r.Dir)
			}
		}
		if len(dirs) == 0 || len(dirs) == before {
			return path, nil
		}
		before = len(dirs)
		runs, err := train.Runs(dirs)
		if err != nil {
			return "", err
		}
		page, err := train.Compare(runs)
		if err != nil {
			return "", fmt.Errorf("writing the report: %w", err)
		}
		path = filepath.Join(root, "report.html")
		// Tasks may write at the same time: each has a name of its own until it renames.
		tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
		if err := errors.Join(os.WriteFile(tmp, page, 0o644), os.Rename(tmp, path)); err != nil {
			return "", fmt.Errorf("writing the report: %w", err)
		}
	}
}
