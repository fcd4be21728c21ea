package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/hub"
)

// modelDirs finds the folders behind MODEL: an adapter with its base, which is --base or the one that
// its config names, or a base alone.
func (e *env) modelDirs(ctx context.Context, ref, base string) (baseDir, adapterDir string, err error) {
	dir, base, err := e.adapterAndBase(ctx, ref, base)
	if err != nil || base == "" {
		return dir, "", err
	}
	baseDir, err = e.model(ctx, base)
	return baseDir, dir, wrapBase(ref, err)
}

// adapterAndBase finds the folder behind a reference, and the base if an adapter is there: the given one,
// or the one that its config names. There is no base if there is no adapter and none was given.
func (e *env) adapterAndBase(ctx context.Context, ref, given string) (dir, base string, err error) {
	if dir, err = e.model(ctx, ref); err != nil {
		return "", "", err
	}
	dir = adapters.Dir(dir)
	cfg, err := format.ReadAdapterConfig(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		_, full := os.Stat(filepath.Join(dir, format.ModelConfigFile))
		if given != "" || full != nil && len(adapters.Named(dir)) > 0 {
			return "", "", noAdapter(ref, dir)
		}
		return dir, "", nil
	case err != nil:
		return "", "", err
	case given != "":
		if own := cfg.BaseModel; own != nil && *own != "" && baseName(*own) != baseName(given) {
			e.note("the adapter %q was made for %q, not for %q", ref, *own, given)
		}
		return dir, given, nil
	case cfg.BaseModel == nil || *cfg.BaseModel == "":
		return "", "", usage(fmt.Sprintf("opening the adapter %q", ref), "its config names no base model: name it with --base")
	}
	base = *cfg.BaseModel
	if cfg.Revision != nil && *cfg.Revision != "" {
		base += "@" + *cfg.Revision
	}
	return dir, base, nil
}

// baseName is the last part of the name of a model, which its copies tend to keep.
func baseName(ref string) string {
	ref, _, _ = strings.Cut(filepath.ToSlash(ref), "@")
	return path.Base(ref)
}

// wrapBase says of an error whose base it is about.
func wrapBase(adapter string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("opening the base of the adapter %q: %w", adapter, err)
	for _, found := range []error{hub.ErrNetwork, hub.ErrOffline, hub.ErrNoRanges, hub.ErrChanged} {
		if errors.Is(err, found) { // another name would not help
			return err
		}
	}
	return withHint(err, "name the base with --base")
}

func (e *env) adapterNotes(a *adapters.Adapter) {
	if a != nil {
		for _, note := range a.Notes {
			e.note("%s", note)
		}
	}
}
