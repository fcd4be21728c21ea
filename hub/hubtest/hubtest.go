// Package hubtest is a Hugging Face Hub for tests: a [hubserve.Server] in memory
// that can be made to fail in the ways that networks, proxies and Hubs do, and
// that remembers what it was asked. It needs only the standard library.
//
//	h := hubtest.New(hubtest.WithToken("secret"))
//	h.Commit("model", "acme/vit", "main", "first", map[string][]byte{"config.json": data})
//	h.Inject(hubtest.Fault{Path: "/resolve/", Times: 1, Do: hubtest.Cut(1000)})
//	srv := httptest.NewServer(h)
package hubtest

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"

	"github.com/hubtool/hubtool/hub/hubserve"
)

// Hub is a fake Hub. It is an http.Handler, and safe for concurrent use.
type Hub struct {
	*hubserve.Server

	mu       sync.Mutex
	faults   []*Fault
	requests []Request
}

// Request is what the Hub remembers of one request.
type Request struct {
	Method string
	Path   string // escaped, as it came
	Query  string
	Host   string
	Header http.Header
}

// Options of the Hub under test.
var (
	WithToken        = hubserve.WithToken
	WithUser         = hubserve.WithUser
	WithReadOnly     = hubserve.WithReadOnly
	WithRegularLimit = hubserve.WithRegularLimit
	WithPartSize     = hubserve.WithPartSize
	WithPageSize     = hubserve.WithPageSize
	WithBlobHost     = hubserve.WithBlobHost
	WithPrefix       = hubserve.WithPrefix
)

// New returns an empty Hub in memory.
func New(opts ...hubserve.Option) *Hub {
	s, err := hubserve.New("", opts...)
	if err != nil {
		panic(err) // only a directory could fail
	}
	return &Hub{Server: s}
}

// T is the part of testing.TB that Start needs.
type T interface {
	Helper()
	Cleanup(func())
}

// Start runs a Hub whose LFS content is on a second host, as on the real one, for
// the time of a test. url is the Hub's address, cdn the second host's; both are
// answered, recorded and disturbed by the one Hub.
func Start(t T, opts ...hubserve.Option) (h *Hub, url, cdn string) {
	t.Helper()
	second := httptest.NewUnstartedServer(nil)
	cdn = "http://" + second.Listener.Addr().String()
	h = New(append([]hubserve.Option{WithBlobHost(cdn)}, opts...)...)
	second.Config.Handler = h
	second.Start()
	first := httptest.NewServer(h)
	t.Cleanup(first.Close)
	t.Cleanup(second.Close)
	return h, first.URL, cdn
}

// ServeHTTP records the request and answers it, through the first fault that
// applies.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.requests = append(h.requests, Request{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Host, r.Header.Clone()})
	var do func(http.ResponseWriter, *http.Request, http.Handler)
	for _, f := range h.faults {
		if f.applies(r) {
			do = f.Do
			break
		}
	}
	h.mu.Unlock()
	if do == nil {
		h.Server.ServeHTTP(w, r)
		return
	}
	do(w, r, h.Server)
}

// Requests returns what has been asked since the start or the last Forget, in
// order of arrival.
func (h *Hub) Requests() []Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

// Count is how many requests had the method ("" for any) and the text in their
// path.
func (h *Hub) Count(method, path string) int {
	n := 0
	for _, r := range h.Requests() {
		if (method == "" || r.Method == method) && strings.Contains(r.Path, path) {
			n++
		}
	}
	return n
}

// Forget drops the recorded requests and the faults.
func (h *Hub) Forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests, h.faults = nil, nil
}
