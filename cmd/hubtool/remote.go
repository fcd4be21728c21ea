package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/hub"
)

// weights is a model or an adapter whose tensors are read where they are: in a folder of this
// machine, or on the Hub, with its configuration pulled.
type weights struct {
	name       string   // of the folder, or as a reference
	repo       hub.Repo // that they are from, if any
	dir        string   // of everything that is no weight; "" for a single file
	checkpoint *format.Checkpoint
	remote     *hub.Remote // nil where everything is local

	adapters []*adapters.Adapter // to be merged, which are read until the end too
}

func (w *weights) Close() error {
	errs := []error{w.checkpoint.Close()}
	for _, a := range w.adapters {
		errs = append(errs, a.Close())
	}
	return errors.Join(errs...)
}

// fetched is how many bytes of weights came over the network.
func (w *weights) fetched() int64 {
	if w.remote == nil {
		return 0
	}
	return w.remote.Fetched()
}

// configFiles are what describes weights.
var configFiles = []string{format.ModelConfigFile, format.AdapterConfigFile, "*.safetensors.index.json"}

// openRemote opens the weights of a repository in place, those in file or, if it is "", those that it
// is about. Files that match side are pulled; of weights, what the cache has is read there. Where the
// Hub cannot be asked the error is hub.ErrOffline or hub.ErrNetwork.
func (e *env) openRemote(ctx context.Context, repo hub.Repo, file string, side []string) (*weights, error) {
	client, err := e.client()
	if err != nil {
		return nil, err
	}
	snap, err := client.Pull(ctx, repo, hub.PullOptions{Include: side, Exclude: []string{"*/*"}})
	e.endProgress()
	if err != nil {
		return nil, err
	}
	repo.Revision = snap.Commit
	remote, err := client.Remote(ctx, repo)
	if err != nil {
		return nil, err
	}
	w := &weights{name: repo.String(), dir: snap.Dir, remote: remote}
	below, begin := path.Split(file)
	if file != "" {
		w.dir = ""
	}
	w.checkpoint, err = format.OpenFolder(format.Folder{
		Path: strings.TrimSuffix(repo.String()+"/"+below, "/"), Names: remote.Names(),
		Open: func(name string) (format.Source, error) { return openRemoteFile(ctx, remote, below+name) },
	}, begin)
	if errors.Is(err, hub.ErrNoRanges) {
		err = withHint(err, "\"hubtool pull %s\" brings the files here; use them then", repo.ID)
	}
	return w, err
}

// sideFiles match what belongs to a model beside weights and configs.
var sideFiles = []string{"*.txt", "*.model", "*.jinja", "*.md", "LICENSE*", "NOTICE*"}

// openBase opens the base of an adapter with everything that a merged model takes over from it. With
// stream its weights stay on the Hub.
func (e *env) openBase(ctx context.Context, adapter, ref string, stream bool) (*weights, error) {
	r, err := e.reference(ref, hub.Model)
	switch {
	case err != nil:
		return nil, wrapBase(adapter, err)
	case r.path != "" && stream:
		return nil, usage("reading the command line", fmt.Sprintf("--stream reads a base on the Hub, but %q is local: leave --stream out", ref))
	case r.path != "":
		w := &weights{name: r.path, dir: r.path}
		if err := e.recover(r.path); err != nil {
			return nil, err
		}
		w.checkpoint, err = format.Open(r.path)
		return w, err
	}
	var w *weights
	if stream {
		w, err = e.openRemote(ctx, r.repo, "", []string{"*.json"})
	} else if w, err = e.pullBase(ctx, r.repo); err == nil {
		w.checkpoint, err = format.Open(w.dir)
	}
	if err != nil {
		return nil, wrapBase(adapter, err)
	}
	w.repo = r.repo
	r.repo.Revision = filepath.Base(w.dir) // a snapshot's folder is called like its commit
	_, err = e.snapshot(ctx, r.repo, hub.PullOptions{Include: sideFiles, Exclude: []string{"*/*"}})
	switch {
	case errors.Is(err, hub.ErrOffline): // what needs no such files need not have pulled them
		e.note("files that the base may have beside its weights are not in the cache: %v", err)
	case err != nil:
		w.Close()
		return nil, wrapBase(adapter, err)
	}
	return w, nil
}

func (e *env) pullBase(ctx context.Context, repo hub.Repo) (*weights, error) {
	dir, err := e.snapshot(ctx, repo, weightsAndConfigs)
	return &weights{name: dir, dir: dir}, err
}

// recover puts a base right that a merge in place has left half done.
func (e *env) recover(dir string) error {
	if !adapters.Unfinished(dir) {
		return nil
	}
	e.note("undoing a merge in place of the base that was interrupted")
	return adapters.Recover(dir)
}

func openRemoteFile(ctx context.Context, remote *hub.Remote, name string) (format.Source, error) {
	if path, ok := remote.Cached(name); ok {
		return format.OpenDisk(path)
	}
	f, err := remote.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return remoteFile{f}, nil
}

// remoteFile is a file on the Hub as a format.Source.
type remoteFile struct{ *hub.RemoteFile }

func (f remoteFile) Size() int64      { return f.RemoteFile.Size }
func (f remoteFile) Version() string  { return f.ETag() }
func (f remoteFile) Unchanged() error { return nil } // every answer was compared with the listing
func (f remoteFile) Close() error     { return nil }

// ReadAt leaves out which file it is, which package format says.
func (f remoteFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.RemoteFile.ReadAt(p, off)
	if inner := errors.Unwrap(err); inner != nil {
		err = inner
	}
	return n, err
}

// inspectRef describes what a reference and, in a repository or a folder, a file in it mean.
func (e *env) inspectRef(ctx context.Context, ref, file string) (*format.Report, error) {
	r, err := e.reference(ref, hub.Model)
	if err != nil {
		return nil, err
	}
	if r.path == "" {
		w, err := e.openRemote(ctx, r.repo, file, configFiles)
		if err == nil {
			defer w.Close()
			return format.InspectOpen(w.checkpoint, w.dir)
		}
		if w != nil || !errors.Is(err, hub.ErrOffline) && !errors.Is(err, hub.ErrNetwork) {
			return nil, err
		}
		// The cache may have everything, although nobody can say so.
		if file != "" {
			r.path, err = e.snapshot(ctx, r.repo, hub.PullOptions{Files: []string{file}})
		} else {
			r.path, err = e.model(ctx, ref)
		}
		if err != nil {
			return nil, err
		}
	}
	if file != "" {
		return format.Inspect(filepath.Join(r.path, filepath.FromSlash(file)))
	}
	return format.Inspect(r.path)
}
