package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

var (
	errIdle  = errors.New("no data within the time-out (HF_HUB_DOWNLOAD_TIMEOUT)")
	errRange = errors.New("the server sent another range than was asked for")
)

// leastProgress is what a try must bring to count: a server that sends a byte and
// falls silent could hold us for ever.
const leastProgress = 1 << 10

// fill completes p from src. It resumes after every cut and gives up only after
// several tries in a row that brought nothing. p keeps what has come, for a later
// run, unless it turned out to be wrong.
func (c *Client) fill(ctx context.Context, p *partial, src *source) error {
	failures, restarts := 0, 0
	for {
		before := p.pos
		err := c.fillOnce(ctx, p, src)
		if err == nil {
			err = p.verify()
		}
		switch {
		case err == nil:
			p.tell(Done)
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrDamaged):
			// A wrong prefix left by an earlier run looks the same as a wrong answer, so
			// the whole is fetched once more before it is believed.
			if restarts++; restarts > 1 {
				return err
			}
			if restartErr := p.restart(); restartErr != nil {
				return restartErr
			}
			c.log.Warn("content does not match; fetching it again", "url", redactURL(src.resolve), "error", err)
			continue
		case expired(err) && src.forget(src.address()):
			continue
		case !retryable(err):
			return err
		}
		if p.pos >= before+leastProgress {
			failures = 0
		}
		if failures++; failures >= c.maxAttempts(ctx) {
			return err
		}
		p.problem = err
		p.tell(Retrying)
		p.problem = nil
		if err := sleep(ctx, c.retryPause(err, failures-1)); err != nil {
			return err
		}
	}
}

// expired tells an answer that a signed address gives when its time is over.
func expired(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status >= 400 && e.Status < 500 && !retryableStatus(e.Status)
}

// retryPause is the wait after a failed transfer.
func (c *Client) retryPause(err error, attempt int) time.Duration {
	var e *Error
	if errors.As(err, &e) && e.wait > 0 {
		return e.wait
	}
	return c.pause(nil, 0, attempt)
}

// fillOnce makes one request, or several in parallel, for what p lacks.
func (c *Client) fillOnce(ctx context.Context, p *partial, src *source) error {
	if p.size >= 0 && p.pos == p.size {
		return nil
	}
	if (p.mapped || p.size-p.pos >= c.parallelFrom && c.jobs > 1) && !src.noRanges {
		err := c.fillParallel(ctx, p, src)
		if !errors.Is(err, ErrNoRanges) {
			return err
		}
		src.noRanges = true
	}
	if err := p.single(); err != nil {
		return err
	}
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()

	resp, done, err := c.get(ctx, src.address(), p.pos, -1)
	if err != nil {
		return err
	}
	defer done()
	switch resp.StatusCode {
	case http.StatusOK:
		if p.pos > 0 {
			if err := p.restart(); err != nil {
				return err
			}
		}
	case http.StatusPartialContent:
		if err := checkRange(resp.Header, p.pos, p.size); err != nil {
			return errors.Join(err, p.restart())
		}
	case http.StatusRequestedRangeNotSatisfiable:
		// We have all there is, or more. Verifying decides which.
		if total := rangeTotal(resp.Header); total == p.pos && p.size < 0 {
			return nil
		}
		return errors.Join(errRange, p.restart())
	default:
		return c.failed(resp)
	}
	src.learn(resp)
	body, err := decoded(resp)
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK && body == resp.Body {
		if p.size < 0 && resp.ContentLength >= 0 {
			p.size = resp.ContentLength
			p.hash = newHash(p.etag, p.size)
		}
		if resp.ContentLength >= 0 && resp.ContentLength != p.size {
			return fmt.Errorf("%w: the server sends %d bytes, the Hub announced %d", ErrDamaged, resp.ContentLength, p.size)
		}
	}
	if _, err := io.CopyBuffer(p, body, make([]byte, 256<<10)); err != nil {
		return transferError(resp, err)
	}
	if p.size >= 0 && p.pos < p.size {
		return transferError(resp, io.ErrUnexpectedEOF)
	}
	return nil
}

func transferError(resp *http.Response, err error) error {
	if errors.Is(err, ErrDamaged) || isDiskError(err) {
		return err
	}
	return requestError(resp.Request.Method, resp.Request.URL.String(), err)
}

func (c *Client) acquire(ctx context.Context) error {
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Client) release() { <-c.slots }
