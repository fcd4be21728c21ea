package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/hub"
)

// Training may begin while a repository's files still come (dataset.streaming), and looking at a part of a data set needs
// no more than that part. The card and the first data file are
// pulled at once, the other files one after another, each by parallel ranges.

// openArriving opens a data set of a repository before its files are here; a local one, or one that cannot be read so,
// is opened whole.
func (e *env) openArriving(ctx context.Context, ref string, opts dataset.Options) (*dataset.Dataset, error) {
	r, err := e.reference(ref, hub.Dataset)
	if err != nil {
		return nil, err
	}
	if r.path != "" {
		return dataset.Open(r.path, opts)
	}
	repo, err := e.withoutScript(ctx, r.repo)
	if err != nil {
		return nil, err
	}
	client, err := e.client()
	if err != nil {
		return nil, err
	}
	listing, err := client.Pull(ctx, repo, hub.PullOptions{DryRun: true, Exclude: notData})
	if err != nil {
		return nil, err
	}
	var files []dataset.File
	var cards []string
	for _, f := range listing.Files {
		files = append(files, dataset.File{Name: f.Name, Size: f.Size})
		if slices.Contains(cardFiles, f.Name) {
			cards = append(cards, f.Name)
		}
	}
	at := repo
	at.Revision = listing.Commit
	if len(cards) > 0 { // with the revision as it was given, so that the cache notes what it means
		if _, err := client.Pull(ctx, repo, hub.PullOptions{Files: cards}); err != nil {
			return nil, err
		}
	}
	fetch := func(ctx context.Context, name string) error {
		_, err := client.Pull(ctx, at, hub.PullOptions{Files: []string{name}})
		e.endProgress()
		return err
	}
	d, err := dataset.OpenArriving(ctx, listing.Dir, files, fetch, opts)
	if errors.Is(err, dataset.ErrStreaming) {
		e.note("all of %q is pulled first: %v", ref, err)
		dir, err := e.dataset(ctx, ref)
		if err != nil {
			return nil, err
		}
		return dataset.Open(dir, opts)
	}
	return d, err
}

// cardFiles are what a repository says about itself.
var cardFiles = []string{"README.md", ".huggingface.yaml", "dataset_infos.json"}

// notData is left out of every pull of a data set.
var notData = []string{".git*"}

// whileFetching runs work while the files that rows need are brought, and stops bringing them when it ends.
func whileFetching[T any](ctx context.Context, d *dataset.Dataset, rows []*dataset.Rows, work func(ctx context.Context) (T, error)) (T, error) {
	fetching, stop := context.WithCancel(ctx)
	defer stop()
	fetched := make(chan error, 1)
	go func() { fetched <- d.Fetch(fetching, rows...) }()
	result, err := work(ctx)
	stop()
	if fetchErr := <-fetched; err == nil && fetchErr != nil && !errors.Is(fetchErr, context.Canceled) {
		err = fmt.Errorf("bringing the rest of the data set: %w", fetchErr)
	}
	return result, err
}
