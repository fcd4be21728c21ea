package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/model/engine"
)

// contender is a classifier among those that a command compares. All have one base, which is in
// memory once.
type contender struct {
	*train.Classifier
	name string // of its adapter, as the user or its folder calls it
}

func adapterFlag(refs *cli.StringSlice) cli.Flag {
	return &cli.StringSliceFlag{Name: "adapter", Usage: "adapter to compare with others on the same base: `[NAME=]REF`, several times", Destination: refs}
}

// contenders opens MODEL in a precision and, on the same base, the adapters of --adapter, each REF or NAME=REF. MODEL
// may be missing: the first adapter then says what the base is.
func (e *env) contenders(ctx context.Context, ref, base, precision string, named []string) (all []contender, err error) {
	if ref == "" && len(named) == 0 {
		return nil, usage("reading the command line", "name a MODEL, or adapters with --adapter")
	}
	var names, dirs []string
	baseDir := ""
	if ref != "" {
		dir := ""
		if baseDir, dir, err = e.modelDirs(ctx, ref, base); err != nil {
			return nil, err
		}
		if dir != "" || len(named) == 0 {
			names, dirs = append(names, adapterName(ref)), append(dirs, dir)
		}
	}
	for _, text := range named {
		name, ref := splitName(text)
		if baseDir == "" {
			if baseDir, _, err = e.modelDirs(ctx, ref, base); err != nil {
				return nil, err
			}
		}
		dir, err := e.adapterDir(ctx, ref)
		if err != nil {
			return nil, err
		}
		if slices.Contains(names, name) {
			return nil, usage("reading the command line", fmt.Sprintf("two adapters are called %q: name one of them with --adapter NAME=REF", name))
		}
		names, dirs = append(names, name), append(dirs, dir)
	}
	eng, err := e.openEngine(ctx, engine.Opener{Float16: precision == "fp16"})
	if err != nil {
		return nil, err
	}
	chosen, err := e.precision(precision, eng)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			closeAll(all)
		}
	}()
	for i, dir := range dirs {
		opts := train.OpenOptions{Backend: eng.Backend, Adapter: dir, Precision: chosen}
		if i > 0 {
			opts.Share = all[0].Weights
		}
		c, err := train.Open(baseDir, opts)
		if err != nil {
			return all, err
		}
		all = append(all, contender{c, names[i]})
		if i > 0 && !reflect.DeepEqual(c.Processor, all[0].Processor) {
			return all, fmt.Errorf("comparing %q with %q: %w: their preprocessor_config.json prepare images differently; ask each alone", names[i], names[0], adapters.ErrMismatch)
		}
		e.adapterNotes(c.Adapter)
		if i > 0 && otherBase(all[0].Adapter, c.Adapter) {
			e.note("%s was trained on the base %q, and is put on that of %s", names[i], *c.Adapter.Config.BaseModel, names[0])
		}
	}
	return all, nil
}

func closeAll(all []contender) {
	for _, c := range all {
		c.Close()
	}
}

// otherBase tells whether two adapters name different bases.
func otherBase(a, b *adapters.Adapter) bool {
	return a.Config.BaseModel != nil && b.Config.BaseModel != nil && *a.Config.BaseModel != *b.Config.BaseModel
}

// adapterDir returns the folder of an adapter.
func (e *env) adapterDir(ctx context.Context, ref string) (string, error) {
	dir, err := e.model(ctx, ref)
	if err != nil {
		return "", err
	}
	dir = adapters.Dir(dir)
	if _, err := os.Stat(filepath.Join(dir, format.AdapterConfigFile)); err != nil {
		return "", noAdapter(ref, dir)
	}
	return dir, nil
}

// noAdapter is the error for a REF that is not an adapter, but may hold several, as PEFT saves those
// that have names.
func noAdapter(ref, dir string) error {
	err := fmt.Errorf("opening the adapter %q: it has no %s: %w", ref, format.AdapterConfigFile, fs.ErrNotExist)
	if names := adapters.Named(dir); len(names) > 0 {
		return withHint(err, "it holds adapters of these names: %s; name one, as in %s", strings.Join(names, ", "), filepath.Join(ref, names[0]))
	}
	return err
}

var nameBefore = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)$`)

// splitName divides NAME=REF. Without a name, an adapter is called like its folder or repository.
func splitName(text string) (name, ref string) {
	if _, err := os.Stat(text); errors.Is(err, fs.ErrNotExist) {
		if m := nameBefore.FindStringSubmatch(text); m != nil {
			return m[1], m[2]
		}
	}
	return adapterName(text), text
}

func adapterName(ref string) string {
	if repo, err := hub.ParseRepo(ref); err == nil && !isPath(ref) {
		ref = repo.ID
	}
	return filepath.Base(filepath.Clean(ref))
}

// splitModel tells MODEL from the images after it. Where adapters are named, MODEL may be missing.
func splitModel(args, adapters []string) (model string, images []string) {
	if len(args) == 0 || len(adapters) > 0 && isImage(args[0]) {
		return "", args
	}
	return args[0], args[1:]
}

func isImage(arg string) bool {
	if arg == "-" || isURL(arg) {
		return true
	}
	info, err := os.Stat(arg)
	switch {
	case err != nil:
		return strings.ContainsAny(arg, "*?[")
	case info.IsDir():
		return !holds(arg, info, hub.Model)
	}
	return filepath.Ext(arg) != ".safetensors"
}
