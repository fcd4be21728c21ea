package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model/vision"
)

// pictures are images to classify, in order.
type pictures struct {
	names []string
	read  func(ctx context.Context, i int) (image []byte, truth string, err error)
}

// pictureFiles are files, the files in folders and of globs, addresses, and stdin.
func (e *env) pictureFiles(args []string) (*pictures, error) {
	paths, err := imagePaths(args)
	return &pictures{paths, func(ctx context.Context, i int) ([]byte, string, error) {
		data, err := e.readImage(ctx, paths[i])
		return data, "", err
	}}, err
}

// pictureRows are the images of a data set's split. They are named by split and place, as in test:17,
// because few data sets keep file names.
func (e *env) pictureRows(ctx context.Context, ref, split string, opts dataset.Options) (*pictures, error) {
	ds, err := e.openDataset(ctx, ref, defaultCacheSize, opts)
	if err != nil {
		return nil, err
	}
	rows, err := ds.Select(split)
	if err != nil {
		return nil, err
	}
	names, classes := make([]string, rows.Len()), rows.ClassNames()
	for i := range names {
		names[i] = fmt.Sprintf("%s:%d", split, i)
	}
	return &pictures{names, func(_ context.Context, i int) ([]byte, string, error) {
		row, err := rows.At(i)
		if err == nil && row.Label >= 0 && row.Label < len(classes) {
			return row.Image, classes[row.Label], nil
		}
		return row.Image, "", err
	}}, nil
}

// prepared is a batch of images as a model takes them.
type prepared struct {
	index  []int // of those that could be read
	truths []string
	pixels []byte
	bad    []string // why others could not
}

// prepare reads and transforms images by the list of their places, in batches and ahead of their use.
func (p *pictures) prepare(ctx context.Context, list []int, batch int, pipeline *vision.Pipeline) <-chan prepared {
	ready := make(chan prepared, 1)
	go func() {
		defer close(ready)
		for part := range slices.Chunk(list, batch) {
			select {
			case ready <- p.prepareBatch(ctx, part, pipeline):
			case <-ctx.Done():
				return
			}
		}
	}()
	return ready
}

func (p *pictures) prepareBatch(ctx context.Context, list []int, pipeline *vision.Pipeline) prepared {
	images, truths, errs := make([]*vision.Image, len(list)), make([]string, len(list)), make([]error, len(list))
	workers := min(runtime.GOMAXPROCS(0), len(list))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(list) && ctx.Err() == nil; i += workers {
				var data []byte
				if data, truths[i], errs[i] = p.read(ctx, list[i]); errs[i] == nil {
					images[i], errs[i] = pipeline.Load(data, nil)
				}
			}
		})
	}
	wg.Wait()
	var b prepared
	for i, img := range images {
		switch {
		case errs[i] != nil:
			b.bad = append(b.bad, fmt.Sprintf("%s: %v", p.names[list[i]], errs[i]))
		case img != nil: // nil where ctx ended
			b.index, b.truths, b.pixels = append(b.index, list[i]), append(b.truths, truths[i]), append(b.pixels, img.Pix...)
		}
	}
	return b
}

// imagePaths spells out folders and globs. What does not exist is an error.
func imagePaths(args []string) ([]string, error) {
	var paths []string
	for _, arg := range args {
		if arg == "-" || isURL(arg) {
			paths = append(paths, arg)
			continue
		}
		info, err := os.Stat(arg)
		switch {
		case err == nil && info.IsDir():
			found, err := imagesIn(arg)
			if err != nil {
				return nil, err
			}
			paths = append(paths, found...)
		case err == nil:
			paths = append(paths, arg)
		default:
			found, globErr := filepath.Glob(arg)
			if globErr != nil || len(found) == 0 {
				return nil, fmt.Errorf("finding the image %q: %w", arg, cause(err))
			}
			paths = append(paths, found...)
		}
	}
	return paths, nil
}

func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

func imagesIn(dir string) ([]string, error) {
	var found []string
	err := walkFolder(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && slices.Contains(imageExtensions, strings.ToLower(filepath.Ext(path))) {
			found = append(found, filepath.Clean(path))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("listing images in %q: there are none: %w", dir, fs.ErrNotExist)
	}
	return found, nil
}

// maxImage bounds what is read from stdin or an address.
const maxImage = 256 << 20

func (e *env) readImage(ctx context.Context, path string) ([]byte, error) {
	switch {
	case path == "-":
		return readAll(e.in)
	case isURL(path):
		if e.offline || envBool("HF_HUB_OFFLINE") {
			return nil, errors.New("not fetched: offline")
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("the server answers %s", resp.Status)
		}
		return readAll(resp.Body)
	default:
		data, err := os.ReadFile(path)
		return data, cause(err)
	}
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxImage+1))
	if err == nil && len(data) > maxImage {
		err = fmt.Errorf("it has more than %d bytes", maxImage)
	}
	return data, err
}
