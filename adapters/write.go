package adapters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hubtool/hubtool/format"
)

// Write writes the planned checkpoint into the directory out, as [Merge] does.
func (p *MergePlan) Write(ctx context.Context, out string) (result MergeResult, err error) {
	tmp := filepath.Clean(out) + ".partial"
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return result, fmt.Errorf("merging: %w", err)
	}
	j, err := p.openJournal(tmp)
	if err != nil {
		os.Remove(tmp) // if it is empty
		return result, fmt.Errorf("merging into %q: %w", out, err)
	}
	defer j.close()
	defer func() {
		if err != nil && (!p.opts.Keep || errors.Is(err, format.ErrDamaged)) {
			os.RemoveAll(tmp)
		}
	}()
	p.result.Resumed = len(j.finished)
	missing := int64(0)
	for _, s := range p.result.Shards {
		if _, ok := j.finished[s.Name]; !ok {
			missing += s.Size
		}
	}
	if err := format.CheckSpace(tmp, missing); err != nil {
		return result, err
	}
	if err := p.writeShards(ctx, tmp, j); err != nil {
		return result, err
	}
	if err := p.writeRest(tmp); err != nil {
		return result, err
	}
	if err := context.Cause(ctx); err != nil {
		return result, fmt.Errorf("merging: %w", err)
	}
	if p.opts.Check != nil {
		if err := p.opts.Check(tmp); err != nil {
			return result, err
		}
	}
	p.result.Unchecked = p.base.Unchecked()
	if err := j.remove(); err != nil {
		return result, fmt.Errorf("merging: %w", err)
	}
	if err := format.Rename(tmp, out); err != nil {
		return result, err
	}
	return p.result, nil
}

// writeShards writes files that the journal does not have, some at the same time: the largest first, so
// that none is left over at the end. While the disk catches up with one, the next is begun.
func (p *MergePlan) writeShards(ctx context.Context, dir string, j *journal) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	meter := p.meter()
	var order []int
	for i := range p.shards {
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p.result.Shards[b].Size, p.result.Shards[a].Size) })
	todo := make(chan int)
	moving := make(chan struct{}, p.opts.Jobs) // has an element for each file whose data is on its way
	var running sync.WaitGroup
	for range min(2*p.opts.Jobs, len(p.shards)) {
		running.Go(func() {
			for i := range todo {
				leave := sync.OnceFunc(func() { <-moving })
				s, done := p.shards[i], &p.result.Shards[i]
				if finished, ok := j.finished[s.name]; ok {
					*done = finished
					meter(s.name, done.Size)
					leave()
					continue
				}
				var err error
				if *done, err = p.writeShard(ctx, dir, s, meter, leave); err == nil {
					err = j.note(*done)
				}
				leave() // if it failed before
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, i := range order { // which workers that waited for their turn by themselves would not keep
		select {
		case moving <- struct{}{}:
			todo <- i
		case <-ctx.Done():
		}
	}
	close(todo)
	running.Wait()
	return context.Cause(ctx)
}

// writeShard writes a file, and calls flushing when it only waits for the disk.
func (p *MergePlan) writeShard(ctx context.Context, dir string, s plannedShard, meter func(string, int64), flushing func()) (MergedShard, error) {
	written, err := format.Rewrite(ctx, filepath.Join(dir, s.name), s.header, s.pieces,
		format.RewriteOptions{Readers: p.opts.Readers, Progress: func(n int64) { meter(s.name, n) }, Flushing: flushing})
	return MergedShard{s.name, written.Size, written.SHA256}, err
}

// writeRest writes everything but weights.
func (p *MergePlan) writeRest(dir string) error {
	if err := p.writeIndex(dir); err != nil {
		return err
	}
	if err := p.cfg.Write(dir); err != nil {
		return err
	}
	return p.sideFiles(dir)
}

// meter counts bytes for all files.
func (p *MergePlan) meter() func(shard string, n int64) {
	var mu sync.Mutex
	event := MergeEvent{Total: p.Bytes()}
	return func(shard string, n int64) {
		mu.Lock()
		defer mu.Unlock()
		event.Shard = shard
		event.Done += n
		if p.opts.Progress != nil {
			p.opts.Progress(event)
		}
	}
}

// writeIndex writes the index, last among the weights. The base's is kept to the letter where it
// says the same.
func (p *MergePlan) writeIndex(dir string) error {
	if p.index == nil {
		return nil
	}
	from, to := filepath.Join(p.baseDir(), format.IndexFile), filepath.Join(dir, format.IndexFile)
	if old, err := format.ReadIndex(from); err == nil && maps.Equal(old.WeightMap, p.index.WeightMap) && old.TotalSize == p.index.TotalSize {
		return copyFile(from, to)
	}
	return p.index.Write(to)
}

// baseDir is the directory of the base's files.
func (p *MergePlan) baseDir() string {
	if p.opts.SideFiles != "" {
		return p.opts.SideFiles
	}
	dir := p.base.Path()
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	return dir
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copying side files: %w", err)
	}
	return format.WriteFileAtomic(to, data)
}

// sideKinds are the extensions of files that belong to a model beside its weights: settings,
// tokenizers, licences. Weights in other formats and code are left out.
var sideKinds = []string{".json", ".txt", ".model", ".md", ".jinja", ""}

// sideFiles copies what lies beside the base's tensors. Its card says what the base is, not the
// merged model.
func (p *MergePlan) sideFiles(dir string) error {
	entries, err := os.ReadDir(p.baseDir())
	if err != nil {
		return fmt.Errorf("copying side files: %w", err)
	}
	p.result.SideFiles, p.result.LeftOut = nil, nil
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(p.baseDir(), name)
		info, err := os.Stat(path) // a snapshot in the cache holds links
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("copying side files: %w", err)
		case err != nil || !info.Mode().IsRegular() || strings.HasPrefix(name, "."):
			continue
		case name == format.ModelConfigFile || strings.HasSuffix(name, ".safetensors.index.json"), p.isShard(name):
			continue // written by the merge
		case !slices.Contains(sideKinds, filepath.Ext(name)) || name == "README.md" || strings.HasSuffix(name, ".index.json"):
			p.result.LeftOut = append(p.result.LeftOut, name)
			continue
		}
		if err := copyFile(path, filepath.Join(dir, name)); err != nil {
			return err
		}
		p.result.SideFiles = append(p.result.SideFiles, name)
	}
	return nil
}

func (p *MergePlan) isShard(name string) bool {
	return slices.ContainsFunc(p.base.Shards(), func(s format.Shard) bool { return s.Name == name })
}
