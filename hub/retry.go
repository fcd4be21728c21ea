package hub

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/go-resty/resty/v2"
)

// maxPause bounds a wait that a server asks for; the Hub's windows are 5 minutes.
const maxPause = 6 * time.Minute

func retryableStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryable tells failures that another try may cure from those it cannot: what
// the caller or a rule of ours decided, and certificates.
func retryable(err error) bool {
	for _, final := range []error{context.Canceled, ErrOffline, ErrChanged, ErrNoRanges, errProxy, errRedirects, errDowngrade, errMethod} {
		if errors.Is(err, final) {
			return false
		}
	}
	if isDiskError(err) {
		return false
	}
	var (
		verify *tls.CertificateVerificationError
		record tls.RecordHeaderError
		unk    x509.UnknownAuthorityError
		host   x509.HostnameError
		date   x509.CertificateInvalidError
	)
	if errors.As(err, &verify) || errors.As(err, &record) || errors.As(err, &unk) || errors.As(err, &host) || errors.As(err, &date) {
		return false
	}
	var e *Error
	if errors.As(err, &e) && e.Status != 0 {
		return retryableStatus(e.Status)
	}
	return true
}

type attemptsKey struct{}

// withAttempts bounds the tries of the requests made under ctx. One try is right
// where a cached copy can take the answer's place.
func withAttempts(ctx context.Context, n int) context.Context {
	return context.WithValue(ctx, attemptsKey{}, n)
}

func (c *Client) maxAttempts(ctx context.Context) int {
	if n, ok := ctx.Value(attemptsKey{}).(int); ok {
		return n
	}
	return c.attempts
}

// retryCondition is what resty asks after each try.
func (c *Client) retryCondition(resp *resty.Response, err error) bool {
	if resp == nil || resp.Request == nil || resp.Request.Attempt >= c.maxAttempts(resp.Request.Context()) {
		return false
	}
	if err != nil {
		return retryable(err) && resp.Request.Context().Err() == nil
	}
	return retryableStatus(resp.StatusCode())
}

// retryAfter is how long resty waits before the next try.
func (c *Client) retryAfter(_ *resty.Client, resp *resty.Response) (time.Duration, error) {
	wait := c.pause(resp.Header(), resp.StatusCode(), resp.Request.Attempt-1)
	c.log.Info("trying again", "in", wait, "url", redactURL(resp.Request.URL), "status", resp.StatusCode(), "bucket", limitBucket(resp.Header()))
	return wait, nil
}

var rateLimit = regexp.MustCompile(`"?([A-Za-z]*)"?\s*;\s*r=(\d+)\s*;\s*t=(\d+)`)

func limitBucket(h http.Header) string {
	if m := rateLimit.FindStringSubmatch(h.Get("RateLimit")); m != nil {
		return m[1]
	}
	return ""
}

// pause is the wait before the try after number attempt, counted from 0: what the
// server asks for and a second more, else 1, 2, 4, 8, 8 times the base.
func (c *Client) pause(h http.Header, status, attempt int) time.Duration {
	wait := c.backoff << min(attempt, 3)
	if status == http.StatusTooManyRequests {
		// The header is on every answer; it is the reason for this one only at r=0.
		if m := rateLimit.FindStringSubmatch(h.Get("RateLimit")); m != nil && m[2] == "0" {
			if t, err := strconv.Atoi(m[3]); err == nil {
				return min(time.Duration(t+1)*time.Second, maxPause)
			}
		}
	}
	after := h.Get("Retry-After")
	if n, err := strconv.Atoi(after); err == nil && n >= 0 {
		wait = time.Duration(min(n, 1000)+1) * time.Second
	} else if at, err := http.ParseTime(after); err == nil {
		// Against the server's clock: ours may be wrong.
		if now, err := http.ParseTime(h.Get("Date")); err == nil {
			wait = max(at.Sub(now), 0) + time.Second
		}
	}
	return min(wait, maxPause)
}

// sleep waits, or returns early with the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
