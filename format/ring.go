package format

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"os"
	"sync"
)

// Data moves in chunks of this size, of which so many are on their way through one file. Smaller
// chunks cost calls, larger ones leave the processor's cache.
const (
	chunkBytes = 4 << 20
	ringChunks = 4
)

// A source is what a range of the new file is made of.
type source struct {
	tensor string // "" for the header
	size   int64
	read   func(dst []byte, at int64) error
	patch  *Patch
	file   *shardFile // nil if the data is not in a file
	offset int64      // of the data in file
}

// A ring writes sources one after the other. Chunks go from reading through patching and hashing to
// writing, each step a goroutine, and back.
type ring struct {
	file     *os.File
	sources  []source
	hash     hash.Hash
	progress func(int64)
}

// A chunk is a range of the new file.
type chunk struct {
	data  []byte
	spans []span // of it that are patched
}

// A span is a run of whole blocks of one tensor inside a chunk.
type span struct {
	source *source
	at     int64 // in the tensor
	data   []byte
}

var chunkPool = sync.Pool{New: func() any { return &chunk{data: make([]byte, 0, chunkBytes)} }}

func (r *ring) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Every channel has room for all chunks, so that only receiving can block.
	var steps [4]chan *chunk
	for i := range steps {
		steps[i] = make(chan *chunk, ringChunks)
	}
	free, read, patched, hashed := steps[0], steps[1], steps[2], steps[3]
	for range ringChunks {
		free <- chunkPool.Get().(*chunk)
	}
	var running sync.WaitGroup
	step := func(in <-chan *chunk, out chan<- *chunk, do func(*chunk) error) {
		running.Go(func() {
			defer close(out)
			for c := range in {
				if err := do(c); err != nil {
					cancel(err)
					return
				}
				out <- c
			}
		})
	}
	running.Go(func() {
		defer close(read)
		if err := r.read(ctx, free, read); err != nil {
			cancel(err)
		}
	})
	step(read, patched, (&patcher{}).patch)
	step(patched, hashed, func(c *chunk) error { _, err := r.hash.Write(c.data); return err })

	behind, at := newBehind(r.file), int64(0)
	for c := range hashed {
		if _, err := r.file.Write(c.data); err != nil {
			cancel(err)
			break
		}
		n := int64(len(c.data))
		behind.moved(at, at+n)
		at += n
		if r.progress != nil {
			r.progress(n)
		}
		if c.data = c.data[:0]; cap(c.data) > chunkBytes { // grown for one large block
			c.data = make([]byte, 0, chunkBytes)
		}
		free <- c
	}
	running.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for range ringChunks {
		chunkPool.Put(<-free)
	}
	return r.unchanged()
}

// read fills chunks. A chunk ends early rather than divide a block, and grows for a block that is
// larger than it.
func (r *ring) read(ctx context.Context, free <-chan *chunk, out chan<- *chunk) error {
	take := func() (*chunk, error) {
		select {
		case c := <-free:
			c.spans = c.spans[:0]
			return c, context.Cause(ctx)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	c, err := take()
	if err != nil {
		return err
	}
	behind := map[*shardFile]*behind{}
	for i := range r.sources {
		s := &r.sources[i]
		for at := int64(0); at < s.size; {
			room, block := int64(cap(c.data)-len(c.data)), int64(1)
			if s.patch != nil {
				block = s.patch.Block
			}
			n := min(s.size-at, room/block*block)
			if n == 0 && len(c.data) > 0 {
				out <- c
				if c, err = take(); err != nil {
					return err
				}
				continue
			}
			if n == 0 {
				n = block
				c.data = make([]byte, 0, block)
			}
			dst := c.data[len(c.data) : int64(len(c.data))+n]
			if err := s.read(dst, at); err != nil {
				return inTensorOf(s, err)
			}
			c.data = c.data[:int64(len(c.data))+n]
			if s.patch != nil {
				c.spans = append(c.spans, span{s, at, dst})
			}
			if s.file != nil {
				if behind[s.file] == nil {
					behind[s.file] = newBehind(s.file.File)
				}
				behind[s.file].moved(s.offset+at, s.offset+at+n)
			}
			at += n
		}
	}
	if len(c.data) > 0 {
		out <- c
	}
	return nil
}

// inTensorOf names the tensor in an error that does not.
func inTensorOf(s *source, err error) error {
	if named := (*Error)(nil); errors.As(err, &named) || s.tensor == "" {
		return err
	}
	return &Error{Tensor: s.tensor, Err: err}
}

// A patcher applies patches to chunks that come in the order of the file.
type patcher struct {
	source *source
	apply  func(at int64, data []byte) error
}

func (p *patcher) patch(c *chunk) (err error) {
	for _, s := range c.spans {
		if s.source != p.source {
			p.source, p.apply = s.source, nil // first let go of what the tensor before needed
			if p.apply, err = s.source.patch.Start(); err != nil {
				return inTensorOf(s.source, err)
			}
		}
		if err := p.apply(s.at, s.data); err != nil {
			return inTensorOf(s.source, err)
		}
	}
	return nil
}

// unchanged fails if a file was written to while it was read.
func (r *ring) unchanged() error {
	for _, s := range r.sources {
		if s.file != nil {
			if err := s.file.unchanged(); err != nil {
				return fmt.Errorf("reading: %w", err)
			}
		}
	}
	return nil
}
