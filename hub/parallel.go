package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// A part is one range of a large file, held in memory until the parts before it
// are written. The file on disk therefore is a plain prefix at every moment: it
// can be hashed as it grows, and a killed process leaves nothing but a prefix to
// resume from. What is lost then is at most one part per job.
type part struct {
	from, to int64
	data     []byte
	asked    string // address of the last try
	err      error
	done     chan struct{}
}

// fillParallel fetches the rest of p in ranges over several connections. A part
// holds a slot from its request until it is written, which bounds the memory of
// all transfers together to jobs parts.
func (c *Client) fillParallel(ctx context.Context, p *partial, src *source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := make(chan *part, c.jobs)
	go func() {
		defer close(parts)
		for from := p.pos; from < p.size; from += c.partSize {
			if c.acquire(ctx) != nil {
				return
			}
			pt := &part{from: from, to: min(from+c.partSize, p.size), data: c.buffer(), done: make(chan struct{})}
			go c.fetchPart(ctx, pt, src)
			parts <- pt
		}
	}()
	var first error
	for pt := range parts {
		<-pt.done
		if first == nil {
			first = pt.err
			if first == nil {
				_, first = p.Write(pt.data)
			}
			if first != nil {
				cancel() // the parts that are under way end soon; they still own slots
			}
		}
		if cap(pt.data) >= int(c.partSize) {
			c.buffers.Put(&pt.data)
		}
		c.release()
	}
	if first == nil && p.pos < p.size {
		return ctx.Err()
	}
	return first
}

// buffer is room for one part.
func (c *Client) buffer() []byte {
	if used, ok := c.buffers.Get().(*[]byte); ok && int64(cap(*used)) >= c.partSize {
		return (*used)[:0]
	}
	return make([]byte, 0, c.partSize)
}

// fetchPart fills one part, resuming inside it after a cut.
func (c *Client) fetchPart(ctx context.Context, pt *part, src *source) {
	defer close(pt.done)
	for failures := 0; ; {
		before := len(pt.data)
		err := c.fetchPartOnce(ctx, pt, src)
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
		if len(pt.data) > before {
			failures = 0
		}
		if failures++; failures >= c.maxAttempts(ctx) {
			pt.err = err
			return
		}
		if pt.err = sleep(ctx, c.retryPause(err, failures-1)); pt.err != nil {
			return
		}
	}
}

func (c *Client) fetchPartOnce(ctx context.Context, pt *part, src *source) error {
	from := pt.from + int64(len(pt.data))
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
	for from < pt.to {
		room := pt.data[len(pt.data):cap(pt.data)]
		n, err := resp.Body.Read(room[:min(int64(len(room)), pt.to-from, 256<<10)])
		pt.data = pt.data[:len(pt.data)+n]
		from += int64(n)
		if err != nil && from < pt.to {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return transferError(resp, err)
		}
	}
	return nil
}
