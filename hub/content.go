package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// get asks an address for content from offset from up to but excluding to; to is
// -1 for the rest. The answer may have any status. Without a byte for the idle time-out
// the request is cancelled; done releases it.
func (c *Client) get(ctx context.Context, address string, from, to int64) (*http.Response, func(), error) {
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
	resp, err := stream(ctx, c.body, http.MethodGet, address, h, nil)
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
	if err != nil || n < 0 {
		return -1
	}
	return n
}
