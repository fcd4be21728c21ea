package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
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
		if base != "" {
			return "", "", fmt.Errorf("opening the adapter %q: it has no %s: %w", ref, format.AdapterConfigFile, fs.ErrNotExist)
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

// openModel opens MODEL for inference in a precision and tells what is remarkable about its adapter.
func (e *env) openModel(ctx context.Context, ref, base, precision string) (*train.Classifier, error) {
	baseDir, adapterDir, err := e.modelDirs(ctx, ref, base)
	if err != nil {
		return nil, err
	}
	eng, err := e.openEngine()
	if err != nil {
		return nil, err
	}
	opts := train.OpenOptions{Backend: eng.Backend, Adapter: adapterDir}
	if opts.Precision, err = e.precision(precision, eng); err != nil {
		return nil, err
	}
	c, err := train.Open(baseDir, opts)
	if err != nil {
		return nil, err
	}
	if c.NewHead && c.Adapter == nil {
		c.Close()
		return nil, fmt.Errorf("opening %q: %w: it has no classifier: train one, or name an adapter", ref, adapters.ErrMismatch)
	}
	e.adapterNotes(c.Adapter)
	return c, nil
}

func (e *env) adapterNotes(a *adapters.Adapter) {
	if a != nil {
		for _, note := range a.Notes {
			e.note("%s", note)
		}
	}
}
