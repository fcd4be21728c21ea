package main

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/internal/nearest"
)

//go:embed recipes/*.yaml
var recipeFiles embed.FS

// recipes are the configs that init hands out, and what each is for.
var recipes = []struct{ name, usage string }{
	{"food101", "ViT-Base on dishes, as in PEFT's guide"},
	{"cifar10", "ViT-Base on CIFAR-10"},
	{"folder", "ViT-Base on your own images, one folder per class"},
	{"quickstart", "a small ViT on handwritten digits, as hubtool quickstart trains it"},
}

func recipeNames() []string {
	var names []string
	for _, r := range recipes {
		names = append(names, r.name)
	}
	return names
}

// recipe returns the text of a recipe.
func recipe(name string) ([]byte, error) {
	text, err := recipeFiles.ReadFile("recipes/" + name + ".yaml")
	if err != nil {
		return nil, usage("choosing a recipe", fmt.Sprintf("%q is none of %s%s", name, strings.Join(recipeNames(), ", "), nearest.DidYouMean(name, recipeNames())))
	}
	return text, nil
}

func (e *env) initCommand() *cli.Command {
	return &cli.Command{
		Name:        "init",
		Usage:       "write a commented training config to own",
		ArgsUsage:   "[RECIPE]",
		Description: "Without RECIPE the recipes are listed. Without -o the config goes to stdout.",
		Flags:       []cli.Flag{&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write to `FILE`, which must not exist"}},
		Action:      func(c *cli.Context) error { return e.init(c.Args().First(), c.String("out")) },
	}
}

func (e *env) init(name, out string) error {
	if name == "" {
		if out != "" {
			return usage("choosing a recipe", fmt.Sprintf("-o needs one of %s", strings.Join(recipeNames(), ", ")))
		}
		return e.result(func(w io.Writer) {
			for _, r := range recipes {
				fmt.Fprintf(w, "%-11s %s\n", r.name, r.usage)
			}
		}, map[string][]string{"recipes": recipeNames()})
	}
	text, err := recipe(name)
	if err != nil {
		return err
	}
	if out == "" {
		return e.result(func(w io.Writer) { fmt.Fprintf(w, "%s", text) }, map[string]string{"recipe": name, "config": string(text)})
	}
	if err := writeNew(out, text); err != nil {
		return err
	}
	return e.result(func(w io.Writer) { fmt.Fprintln(w, out) }, map[string]string{"recipe": name, "path": out})
}

// writeNew writes a file that must not exist yet, or leaves nothing.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return usage("writing the config", fmt.Sprintf("%q exists and is not overwritten", path))
	}
	if err != nil {
		return fmt.Errorf("writing the config: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("writing the config: %w", err), os.Remove(path))
	}
	return nil
}
