package main

import (
	"cmp"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/model/engine"
)

// openEngine opens the engine that --engine, $HUBTOOL_ENGINE or $GOMLX_BACKEND names, and says
// which one it is.
func (e *env) openEngine() (*engine.Engine, error) {
	eng, err := engine.Open(cmp.Or(e.engine, os.Getenv("HUBTOOL_ENGINE"), os.Getenv("GOMLX_BACKEND")))
	if err != nil {
		return nil, err
	}
	e.note("computing on %s: %s", eng, eng.Why)
	return eng, nil
}

func (e *env) engineCommand() *cli.Command {
	return &cli.Command{
		Name:  "engine",
		Usage: "see what this program can compute on",
		Subcommands: []*cli.Command{{
			Name:  "ls",
			Usage: "list the engines, and why one cannot be used",
			Action: func(*cli.Context) error {
				engines := listEngines()
				return e.result(func(w io.Writer) {
					for _, g := range engines {
						fmt.Fprintf(w, "%-4s %s\n", map[bool]string{true: "yes", false: "no"}[g.Usable], oneLine(g.about()))
					}
				}, map[string][]engineReport{"engines": engines})
			},
		}},
	}
}

type engineReport struct {
	Engine  string `json:"engine"` // what --engine takes
	Usable  bool   `json:"usable"`
	Devices int    `json:"devices"`
	Detail  string `json:"detail"`
	Why     string `json:"why"` // it cannot be used
}

func (g engineReport) about() string {
	if g.Usable {
		return g.Detail
	}
	return g.Engine + ": " + g.Why
}

// listEngines tries the Go engine and every XLA plugin; without any, it says where they are looked
// for.
func listEngines() []engineReport {
	specs := []string{"go"}
	for _, plugin := range engine.Plugins() {
		specs = append(specs, "xla:"+plugin)
	}
	if len(specs) == 1 {
		specs = append(specs, "xla")
	}
	var list []engineReport
	for _, spec := range specs {
		g := engineReport{Engine: spec}
		if opened, err := engine.Open(spec); err != nil {
			g.Why = err.Error()
		} else {
			g.Usable, g.Detail, g.Devices = true, opened.String(), opened.Backend.NumDevices()
			opened.Close()
		}
		list = append(list, g)
	}
	return list
}
