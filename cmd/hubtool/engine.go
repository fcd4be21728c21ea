package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/internal/nearest"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/install"
)

// engineSpec is the engine that --engine, $HUBTOOL_ENGINE or $GOMLX_BACKEND names.
func (e *env) engineSpec() string {
	return cmp.Or(e.engine, os.Getenv("HUBTOOL_ENGINE"), os.Getenv("GOMLX_BACKEND"))
}

// opener tries plugins in another process, outside of tests.
func (e *env) opener(ctx context.Context) engine.Opener {
	if e.try == nil {
		return engine.Opener{}
	}
	return engine.Opener{Try: func(plugin string) error { return e.try(ctx, plugin) }}
}

// openEngine opens the engine that was chosen with what the command wants of it, and says which one it is,
// and why.
func (e *env) openEngine(ctx context.Context, wanted engine.Opener) (*engine.Engine, error) {
	wanted.Try = e.opener(ctx).Try
	eng, err := wanted.Open(e.engineSpec())
	if err != nil {
		return nil, err
	}
	e.note("computing on %s: %s", eng, eng.Why)
	return eng, nil
}

func (e *env) engineCommand() *cli.Command {
	var from string
	return &cli.Command{
		Name:  "engine",
		Usage: "see and install what this program can compute on",
		Subcommands: []*cli.Command{{
			Name:   "ls",
			Usage:  "list the engines, and why one cannot be used",
			Before: func(*cli.Context) error { e.prepareLoader(); return nil },
			Action: func(c *cli.Context) error {
				engines := e.listEngines(c.Context)
				return e.result(func(w io.Writer) {
					for _, g := range engines {
						fmt.Fprintf(w, "%-4s %s\n", map[bool]string{true: "yes", false: "no"}[g.Usable], oneLine(g.about()))
					}
				}, map[string][]engineReport{"engines": engines})
			},
		}, {
			Name:      "install",
			Usage:     "install an XLA plugin",
			ArgsUsage: "ENGINE",
			Description: "ENGINE is cpu, cuda12, cuda13 (from the Python package registry, or from wheels in a folder), a .whl file\n" +
				"or a .so file. Everything is checked, unpacked into " + "$XDG_DATA_HOME/hubtool/engines" + ", and tried in another\n" +
				"process before it replaces what was installed under the same name.",
			Flags:  []cli.Flag{&cli.StringFlag{Name: "from", Usage: "take the wheels in `DIR` and make no request", Destination: &from}},
			Action: func(c *cli.Context) error { return e.installEngine(c.Context, c.Args().First(), from) },
		}, {
			Name:      "try",
			Hidden:    true, // what tryPlugin runs
			ArgsUsage: "PLUGIN",
			Before:    func(c *cli.Context) error { e.restartFor("xla:" + c.Args().First()); return nil },
			Action: func(c *cli.Context) error {
				eng, err := engine.Open("xla:" + c.Args().First())
				if err != nil {
					return err
				}
				defer eng.Close()
				return e.result(func(w io.Writer) { fmt.Fprintln(w, eng) }, map[string]string{"engine": eng.String()})
			},
		}},
	}
}

func (e *env) restartFor(spec string) {
	if e.restart != nil {
		e.restart(spec)
	}
}

// prepareLoader makes the libraries of all installed plugins known.
func (e *env) prepareLoader() { e.restartFor("auto") }

func (e *env) installEngine(ctx context.Context, what, from string) error {
	_, named := install.Packages[what]
	ext := filepath.Ext(what)
	switch {
	case !named && ext != ".whl" && ext != ".so":
		return usage("reading the command line", fmt.Sprintf("ENGINE is %q, but must be cpu, cuda12, cuda13, or a .whl or .so file%s", what, nearest.DidYouMean(what, []string{"cpu", "cuda12", "cuda13"})))
	case from != "" && ext == ".so":
		return usage("reading the command line", "--from does nothing with a .so file")
	case named && from == "" && envBool("HF_HUB_OFFLINE"):
		return withHint(fmt.Errorf("installing the engine %q: %w", what, hub.ErrOffline), "name a folder of wheels with --from")
	}
	o := install.Options{From: from, Progress: func(file string, done, total int64) {
		e.report(step{Task: "installing", Item: file, Done: done, Total: total, Unit: "bytes"})
	}}
	if e.try != nil && engine.XLA {
		o.Try = func(plugin string) error { return e.try(ctx, plugin) }
	}
	plugin, err := install.Install(ctx, what, o)
	if err != nil {
		return err
	}
	if !engine.XLA {
		e.note("this build has no XLA: the plugin is installed, for builds with CGO_ENABLED=1 on Linux")
	}
	return e.result(func(w io.Writer) { fmt.Fprintln(w, plugin) }, map[string]string{"engine": "xla:" + plugin, "plugin": plugin})
}

type engineReport struct {
	Engine  string `json:"engine"` // what --engine takes
	Usable  bool   `json:"usable"`
	Devices int    `json:"devices"`
	Detail  string `json:"detail"`
	Why     string `json:"why"` // it cannot be used
	named   bool   // by the environment, for every command
}

func (g engineReport) about() string {
	if g.Usable {
		return g.Detail
	}
	return g.Engine + ": " + g.Why
}

// listEngines tries the Go engine, every XLA plugin, and the engine that the environment names, if it
// is another one; without any plugin, it says where they are looked for.
func (e *env) listEngines(ctx context.Context) []engineReport {
	specs := []string{"go"}
	for _, plugin := range engine.Plugins() {
		specs = append(specs, "xla:"+plugin)
	}
	named := e.engineSpec()
	if !slices.Contains([]string{"", "auto", "xla"}, named) && !slices.Contains(specs, named) {
		specs = append(specs, named)
	}
	if len(specs) == 1 {
		specs = append(specs, "xla")
	}
	var list []engineReport
	for _, spec := range specs {
		g := engineReport{Engine: spec, named: spec == named}
		if opened, err := e.opener(ctx).Open(spec); err != nil {
			g.Why = err.Error()
		} else {
			g.Usable, g.Detail, g.Devices = true, opened.String(), opened.Backend.NumDevices()
			opened.Close()
		}
		list = append(list, g)
	}
	return list
}
