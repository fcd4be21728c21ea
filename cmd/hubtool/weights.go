package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hubtool/hubtool/format"
)

// weightSource gives inspect the headers and small files of a model, wherever it is.
type weightSource interface {
	// shards returns the headers of all weight files, and what is odd about them.
	shards() ([]shardHeader, []string, error)
	// readFile returns a small file beside the weights; nil if it is not there.
	readFile(name string) ([]byte, error)
	Close() error
}

type shardHeader struct {
	name   string
	header *format.Header
}

func (e *env) weights(_ context.Context, r reference) (weightSource, error) {
	ck, err := format.Open(r.path)
	if err != nil {
		return nil, err
	}
	return &localWeights{r.path, ck}, nil
}

// localWeights are weights on this disk.
type localWeights struct {
	path string
	*format.Checkpoint
}

func (l *localWeights) shards() ([]shardHeader, []string, error) {
	var shards []shardHeader
	for _, s := range l.Shards() {
		shards = append(shards, shardHeader{s.Name, s.Header})
	}
	return shards, append([]string{}, l.Warnings()...), nil
}

// maxSmallFile is far above any config, and keeps a wrong file out of memory.
const maxSmallFile = 16 << 20

func (l *localWeights) readFile(name string) ([]byte, error) {
	info, err := os.Stat(l.path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, nil // a single file is described by itself
	}
	path := filepath.Join(l.path, name)
	info, err = os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Size() > maxSmallFile:
		return nil, fmt.Errorf("reading %q: %w: it has %s", path, format.ErrDamaged, byteSize(info.Size()))
	}
	return os.ReadFile(path)
}
