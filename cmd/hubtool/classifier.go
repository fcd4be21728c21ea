package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

// modelDirs finds the folders behind MODEL: an adapter with its base, which is --base or the one that
// its config names, or a base alone.
func (e *env) modelDirs(ctx context.Context, ref, base string) (baseDir, adapterDir string, err error) {
	dir, err := e.model(ctx, ref)
	if err != nil {
		return "", "", err
	}
	dir = adapters.Dir(dir)
	cfg, err := format.ReadAdapterConfig(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		_, full := os.Stat(filepath.Join(dir, format.ModelConfigFile))
		if base != "" || full != nil && len(adapters.Named(dir)) > 0 {
			return "", "", noAdapter(ref, dir)
		}
		return dir, "", nil
	case err != nil:
		return "", "", err
	}
	if base == "" {
		if cfg.BaseModel == nil || *cfg.BaseModel == "" {
			return "", "", usage(fmt.Sprintf("opening the adapter %q", ref), "its config names no base model: name it with --base")
		}
		base = *cfg.BaseModel
		if cfg.Revision != nil && *cfg.Revision != "" {
			base += "@" + *cfg.Revision
		}
	}
	baseDir, err = e.model(ctx, base)
	if err != nil {
		return "", "", withHint(fmt.Errorf("opening the base of the adapter %q: %w", ref, err), "name the base with --base")
	}
	return baseDir, dir, nil
}

func (e *env) adapterNotes(a *adapters.Adapter) {
	if a != nil {
		for _, note := range a.Notes {
			e.note("%s", note)
		}
	}
}
