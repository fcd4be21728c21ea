package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// A part is one range of a file. What has come of it is kept, so that a cut inside
// it costs nothing.
type part struct {
	from, to int64
	have     int64 // bytes of it that are here
	slot     int   // in the file's map; -1 for none
	into     sink
	asked    string // address of the last try
	err      error
	turn     chan struct{} // closed when all before it is hashed; until done, the hash is this part's
	done     chan struct{}
}

// A sink is where the bytes of a part go.
type sink interface {
	room() []byte     // for the next bytes; not empty before the part is complete
	took(n int) error // that many are in the room
	flush() error     // there may be no more for now
}

// memory is a sink of known size.
type memory struct{ rest []byte }

func (m *memory) room() []byte { return m.rest }

func (m *memory) took(n int) error {
	m.rest = m.rest[n:]
	return nil
}

func (m *memory) flush() error { return nil }

// fillParallel fetches the rest of p in ranges over several connections, whose bytes
// go to their places in the file as they come; rangemap.go says how the next run
// finds them. The hash follows in the order of the file: the foremost part is hashed
// out of memory as it comes, what ran ahead of it is read again. A part holds a slot
// from its request until it is hashed, so that what runs ahead is at most one part per
// job, and still in the system's cache.
func (c *Client) fillParallel(ctx context.Context, p *partial, src *source) error {
	if err := p.openRanges(c.jobs, c.partSize); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := make(chan *part, c.jobs)
	go func() {
		defer close(parts)
		for _, pt := range p.ranges.todo {
			if c.acquire(ctx) != nil {
				return
			}
			pt.turn, pt.done = make(chan struct{}), make(chan struct{})
			pt.into = &place{p: p, part: pt, buf: c.buffer()}
			pt.err = p.ranges.claim(ctx, p, pt)
			go c.fetchPart(ctx, pt, src)
			parts <- pt
		}
	}()
	var first error
	for pt := range parts {
		if first == nil {
			close(pt.turn)
		}
		<-pt.done
		p.fetched += pt.into.(*place).fetched
		c.brought.Add(pt.into.(*place).fetched)
		if first == nil {
			first = pt.err
			if first == nil {
				first = p.advance(pt.to)
			}
			if first != nil {
				cancel() // the parts that are under way end soon; they still own slots
			} else {
				beginWriting(p.file, pt.from, pt.to-pt.from)
				p.ranges.unused <- pt.slot
			}
		}
		c.buffers.Put(&pt.into.(*place).buf)
		c.release()
	}
	if first == nil && p.pos < p.size {
		return ctx.Err()
	}
	return first
}

// A piece is how much of a part is written at a time, and may be lost of it by a kill.
// Large ones cost a few per cent less of the processor; they are for a process that has
// brought so much that losing one per job is a small share of it.
const (
	pieceSize  = 128 << 10
	largePiece = 256 << 10
	largeAfter = 64 << 20
)

// buffer is room for one piece.
func (c *Client) buffer() []byte {
	size := pieceSize
	if c.brought.Load() >= largeAfter {
		size = largePiece
	}
	if used, ok := c.buffers.Get().(*[]byte); ok && len(*used) >= size {
		return *used
	}
	return make([]byte, size)
}

// fetchPart fills one part, resuming inside it after a cut.
func (c *Client) fetchPart(ctx context.Context, pt *part, src *source) {
	defer close(pt.done)
	for failures := 0; pt.err == nil && pt.have < pt.to-pt.from; {
		before := pt.have
		err := c.fetchPartOnce(ctx, pt, src)
		if flushErr := pt.into.flush(); flushErr != nil {
			err = flushErr
		}
		switch {
		case err == nil:
			return
		case ctx.Err() != nil:
			pt.err = ctx.Err()
			return
		case expired(err) && src.forget(pt.asked):
			continue
		case errors.Is(err, ErrNoRanges) || !retryable(err):
			pt.err = err
			return
		}
		if pt.have >= before+leastProgress {
			failures = 0
		}
		if failures++; failures >= c.maxAttempts(ctx) {
			pt.err = err
			return
		}
		pt.err = sleep(ctx, c.retryPause(err, failures-1))
	}
}

func (c *Client) fetchPartOnce(ctx context.Context, pt *part, src *source) error {
	from := pt.from + pt.have
	pt.asked = src.address()
	resp, done, err := c.get(ctx, pt.asked, from, pt.to)
	if err != nil {
		return err
	}
	defer done()
	if err := src.same(resp); err != nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusPartialContent:
	case http.StatusOK, http.StatusRequestedRangeNotSatisfiable:
		return ErrNoRanges
	default:
		return c.failed(resp)
	}
	if err := checkRange(resp.Header, from, src.size); err != nil {
		return fmt.Errorf("%w: %w", ErrNoRanges, err)
	}
	src.learn(resp)
	for left := pt.to - from; left > 0; {
		room := pt.into.room()
		n, err := resp.Body.Read(room[:min(int64(len(room)), left)])
		left -= int64(n)
		pt.have += int64(n)
		if err := pt.into.took(n); err != nil {
			return err
		}
		if err != nil && left > 0 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return transferError(resp, err)
		}
	}
	return nil
}
