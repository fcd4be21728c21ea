package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

func (e *env) extractCommand() *cli.Command {
	o := reduceOptions{}
	var base, tuned string
	return &cli.Command{
		Name:  "extract",
		Usage: "make a LoRA adapter of the difference between a tuned model and its base",
		Description: "Matrices get their best approximation of low rank, found with random vectors; what else has changed is\n" +
			"saved whole.",
		Flags: append(o.flags(false),
			&cli.StringFlag{Name: "base", Usage: "the model before tuning", Required: true, Destination: &base},
			&cli.StringFlag{Name: "tuned", Usage: "the model after tuning", Required: true, Destination: &tuned}),
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usage("reading the command line", fmt.Sprintf("extract takes no arguments, but %q", c.Args().First()))
			}
			if o.rank == 0 && o.energy == 0 {
				return usage("reading the command line", "one of --rank and --energy is needed")
			}
			return e.extract(c.Context, base, tuned, o)
		},
	}
}

func (e *env) extract(ctx context.Context, baseRef, tunedRef string, o reduceOptions) error {
	reduce, err := o.reduction()
	if err != nil {
		return err
	}
	var open [2]*format.Checkpoint
	var dirs [2]string
	for i, ref := range []string{baseRef, tunedRef} {
		if dirs[i], err = e.model(ctx, ref); err != nil {
			return err
		}
		if open[i], err = format.Open(dirs[i]); err != nil {
			return err
		}
		defer open[i].Close()
	}
	cfg, err := format.ReadModelConfig(dirs[0])
	if err != nil {
		return err
	}
	names := format.Transformers5
	if o.names != "" {
		if names, err = format.ParseNames(o.names); err != nil {
			return err
		}
	}
	made, loss, err := adapters.Extract(ctx, open[0], open[1], cfg, adapters.ExtractOptions{Reduce: reduce, BaseModel: baseRef, Names: names,
		Progress: func(done, total int, module string) {
			e.report(step{Task: "extracting", Done: int64(done), Total: int64(total), Unit: "tensors", Text: module})
		}})
	if err != nil {
		return err
	}
	return e.saveMade(ctx, made, loss, o, names, nil, dirs[1])
}
