package adapters

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hubtool/hubtool/format"
)

// A Store keeps a merge's files of weights, so that this disk need not.
type Store interface {
	// Has tells whether the store has a file from a merge that was interrupted.
	Has(ctx context.Context, s MergedShard) (bool, error)

	// Put stores the file at a path.
	Put(ctx context.Context, s MergedShard, path string) error
}

// Send writes the planned checkpoint as [MergePlan.Write] does, but puts every file of weights into a
// store and removes it from this disk before it begins the next one. Everything else is then in the
// directory rest, below work, for the caller to store; the caller removes work when that is done.
//
// Whatever ends it before, the next Send with the same inputs and the same work goes on from there:
// what the store has by then is neither computed nor put again.
func (p *MergePlan) Send(ctx context.Context, work string, to Store) (rest string, result MergeResult, err error) {
	rest = filepath.Join(work, "rest")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return "", result, fmt.Errorf("merging: %w", err)
	}
	j, err := p.openJournal(work)
	if err != nil {
		return "", result, fmt.Errorf("merging in %q: %w", work, err)
	}
	defer j.close()
	defer func() {
		if errors.Is(err, format.ErrDamaged) { // what was made of it must not be taken for finished
			err = errors.Join(err, j.remove())
		}
	}()
	meter := p.meter()
	p.result.Resumed = 0
	for i, s := range p.shards {
		if err := context.Cause(ctx); err != nil {
			return "", result, fmt.Errorf("merging: %w", err)
		}
		if p.result.Shards[i], err = p.sendShard(ctx, work, s, p.result.Shards[i], j, to, meter); err != nil {
			return "", result, err
		}
	}
	if err := os.MkdirAll(rest, 0o755); err != nil {
		return "", result, fmt.Errorf("merging: %w", err)
	}
	p.result.Unchecked = p.base.Unchecked()
	err = p.writeRest(rest)
	return rest, p.result, err
}

// sendShard brings one file into the store, by way of this disk if the store does not have it.
func (p *MergePlan) sendShard(ctx context.Context, work string, s plannedShard, done MergedShard, j *journal, to Store, meter func(string, int64)) (MergedShard, error) {
	path := filepath.Join(work, s.name)
	noted, known := j.noted[s.name]
	if known {
		has, err := to.Has(ctx, noted)
		if err != nil {
			return done, fmt.Errorf("looking for %q: %w", s.name, err)
		}
		if has {
			p.result.Resumed++
			meter(s.name, noted.Size)
			return noted, removeIfThere(path)
		}
	}
	if _, here := j.finished[s.name]; here {
		done = noted
		meter(s.name, done.Size)
	} else {
		err := format.CheckSpace(work, done.Size)
		if err == nil {
			done, err = p.writeShard(ctx, work, s, meter, nil)
		}
		if err == nil {
			err = j.note(done)
		}
		if err != nil {
			return done, err
		}
	}
	if err := to.Put(ctx, done, path); err != nil {
		return done, fmt.Errorf("sending %q: %w", s.name, err)
	}
	return done, removeIfThere(path)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("merging: %w", err)
	}
	return nil
}
