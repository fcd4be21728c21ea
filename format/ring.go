package format

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"os"
	"sync"
)

// Data moves in chunks, of which so many are on their way through one file, apart from those that are
// being read. Smaller chunks cost calls, larger ones leave the processor's cache; where several are
// read at a time each costs an answer to wait for, and should be worth it.
const (
	diskChunk  = 1 << 20
	lineChunk  = 2 << 20
	ringChunks = 4
)

// A source is what a range of the new file is made of.
type source struct {
	tensor string // "" for the header
	size   int64
	read   func(dst []byte, at int64) error // where the data is not in a file; called in order
	patch  *Patch
	file   *shardFile // nil if the data is not in a file
	offset int64      // of the data in file
	fail   func(error) error
}

// A ring writes sources one after the other. Chunks go from planning through reading, patching and
// hashing to writing, each step a goroutine, and back.
type ring struct {
	file     *os.File
	sources  []source
	hash     hash.Hash
	readers  int // chunks that are read at the same time
	progress func(int64)
	behind   map[*diskFile]*behind // of the files that are read
}

// A chunk is a range of the new file.
type chunk struct {
	data   []byte
	ranges []fileRange // of files that fill parts of it
	made   []span      // what fills the others
	spans  []span      // of it that are patched
	filled chan error  // gives what reading the ranges has come to
}

// A fileRange is read at once: tensors that follow each other in a file cost one request.
type fileRange struct {
	source   *source // the first one
	offset   int64   // in the file
	from, to int     // in the chunk
}

// A span is a run of whole blocks of one tensor inside a chunk.
type span struct {
	source *source
	at     int64 // in the tensor
	data   []byte
}

var chunkPool = sync.Pool{New: func() any { return &chunk{filled: make(chan error, 1)} }}

// size is how large chunks are that need not be larger.
func (r *ring) size() int {
	if r.readers > 1 {
		return lineChunk
	}
	return diskChunk
}

// empty prepares a chunk for other data. One that had grown for a large block shrinks.
func (c *chunk) empty(size int) *chunk {
	if c.data = c.data[:0]; cap(c.data) != size {
		c.data = make([]byte, 0, size)
	}
	return c
}

func (r *ring) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Every channel has room for all chunks, so that only receiving can block.
	chunks := ringChunks + r.readers - 1
	var steps [5]chan *chunk
	for i := range steps {
		steps[i] = make(chan *chunk, chunks)
	}
	free, planned, read, patched, hashed := steps[0], steps[1], steps[2], steps[3], steps[4]
	for range chunks {
		free <- chunkPool.Get().(*chunk).empty(r.size())
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
		defer close(planned)
		if err := r.plan(ctx, free, planned); err != nil {
			cancel(err)
		}
	})
	step(planned, read, r.read)
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
		free <- c.empty(r.size())
	}
	running.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for range chunks {
		chunkPool.Put(<-free)
	}
	return r.unchanged()
}

// plan decides what chunks are made of, and has them read if that is done for several at a time. A
// chunk ends early rather than divide a block, and grows for a block that is larger than it.
func (r *ring) plan(ctx context.Context, free <-chan *chunk, out chan<- *chunk) error {
	take := func() (*chunk, error) {
		select {
		case c := <-free:
			c.ranges, c.made, c.spans = c.ranges[:0], c.made[:0], c.spans[:0]
			return c, context.Cause(ctx)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	pass := func(c *chunk) {
		if r.readers > 1 {
			go func() { c.filled <- c.readRanges() }()
		}
		out <- c
	}
	c, err := take()
	if err != nil {
		return err
	}
	for i := range r.sources {
		s := &r.sources[i]
		for at := int64(0); at < s.size; {
			room, block := int64(cap(c.data)-len(c.data)), int64(1)
			if s.patch != nil {
				block = s.patch.Block
			}
			n := min(s.size-at, room/block*block)
			if n == 0 && len(c.data) > 0 {
				pass(c)
				if c, err = take(); err != nil {
					return err
				}
				continue
			}
			if n == 0 {
				n = block
				c.data = make([]byte, 0, block)
			}
			c.add(s, at, n)
			at += n
		}
	}
	if len(c.data) > 0 {
		pass(c)
	}
	return nil
}

// add plans the next n bytes of a chunk.
func (c *chunk) add(s *source, at, n int64) {
	from := len(c.data)
	c.data = c.data[:from+int(n)]
	part := span{s, at, c.data[from:]}
	if s.patch != nil {
		c.spans = append(c.spans, part)
	}
	if s.file == nil {
		c.made = append(c.made, part)
		return
	}
	if last := len(c.ranges) - 1; last >= 0 {
		r := &c.ranges[last]
		if r.source.file == s.file && r.to == from && r.offset+int64(r.to-r.from) == s.offset+at {
			r.to = len(c.data)
			return
		}
	}
	c.ranges = append(c.ranges, fileRange{s, s.offset + at, from, len(c.data)})
}

func (c *chunk) readRanges() error {
	for _, r := range c.ranges {
		if err := readFull(r.source.file, c.data[r.from:r.to], r.offset); err != nil {
			return r.source.fail(err)
		}
	}
	return nil
}

// read completes chunks in the order of the file.
func (r *ring) read(c *chunk) error {
	if r.readers > 1 {
		if err := <-c.filled; err != nil {
			return err
		}
	} else if err := c.readRanges(); err != nil {
		return err
	}
	for _, f := range c.ranges {
		if err := f.source.file.check(c.data[f.from:f.to], f.offset); err != nil {
			return f.source.fail(err)
		}
		if disk, ok := f.source.file.Source.(*diskFile); ok {
			if r.behind[disk] == nil {
				r.behind[disk] = newBehind(disk.File)
			}
			r.behind[disk].moved(f.offset, f.offset+int64(f.to-f.from))
		}
	}
	for _, m := range c.made {
		if err := m.source.read(m.data, m.at); err != nil {
			return inTensorOf(m.source, err)
		}
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

// unchanged fails if a file was written to while it was read, or is not what was announced.
func (r *ring) unchanged() error {
	for _, s := range r.sources {
		if s.file == nil {
			continue
		}
		if err := s.file.checkEnd(); err != nil {
			return s.fail(err)
		}
		if err := s.file.Unchanged(); err != nil {
			return fmt.Errorf("reading: %w", err)
		}
	}
	return nil
}
