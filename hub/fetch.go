package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// source is where one file's content comes from.
type source struct {
	resolve string // the Hub's address of the file at a commit
	etag    string
	size    int64 // -1 if unknown

	mu       sync.Mutex
	location string // where resolve last led; signed, so it expires
	noRanges bool   // the server has ignored a Range
}

func (s *source) address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.location != "" {
		return s.location
	}
	return s.resolve
}

// learn remembers where a request ended, which saves the redirect next time.
func (s *source) learn(resp *http.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := resp.Request.URL.String(); u != s.resolve {
		s.location = u
	}
}

// forget drops an address that no longer works, and says whether there was one.
func (s *source) forget() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.location != ""
	s.location = ""
	return had
}

var (
	errIdle     = errors.New("no data within the time-out (HF_HUB_DOWNLOAD_TIMEOUT)")
	errRange    = errors.New("the server sent another range than was asked for")
	errNoRanges = errors.New("the server does not serve ranges")
)

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
		case expired(err) && src.forget():
			continue
		case !retryable(err):
			return err
		}
		if p.pos > before {
			failures = 0
		}
		if failures++; failures >= c.maxAttempts(ctx) {
			return err
		}
		p.tell(Retrying)
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
	if p.size-p.pos >= c.parallelFrom && c.jobs > 1 && !src.noRanges {
		err := c.fillParallel(ctx, p, src)
		if !errors.Is(err, errNoRanges) {
			return err
		}
		src.noRanges = true
	}
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()

	resp, done, err := c.get(ctx, src, p.pos, -1)
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

// get asks for the content from offset from up to but excluding to; to is -1 for
// the rest. The answer may have any status. Without a byte for the idle time-out
// the request is cancelled; done releases it.
func (c *Client) get(ctx context.Context, src *source, from, to int64) (*http.Response, func(), error) {
	// A body that was encoded could not be compared or resumed.
	h := map[string]string{"Accept-Encoding": "identity"}
	if from > 0 || to >= 0 {
		h["Range"] = fmt.Sprintf("bytes=%d-", from)
		if to >= 0 {
			h["Range"] += strconv.FormatInt(to-1, 10)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.idleTimeout, func() { cancel(errIdle) })
	done := func() {
		timer.Stop()
		cancel(nil)
	}
	resp, err := stream(ctx, c.body, http.MethodGet, src.address(), h, nil)
	if err != nil {
		done()
		return nil, nil, err
	}
	resp.Body = &idleReader{resp.Body, ctx, timer, c.idleTimeout}
	return resp, func() { resp.Body.Close(); done() }, nil
}

// failed describes an unsuccessful answer to a request for content.
func (c *Client) failed(resp *http.Response) error {
	err := failure(resp)
	var e *Error
	if errors.As(err, &e) && (resp.Header.Get("Retry-After") != "" || resp.Header.Get("RateLimit") != "") {
		e.wait = c.pause(resp.Header, resp.StatusCode, 0)
	}
	return err
}

// idleReader pushes the time-out back with every byte: a slow transfer is fine, a
// silent one is cut.
type idleReader struct {
	io.ReadCloser
	ctx   context.Context
	timer *time.Timer
	idle  time.Duration
}

func (r *idleReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	if n > 0 {
		r.timer.Reset(r.idle)
	}
	if err != nil && err != io.EOF && errors.Is(context.Cause(r.ctx), errIdle) {
		err = errIdle
	}
	return n, err
}

// decoded undoes a content encoding that a server applied although it was asked
// not to.
func decoded(resp *http.Response) (io.Reader, error) {
	switch enc := strings.ToLower(resp.Header.Get("Content-Encoding")); enc {
	case "", "identity":
		return resp.Body, nil
	case "gzip":
		return gzip.NewReader(resp.Body)
	case "zstd":
		return zstd.NewReader(resp.Body, zstd.WithDecoderMaxMemory(64<<20))
	default:
		return nil, fmt.Errorf("%w: content encoding %q", ErrDamaged, enc)
	}
}

// checkRange compares the range that came with the one asked for; size is -1 if
// unknown.
func checkRange(h http.Header, from, size int64) error {
	var first, last int64
	spec := h.Get("Content-Range")
	if _, err := fmt.Sscanf(spec, "bytes %d-%d/", &first, &last); err != nil || first != from || last < first {
		return fmt.Errorf("%w: %q", errRange, spec)
	}
	if total := rangeTotal(h); size >= 0 && total >= 0 && total != size {
		return fmt.Errorf("%w: %q", errRange, spec)
	}
	return nil
}

// rangeTotal is the number after the slash of Content-Range; -1 if there is none.
func rangeTotal(h http.Header) int64 {
	_, total, _ := strings.Cut(h.Get("Content-Range"), "/")
	n, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		return -1
	}
	return n
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
