package hubserve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Server is a Hub. It is safe for concurrent use; one process at a time may serve a
// directory.
type Server struct {
	st       storage
	token    string
	user     string
	readOnly bool
	regular  int64  // files larger than this are LFS
	partSize int64  // uploads larger than this go in parts of it; 0 for never, -1 as partsOf says
	pageSize int    // entries of a listing's page
	prefix   string // path that every address begins with; "" or /something
	blobHost string // LFS content is redirected there; "" serves it here
	log      *slog.Logger
	now      func() time.Time
	mu       sync.RWMutex // held for writing while a repository's record changes
	uploads  uploads
	release  func() error // gives the directory free; nil in memory
}

// An Option changes a default of New.
type Option func(*Server)

// WithToken requires the token for writing, and for reading private and gated
// repositories; by default everybody may do everything.
func WithToken(token string) Option { return func(s *Server) { s.token = token } }

// WithUser names the account that everything belongs to; the default is "user".
func WithUser(name string) Option { return func(s *Server) { s.user = name } }

// WithReadOnly refuses every change.
func WithReadOnly() Option { return func(s *Server) { s.readOnly = true } }

// WithRegularLimit sets the size in bytes above which files are in LFS; the default
// is 10 MB, as on the Hub.
func WithRegularLimit(n int64) Option { return func(s *Server) { s.regular = n } }

// WithPartSize sets the size in bytes of the parts that larger LFS uploads are
// made of, and 0 asks for one piece always. By default uploads above 16 MiB are made
// of at most 4000 parts of 256 KiB or more, so that little is sent twice after a cut.
func WithPartSize(n int64) Option { return func(s *Server) { s.partSize = n } }

// WithPageSize sets how many entries a page of a listing has; the default is 1000.
func WithPageSize(n int) Option { return func(s *Server) { s.pageSize = n } }

// WithBlobHost redirects downloads of LFS content to another address that serves
// the same Server, as the Hub does; by default content comes from here.
func WithBlobHost(url string) Option { return func(s *Server) { s.blobHost = url } }

// WithPrefix makes the Hub live below a path such as "/hf"; the default is none.
func WithPrefix(path string) Option {
	return func(s *Server) { s.prefix = strings.TrimRight(path, "/") }
}

// WithLogger sets where requests are logged, at debug level, and failures; the
// default discards them.
func WithLogger(l *slog.Logger) Option { return func(s *Server) { s.log = l } }

// New opens the Hub kept in dir, or an empty one in memory if dir is "". A directory
// that another process serves is refused. Content that no commit has, and has had for
// a day, is removed from it.
func New(dir string, opts ...Option) (*Server, error) {
	s := &Server{
		user: "user", regular: 10_000_000, partSize: -1, pageSize: 1000,
		log: slog.New(slog.DiscardHandler), now: func() time.Time { return time.Now().UTC() },
		st: newMemory(),
	}
	for _, opt := range opts {
		opt(s)
	}
	if dir != "" {
		d, err := openDisk(dir)
		if err == nil {
			s.st, s.release = d, d.lock.Close
			err = s.collect(d)
		}
		if err != nil {
			return nil, fmt.Errorf("opening the Hub in %q: %w", dir, errors.Join(err, s.Close()))
		}
	}
	return s, nil
}

// Close lets another process serve the directory. Requests must have ended.
func (s *Server) Close() error {
	if s.release == nil {
		return nil
	}
	return s.release()
}

// failure is an answer other than success.
type failure struct {
	status  int
	code    string // X-Error-Code
	message string
	commit  string // X-Repo-Commit
}

func (e *failure) Error() string { return e.message }

func fail(status int, code, format string, args ...any) error {
	return &failure{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// request is one request with its address taken apart.
type request struct {
	*http.Request
	s     *Server
	w     http.ResponseWriter
	kind  string // model, dataset or space; empty outside of repositories
	id    string
	args  []string // unescaped parts of the path after the id
	query url.Values
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Request-Id", requestID())
	var err error
	http.StripPrefix(s.prefix, http.HandlerFunc(func(w http.ResponseWriter, stripped *http.Request) {
		r = stripped
		err = s.route(w, r)
	})).ServeHTTP(w, r)
	s.log.Debug("request", "method", r.Method, "path", r.URL.Path, "error", err)
	if err == nil {
		return
	}
	var moved *movedError
	if errors.As(err, &moved) {
		// Same place under the new name; the method and body stay.
		w.Header().Set("Location", s.prefix+relocate(r, moved.to))
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	var f *failure
	if !errors.As(err, &f) {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		f = &failure{status: http.StatusInternalServerError, message: "internal error"}
	}
	if f.code != "" {
		w.Header().Set("X-Error-Code", f.code)
	}
	if f.commit != "" {
		w.Header().Set("X-Repo-Commit", f.commit)
	}
	w.Header().Set("X-Error-Message", strings.ReplaceAll(f.message, "\n", " "))
	writeJSON(w, f.status, map[string]string{"error": f.message})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error":"encoding failed"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	w.WriteHeader(status)
	w.Write(text)
}

func (r *request) answer(v any) error {
	writeJSON(r.w, http.StatusOK, v)
	return nil
}

const maxRequest = 16 << 20 // bytes of a JSON request; commits are streamed

// decode reads a JSON request.
func (r *request) decode(v any) error {
	text, err := io.ReadAll(http.MaxBytesReader(r.w, r.Body, maxRequest))
	if err != nil {
		return fail(http.StatusRequestEntityTooLarge, "", "request is too large")
	}
	if len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fail(http.StatusBadRequest, "", "malformed JSON: %v", err)
	}
	return nil
}

// base is the address that the client knows this server by.
func (r *request) base() string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + r.s.prefix
}

// repoURL is the address of the repository's page.
func (r *request) repoURL(kind, id string) string {
	if kind == "model" {
		return r.base() + "/" + id
	}
	return r.base() + "/" + kind + "s/" + id
}
