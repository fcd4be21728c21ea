package hub

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-resty/resty/v2"
)

// Client talks to one Hub and fills one cache. It is safe for concurrent use.
type Client struct {
	endpoint    string // no trailing slash; may have a path
	cacheDir    string
	token       string
	tokenSource string // variable or file, for messages
	offline     bool
	jobs        int
	noSymlinks  bool
	log         *slog.Logger

	attempts     int           // tries of one request
	backoff      time.Duration // wait before the second try; doubles
	etagTimeout  time.Duration
	idleTimeout  time.Duration
	agent        string
	parallelFrom int64 // files at least this large are fetched in parallel ranges
	partSize     int64

	api, head, body *resty.Client // see transport.go
	slots           chan struct{} // one per open transfer
	buffers         sync.Pool     // of parts' data
	brought         atomic.Int64  // bytes of parts

	progressMu sync.Mutex
	progress   Progress
	warned     sync.Map // topics of X-HF-Warning already logged
}

// An Option changes a default of New, or refuses.
type Option func(*options) error

type options struct {
	Client
	transport http.RoundTripper
	hasToken  bool
}

// WithEndpoint sets the Hub's address; the default is $HF_ENDPOINT or the public
// Hub. It may have a path.
func WithEndpoint(endpoint string) Option {
	return func(o *options) error {
		o.endpoint = endpoint
		return nil
	}
}

// WithToken sets the access token; "" sends none. The default is found as Python
// finds it: $HF_TOKEN, then the token file.
func WithToken(token string) Option {
	return func(o *options) error {
		o.token, o.tokenSource, o.hasToken = cleanToken(token), "the caller", true
		return nil
	}
}

// WithCacheDir sets the cache; the default is $HF_HUB_CACHE, or hub under [Home].
func WithCacheDir(dir string) Option {
	return func(o *options) error {
		o.cacheDir = dir
		return nil
	}
}

// WithOffline makes every request fail with ErrOffline before it is sent, so that
// only the cache is used. The default is $HF_HUB_OFFLINE.
func WithOffline(offline bool) Option {
	return func(o *options) error {
		o.offline = offline
		return nil
	}
}

// WithJobs bounds the transfers that are open at a time; the default is 8.
func WithJobs(n int) Option {
	return func(o *options) error {
		if n < 1 {
			return fmt.Errorf("%w: jobs must be at least 1, not %d", ErrInvalid, n)
		}
		o.jobs = n
		return nil
	}
}

// WithProgress sets who is told how transfers advance; the default is nobody.
func WithProgress(p Progress) Option {
	return func(o *options) error {
		o.progress = p
		return nil
	}
}

// WithLogger sets where warnings, notices and, at debug level, requests go; the
// default discards them.
func WithLogger(l *slog.Logger) Option {
	return func(o *options) error {
		if l == nil {
			return fmt.Errorf("%w: the logger is nil", ErrInvalid)
		}
		o.log = l
		return nil
	}
}

// WithHTTPClient takes the transport of h, for special proxies, certificates or
// tests. Redirects and time-outs stay the client's own.
func WithHTTPClient(h *http.Client) Option {
	return func(o *options) error {
		if h == nil || h.Transport == nil {
			return fmt.Errorf("%w: the HTTP client has no transport of its own", ErrInvalid)
		}
		o.transport = h.Transport
		return nil
	}
}

// WithRetry sets how often one request is tried and the wait before the second
// try, which doubles up to eightfold; the default is 6 times and one second. Waits
// that the server asks for are kept whatever the base.
func WithRetry(attempts int, base time.Duration) Option {
	return func(o *options) error {
		if attempts < 1 || base <= 0 {
			return fmt.Errorf("%w: a request needs at least one try and a positive wait", ErrInvalid)
		}
		o.attempts, o.backoff = attempts, base
		return nil
	}
}

// WithParallelRanges sets from which size on one file is fetched over several
// connections, and the size of the ranges; the default is 64 MiB and 8 MiB.
func WithParallelRanges(from, part int64) Option {
	return func(o *options) error {
		if part < 1 || from < 1 {
			return fmt.Errorf("%w: sizes of parallel ranges must be positive", ErrInvalid)
		}
		o.parallelFrom, o.partSize = from, part
		return nil
	}
}

// WithUserAgent puts a program's name and version before the package's own.
func WithUserAgent(agent string) Option {
	return func(o *options) error {
		o.agent = agent
		return nil
	}
}

// New returns a client. Defaults come from the environment, as listed in the
// package documentation; options override them.
func New(opts ...Option) (*Client, error) {
	o := &options{Client: Client{
		endpoint: envOr("HF_ENDPOINT"), cacheDir: defaultCacheDir(), jobs: 8,
		offline:    envTrue("HF_HUB_OFFLINE") || envTrue("TRANSFORMERS_OFFLINE"),
		noSymlinks: envTrue("HF_HUB_DISABLE_SYMLINKS"),
		log:        slog.New(slog.DiscardHandler),
		attempts:   6, backoff: time.Second,
		parallelFrom: 64 << 20, partSize: 8 << 20,
	}}
	var err1, err2 error
	o.etagTimeout, err1 = envSeconds("HF_HUB_ETAG_TIMEOUT", 10*time.Second)
	o.idleTimeout, err2 = envSeconds("HF_HUB_DOWNLOAD_TIMEOUT", 10*time.Second)
	errs := []error{err1, err2}
	for _, opt := range opts {
		errs = append(errs, opt(o))
	}
	if !o.hasToken {
		var err error
		o.token, o.tokenSource, err = findToken()
		errs = append(errs, err)
	}
	if o.endpoint == "" {
		o.endpoint = DefaultEndpoint
	}
	o.endpoint = strings.TrimRight(o.endpoint, "/")
	if u, err := url.Parse(o.endpoint); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.RawQuery != "" {
		errs = append(errs, fmt.Errorf("%w: endpoint %q is not an http or https address", ErrInvalid, redactURL(o.endpoint)))
	}
	if strings.ContainsFunc(o.token, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		errs = append(errs, fmt.Errorf("%w: the token from %s has characters that no token has", ErrInvalid, o.tokenSource))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("setting up the Hub client: %w", err)
	}
	c := &o.Client
	c.slots = make(chan struct{}, c.jobs)
	c.connect(o.transport)
	return c, nil
}

// Endpoint is the Hub's address, without a trailing slash.
func (c *Client) Endpoint() string { return c.endpoint }

// CacheDir is the cache that the client fills.
func (c *Client) CacheDir() string { return c.cacheDir }

// TokenSource says where the token came from; it is empty if there is no token.
func (c *Client) TokenSource() string {
	if c.token == "" {
		return ""
	}
	return c.tokenSource
}
