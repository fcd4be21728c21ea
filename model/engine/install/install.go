// Package install puts XLA plugins where package engine finds them: from a package registry, from
// wheels, or from a library.
//
// A wheel is unpacked as pip would, so that the plugin finds the libraries of other wheels beside it.
package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hubtool/hubtool/internal/hashing"
	"github.com/hubtool/hubtool/model/engine"
)

var (
	// ErrDownload is wrapped where the registry does not answer, or not as it should.
	ErrDownload = errors.New("download failed")

	// ErrDamaged is wrapped where a file is not what its wheel or the registry says.
	ErrDamaged = errors.New("damaged file")

	// ErrUnsupported is wrapped where there is nothing for this machine, or no plugin in a file.
	ErrUnsupported = errors.New("unsupported")
)

// Options say where plugins come from and go to.
type Options struct {
	Dir      string // the folder of all engines; default: [engine.DataDir]
	From     string // folder of wheels to take instead of the registry's; empty: the registry
	Registry string // default: https://pypi.org

	// Try loads the plugin, before it replaces another; nil tries nothing.
	Try func(plugin string) error

	// Progress is told how much of a file is there; nil is silent.
	Progress func(file string, done, total int64)
}

// Install installs what names: a key of [Packages], or a .whl or .so file. It returns the plugin's
// path. What was installed under the same name is replaced when all has worked.
func Install(ctx context.Context, what string, o Options) (plugin string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("installing the engine %q: %w", what, err)
		}
	}()
	if o.Dir == "" {
		if o.Dir = engine.DataDir(); o.Dir == "" {
			return "", errors.New("there is no home folder: set XDG_DATA_HOME")
		}
	}
	if err := os.MkdirAll(o.Dir, 0o777); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(o.Dir, ".installing-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	i := filling{Options: o, root: tmp}
	name, err := i.fill(ctx, what)
	if err != nil {
		return "", err
	}
	if i.manifest.Plugin, err = findPlugin(tmp); err != nil {
		return "", err
	}
	if o.Try != nil {
		if err := o.Try(filepath.Join(tmp, i.manifest.Plugin)); err != nil {
			return "", fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	}
	text, err := json.MarshalIndent(i.manifest, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(tmp, engine.ManifestFile), append(text, '\n'), 0o666); err != nil {
		return "", err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	dir := filepath.Join(o.Dir, name)
	if err := replace(tmp, dir); err != nil {
		return "", err
	}
	return filepath.Join(dir, i.manifest.Plugin), nil
}

// replace puts a folder into the place of another, which stays until the new one is there.
func replace(dir, old string) error {
	aside := dir + ".old"
	err := os.Rename(old, aside)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(dir, old); err != nil {
		return errors.Join(err, os.Rename(aside, old))
	}
	return os.RemoveAll(aside)
}

// filling fills one folder.
type filling struct {
	Options
	root     string
	manifest engine.Manifest
}

// fill unpacks everything that what needs and returns the engine's name.
func (i *filling) fill(ctx context.Context, what string) (name string, err error) {
	switch filepath.Ext(what) {
	case ".so":
		stem := strings.TrimSuffix(filepath.Base(what), ".so")
		return strings.TrimSuffix(strings.TrimPrefix(stem, "pjrt_c_api_"), "_plugin"), i.copyLibrary(what)
	case ".whl":
		name, _, _ = strings.Cut(filepath.Base(what), "-")
		for known, p := range Packages {
			if name == wheelName(p.plugin) {
				name = known
			}
		}
		if err := i.unpack(ctx, what); err != nil || i.From == "" {
			return name, err
		}
		return name, i.unpackAll(ctx, "nvidia_*.whl")
	}
	p, ok := Packages[what]
	if !ok {
		return "", fmt.Errorf("%w: must be cpu, cuda12, cuda13, or a .whl or .so file", ErrUnsupported)
	}
	if i.From == "" {
		return what, i.fromRegistry(ctx, p)
	}
	if err := i.unpackAll(ctx, wheelName(p.plugin)+"-*.whl"); err != nil {
		return "", err
	}
	if p.libraries != "" {
		return what, i.unpackAll(ctx, "nvidia_*.whl")
	}
	return what, nil
}

// wheelName is how a package's wheels spell its name.
func wheelName(project string) string { return strings.ReplaceAll(project, "-", "_") }

// unpackAll unpacks the wheels in From with names like pattern, of which there must be one.
func (i *filling) unpackAll(ctx context.Context, pattern string) error {
	found, err := filepath.Glob(filepath.Join(i.From, pattern))
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("looking for %q in %q: %w", pattern, i.From, fs.ErrNotExist)
	}
	if err != nil {
		return err
	}
	for _, path := range found {
		if err := i.unpack(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

func (i *filling) copyLibrary(path string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(i.root, filepath.Base(path)))
	if err != nil {
		return err
	}
	h := hashing.NewSHA256()
	_, err = io.Copy(io.MultiWriter(to, h), from)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	i.manifest.Files = append(i.manifest.Files, engine.ManifestEntry{Name: filepath.Base(path), SHA256: fmt.Sprintf("%x", h.Sum(nil))})
	return nil
}

// findPlugin returns the path, from root, of the one library that is a PJRT plugin for this machine.
func findPlugin(root string) (string, error) {
	var found []string
	var why error
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) != ".so" {
			return err
		}
		if checkErr := engine.CheckPlugin(path); checkErr != nil {
			if strings.HasSuffix(path, "_plugin.so") || why == nil {
				why = checkErr
			}
			return nil
		}
		rel, err := filepath.Rel(root, path)
		found = append(found, rel)
		return err
	})
	switch {
	case err != nil:
		return "", err
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", fmt.Errorf("%w: there are several plugins: %s", ErrUnsupported, strings.Join(found, ", "))
	case why != nil:
		return "", fmt.Errorf("%w: %w", ErrUnsupported, why)
	}
	return "", fmt.Errorf("%w: there is no library in it", ErrUnsupported)
}
