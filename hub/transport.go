package hub

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/go-resty/resty/v2"
	"github.com/klauspost/compress/gzhttp"
)

const (
	maxRedirects = 10
	apiTimeout   = 60 * time.Second
	maxAnswer    = 64 << 20 // bytes of one API answer
)

var (
	errRedirects = errors.New("too many redirects")
	errDowngrade = errors.New("refusing a redirect from https to http")
	errMethod    = errors.New("refusing a redirect that would turn the request into a GET")
)

// connect sets up three resty clients over one transport: api for JSON answers,
// compressed and retried; head for metadata, whose redirects are data; body for
// content, which is streamed as it is and resumed by its caller.
func (c *Client) connect(base http.RoundTripper) {
	if base == nil {
		base = newTransport(c.jobs)
	}
	g := &guard{next: base, endpoint: originOf(c.endpoint), token: c.token, offline: c.offline, agent: userAgent(c.agent), log: c.log}

	c.api = newResty(gzhttp.Transport(g), checkRedirect).
		SetTimeout(apiTimeout).
		SetResponseBodyLimit(maxAnswer).
		SetRetryCount(c.attempts - 1).
		SetRetryWaitTime(time.Millisecond).
		SetRetryMaxWaitTime(maxPause).
		AddRetryCondition(c.retryCondition).
		SetRetryAfter(c.retryAfter)
	c.head = newResty(g, func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }).
		SetDoNotParseResponse(true)
	c.body = newResty(g, checkRedirect).SetDoNotParseResponse(true).SetPreRequestHook(attach)
}

func newResty(rt http.RoundTripper, redirect resty.RedirectPolicyFunc) *resty.Client {
	// NewWithClient, because resty.New would keep cookies.
	return resty.NewWithClient(&http.Client{Transport: rt}).
		SetRedirectPolicy(redirect).
		SetLogger(silent{}).
		SetDisableWarn(true)
}

// newTransport is Go's default with room for one connection per job, without
// compression of its own.
func newTransport(jobs int) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = proxyFor
	t.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%w: %s", errProxy, answer.Status)
		}
		return nil
	}
	t.MaxIdleConnsPerHost = jobs + 2
	t.DisableCompression = true
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	return t
}

// guard is the one place that every request passes, redirected ones included.
// It adds the token, and adds it for the endpoint's origin only: since no request
// carries it before, no redirect or foreign address can take it along.
type guard struct {
	next     http.RoundTripper
	endpoint origin
	token    string
	offline  bool
	agent    string
	log      *slog.Logger
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if g.offline {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, ErrOffline
	}
	req = req.Clone(req.Context())
	if g.token != "" && req.Header.Get("Authorization") == "" && originOfURL(req.URL) == g.endpoint {
		req.Header.Set("Authorization", "Bearer "+g.token)
	}
	req.Header.Set("User-Agent", g.agent)
	if req.Context().Value(downloadKey{}) != nil {
		req.Header.Set("X-HF-Download-Counter", "1")
	}
	req.Header.Set("X-Amzn-Trace-Id", traceID())
	start := time.Now()
	resp, err := g.next.RoundTrip(req)
	attrs := []any{"method", req.Method, "url", redactURL(req.URL.String()), "took", time.Since(start).Round(time.Millisecond)}
	if r := req.Header.Get("Range"); r != "" {
		attrs = append(attrs, "range", r)
	}
	if err != nil {
		g.log.Debug("request failed", append(attrs, "error", redact(err.Error()))...)
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "proxyconnect" {
			err = fmt.Errorf("%w: %w", errProxy, err)
		}
		return nil, err
	}
	g.log.Debug("request", append(attrs, "status", resp.StatusCode, "request_id", resp.Header.Get("X-Request-Id"))...)
	return resp, nil
}

type downloadKey struct{}

// forDownload marks the requests of a download, which the Hub counts as one.
func forDownload(ctx context.Context) context.Context {
	return context.WithValue(ctx, downloadKey{}, true)
}

// checkRedirect is the rule for addresses that a server sends us to.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first, last := via[0], via[len(via)-1]
	switch {
	case len(via) > maxRedirects:
		return errRedirects
	case last.URL.Scheme == "https" && req.URL.Scheme != "https":
		return errDowngrade
	case req.Method != first.Method:
		return errMethod
	}
	if originOfURL(req.URL) != originOfURL(first.URL) {
		// Go would keep them for a subdomain and ignores the port.
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return nil
}

// origin is what credentials belong to.
type origin struct{ scheme, host, port string }

func originOf(raw string) origin {
	u, err := url.Parse(raw)
	if err != nil {
		return origin{}
	}
	return originOfURL(u)
}

func originOfURL(u *url.URL) origin {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return origin{u.Scheme, u.Hostname(), port}
}

func userAgent(program string) string {
	if program == "" {
		program = "hubtool"
	}
	ua := program + "; go/" + strings.TrimPrefix(runtime.Version(), "go")
	if o := os.Getenv("HF_HUB_USER_AGENT_ORIGIN"); o != "" {
		ua += "; origin/" + o
	}
	return ua
}

func traceID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// silent keeps resty from writing to stderr; failures are returned, and requests
// are logged by the guard.
type silent struct{}

func (silent) Errorf(string, ...any) {}
func (silent) Warnf(string, ...any)  {}
func (silent) Debugf(string, ...any) {}
