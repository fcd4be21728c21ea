package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/hub"
)

// reference is a REF of the command line: a local path, or a repository.
type reference struct {
	path string // "" for a repository
	repo hub.Repo
}

// reference decides what REF means. A path that exists and holds what is wanted (a model, which
// may be an adapter, or a data set) wins over a repository of that name.
func (e *env) reference(ref string, want hub.RepoType) (reference, error) {
	repo, repoErr := hub.ParseRepoAs(ref, want)
	if strings.Contains(ref, "://") {
		return reference{repo: repo}, repoErr
	}
	info, err := os.Stat(ref)
	switch {
	case isPath(ref) && err != nil:
		return reference{}, fmt.Errorf("finding the %s %q: %w", want, ref, cause(err))
	case isPath(ref):
		return reference{path: ref}, nil
	case err == nil && holds(ref, info, want):
		if repoErr == nil {
			e.note("using the local %q; write %s for the repository", ref, repo)
		}
		return reference{path: ref}, nil
	case err == nil && repoErr != nil:
		return reference{}, fmt.Errorf("finding the %s %q: the path holds none, and a repository is owner/name: %w", want, ref, fs.ErrNotExist)
	case err == nil:
		e.note("the local %q holds no %s: looking for the repository", ref, want)
	case repoErr != nil && errors.Is(err, fs.ErrNotExist) && strings.Count(ref, "/") > 1:
		return reference{}, fmt.Errorf("finding the %s %q: %w; nor is it owner/name", want, ref, cause(err))
	}
	return reference{repo: repo}, repoErr
}

// cause drops the path from an error of package os, which the caller's text has already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// isPath tells what can only be a path.
func isPath(ref string) bool {
	first, _, _ := strings.Cut(filepath.ToSlash(ref), "/")
	return filepath.IsAbs(ref) || first == "." || first == ".." || strings.HasSuffix(ref, ".safetensors") || strings.HasSuffix(ref, string(filepath.Separator))
}

// modelFiles mark a folder as a model or an adapter.
var modelFiles = []string{"config.json", "adapter_config.json", "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"}

// imageExtensions are those of the images that predict takes from a folder.
var imageExtensions = []string{".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}

// dataExtensions mark a folder, or one below it, as a data set.
var dataExtensions = append([]string{".parquet", ".tar", ".gz", ".bz2", ".zip", ".csv", ".tsv", ".jsonl"}, imageExtensions...)

func holds(path string, info fs.FileInfo, want hub.RepoType) bool {
	if !info.IsDir() {
		return want == hub.Model
	}
	if want == hub.Model {
		return len(adapters.Named(path)) > 0 || slices.ContainsFunc(modelFiles, func(name string) bool {
			_, err := os.Stat(filepath.Join(path, name))
			return err == nil
		})
	}
	found := false
	_ = walkFolder(path, func(path string, d fs.DirEntry, err error) error {
		if err == nil && slices.Contains(dataExtensions, strings.ToLower(filepath.Ext(path))) {
			found = true
			return fs.SkipAll
		}
		return nil // what cannot be read here is reported by whoever reads it
	})
	return found
}

// walkFolder is filepath.WalkDir for a folder that may itself be a link to one.
func walkFolder(dir string, visit fs.WalkDirFunc) error {
	return filepath.WalkDir(dir+string(filepath.Separator), visit)
}

// model returns the local path of a model or adapter: REF itself, or the snapshot of a repository,
// pulled without what is not needed for computing.
func (e *env) model(ctx context.Context, ref string) (string, error) {
	r, err := e.reference(ref, hub.Model)
	if err != nil || r.path != "" {
		return r.path, err
	}
	return e.snapshot(ctx, r.repo, weightsAndConfigs)
}

// modelConfig reads a model's config.json, the one file that is pulled of a repository.
func (e *env) modelConfig(ctx context.Context, ref string) (*format.ModelConfig, error) {
	r, err := e.reference(ref, hub.Model)
	if err != nil {
		return nil, err
	}
	dir := r.path
	if dir == "" {
		if dir, err = e.snapshot(ctx, r.repo, hub.PullOptions{Include: []string{format.ModelConfigFile}}); err != nil {
			return nil, err
		}
	}
	return format.ReadModelConfig(dir)
}

// weightsAndConfigs are what computing needs of a model.
var weightsAndConfigs = hub.PullOptions{Include: []string{"*.safetensors", "*.json"}, Exclude: []string{"*/*"}}

// dataset returns the local folder of a data set, pulling it where REF is a repository.
func (e *env) dataset(ctx context.Context, ref string) (string, error) {
	r, err := e.reference(ref, hub.Dataset)
	if err != nil || r.path != "" {
		return r.path, err
	}
	repo, err := e.withoutScript(ctx, r.repo)
	if err != nil {
		return "", err
	}
	return e.snapshot(ctx, repo, hub.PullOptions{Exclude: notData})
}

// converted is the revision on which the Hub keeps data sets of other formats as Parquet files.
const converted = "refs/convert/parquet"

// withoutScript returns the Hub's conversion of a data set that is made by a Python script of its own name, as long as
// no revision is asked for: such scripts are run neither here nor by the Python package datasets any more.
func (e *env) withoutScript(ctx context.Context, repo hub.Repo) (hub.Repo, error) {
	if repo.Revision != "" {
		return repo, nil
	}
	client, err := e.client()
	if err != nil {
		return repo, err
	}
	script := path.Base(repo.ID) + ".py"
	found, err := client.Pull(ctx, repo, hub.PullOptions{Include: []string{script}}) // kept, so that offline knows as well
	if err != nil || len(found.Files) == 0 {
		return repo, err
	}
	repo.Revision = converted
	e.note("%q is made by the script %q: using the Hub's conversion, revision %s", repo.ID, script, converted)
	return repo, nil
}

func (e *env) snapshot(ctx context.Context, repo hub.Repo, opts hub.PullOptions) (string, error) {
	client, err := e.client()
	if err != nil {
		return "", err
	}
	snap, err := client.Pull(ctx, repo, opts)
	e.endProgress()
	if err != nil {
		return "", err
	}
	return snap.Dir, nil
}
