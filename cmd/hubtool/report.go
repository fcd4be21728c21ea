package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
)

func (e *env) reportCommand() *cli.Command {
	var out string
	return &cli.Command{
		Name:        "report",
		Usage:       "compare finished training runs",
		ArgsUsage:   "RUN...",
		Description: "RUN is an output folder of train. The page needs no network; a run's own report.html says more about it.",
		Flags:       []cli.Flag{&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write the page to `FILE`", Value: "report.html", Destination: &out}},
		Action:      func(c *cli.Context) error { return e.compareRuns(c.Args().Slice(), out) },
	}
}

// compared is what report prints: runs, and which settings are not the same in all.
type compared struct {
	Report    string           `json:"report"`
	Differing []string         `json:"differing"`
	Runs      []train.Finished `json:"runs"`
}

func (e *env) compareRuns(dirs []string, out string) error {
	runs, err := train.Runs(dirs)
	if err != nil {
		return err
	}
	page, err := train.Compare(runs)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := format.WriteFileAtomic(out, page); err != nil {
		return err
	}
	c := compared{out, orEmpty(train.Differing(runs)), runs}
	return e.result(func(w io.Writer) {
		for _, r := range runs {
			fmt.Fprintf(w, "%s\t%s\n", oneLine(r.Name), measured(r.Results))
		}
		fmt.Fprintln(w, out)
	}, c)
}

// measured sums up all_results.json; a run may not have evaluated.
func measured(results map[string]float64) string {
	if _, evaluated := results["eval_accuracy"]; !evaluated {
		return fmt.Sprintf("not evaluated\ttraining loss %.4f", results["train_loss"])
	}
	return fmt.Sprintf("accuracy %.4f\tloss %.4f", results["eval_accuracy"], results["eval_loss"])
}
