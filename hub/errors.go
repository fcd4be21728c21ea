package hub

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// What went wrong, for errors.Is. A command's exit code follows from these.
var (
	ErrInvalid  = errors.New("invalid argument")                       // a reference, path or option is malformed
	ErrNotFound = errors.New("repository not found")                   // or private, and the token may not see it
	ErrRevision = errors.New("revision not found")                     // the repository exists
	ErrEntry    = errors.New("file not found")                         // the revision exists
	ErrGated    = errors.New("access to the repository is gated")      // terms must be accepted on its page
	ErrAuth     = errors.New("not authorised")                         // no token, a bad one, or one without the permission
	ErrConflict = errors.New("conflict with the repository's state")   // exists already, or the branch has moved
	ErrOffline  = errors.New("offline, and not in the cache")          // no request was made
	ErrNetwork  = errors.New("network or server failed")               // after retries
	ErrDamaged  = errors.New("content is damaged or hostile")          // a hash, size or name that must not be trusted
	ErrSpace    = errors.New("not enough disk space")                  // refused before the transfer began
	ErrChanged  = errors.New("the file changed while it was read")     // what was read of it may be of two minds
	ErrNoRanges = errors.New("the server does not serve ranges")       // only whole files can be had
	errTooLarge = errors.New("request is larger than the Hub accepts") // 413: a commit is split
	errProxy    = errors.New("proxy refused the connection")           // never masked by a cached copy
)

// Error is a request that failed: the Hub's answer, or no answer at all when Status
// is 0. It unwraps to one of the sentinels above and to the cause.
type Error struct {
	Method, URL string // URL without its query, which may be signed
	Status      int    // HTTP status; 0 if there was no answer
	Code        string // the Hub's X-Error-Code, such as RepoNotFound
	Message     string // what the server says, for people
	RequestID   string // to quote to the Hub's support

	kind, cause error
	wait        time.Duration // that the server asked for; 0 if it did not
	body        []byte
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.kind != nil {
		b.WriteString(e.kind.Error() + ": ")
	}
	fmt.Fprintf(&b, "%s %s", e.Method, e.URL)
	if e.Status != 0 {
		fmt.Fprintf(&b, ": %d %s", e.Status, http.StatusText(e.Status))
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.RequestID != "" {
		b.WriteString(" (request id " + e.RequestID + ")")
	}
	return b.String()
}

// Unwrap gives the sentinel and the cause, where there are any.
func (e *Error) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.kind, e.cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// requestError describes a request that got no answer.
func requestError(method, rawURL string, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		// Its text repeats the address, with the query.
		method, err = strings.ToUpper(ue.Op), ue.Err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	e := &Error{Method: method, URL: redactURL(rawURL), kind: ErrNetwork, cause: err, Message: redact(err.Error())}
	if errors.Is(err, ErrOffline) {
		e.kind, e.Message = ErrOffline, ""
	}
	if invalid := (x509.CertificateInvalidError{}); errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		e.Message += "; is this machine's clock right?"
	}
	return e
}

const maxMessage = 2000

// isDiskError tells a failure of the local file system from one of the network.
func isDiskError(err error) bool {
	var pe *fs.PathError
	return errors.As(err, &pe)
}

// responseError describes an answer that is not a success. body is its beginning.
func responseError(req *http.Request, status int, h http.Header, body []byte) *Error {
	e := &Error{
		Method: req.Method, URL: redactURL(req.URL.String()), Status: status,
		Code: h.Get("X-Error-Code"), Message: redact(serverMessage(h, body)), body: body,
	}
	for _, name := range []string{"X-Request-Id", "X-Amzn-Trace-Id", "X-Amz-Cf-Id"} {
		if e.RequestID = h.Get(name); e.RequestID != "" {
			break
		}
	}
	e.kind = kindOf(e, req)
	if status == http.StatusProxyAuthRequired {
		e.cause = errProxy
	}
	return e
}

var kindByCode = map[string]error{
	"RepoNotFound":     ErrNotFound,
	"RevisionNotFound": ErrRevision,
	"EntryNotFound":    ErrEntry,
	"GatedRepo":        ErrGated,
}

var kindByStatus = map[int]error{
	http.StatusUnauthorized:               ErrAuth,
	http.StatusForbidden:                  ErrAuth,
	http.StatusNotFound:                   ErrNotFound,
	http.StatusProxyAuthRequired:          ErrNetwork,
	http.StatusRequestTimeout:             ErrNetwork,
	http.StatusConflict:                   ErrConflict,
	http.StatusPreconditionFailed:         ErrConflict,
	http.StatusRequestEntityTooLarge:      errTooLarge,
	http.StatusTooManyRequests:            ErrNetwork,
	http.StatusUnavailableForLegalReasons: ErrNetwork,
}

var repoPath = regexp.MustCompile(`/api/(models|datasets|spaces)/|/resolve/`)

func kindOf(e *Error, req *http.Request) error {
	if kind, ok := kindByCode[e.Code]; ok {
		return kind
	}
	// The Hub hides private repositories: reading one without the right to answers
	// 401 just as a repository that does not exist.
	if e.Status == http.StatusUnauthorized && !strings.Contains(e.Message, "Invalid credentials") &&
		(req.Method == http.MethodGet || req.Method == http.MethodHead) && repoPath.MatchString(req.URL.Path) {
		return ErrNotFound
	}
	if kind, ok := kindByStatus[e.Status]; ok {
		return kind
	}
	if e.Status >= 500 {
		return ErrNetwork
	}
	return nil
}

// serverMessage gathers what the Hub says for people: a header, or one of the
// shapes its JSON errors have, or a body that is neither HTML nor JSON.
func serverMessage(h http.Header, body []byte) string {
	var parts []string
	add := func(s string) {
		s = strings.TrimSpace(s)
		if len(s) > maxMessage {
			s = s[:maxMessage] + "…"
		}
		for _, p := range parts {
			if s == "" || strings.Contains(p, s) {
				return
			}
		}
		if s != "" {
			parts = append(parts, s)
		}
	}
	add(h.Get("X-Error-Message"))
	var answer struct {
		Error       any    `json:"error"`
		Description string `json:"error_description"`
		Message     string `json:"message"`
		Errors      []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	switch {
	case json.Unmarshal(body, &answer) == nil:
		switch v := answer.Error.(type) {
		case string:
			add(v)
		case []any:
			for _, s := range v {
				add(fmt.Sprint(s))
			}
		}
		add(answer.Description)
		add(answer.Message)
		for _, one := range answer.Errors {
			add(one.Message)
		}
	case !strings.Contains(h.Get("Content-Type"), "html") && !strings.HasPrefix(strings.TrimSpace(string(body)), "<"):
		add(string(body))
	}
	return strings.Join(parts, "; ")
}

var (
	secretToken = regexp.MustCompile(`\b(hf_|api_org_|oauth_)[A-Za-z0-9]{6,}`)
	bearer      = regexp.MustCompile(`(?i)(bearer|basic)\s+[^\s"',;]+`)
	queryPart   = regexp.MustCompile(`(https?://[^\s"'?]+)\?[^\s"']*`)
)

// redact takes tokens and signed queries out of a text that people will see.
func redact(s string) string {
	s = queryPart.ReplaceAllString(s, "$1?…")
	s = bearer.ReplaceAllString(s, "$1 …")
	return secretToken.ReplaceAllString(s, "$1…")
}

// redactURL drops the password and the query, either of which may be a credential.
func redactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(malformed address)"
	}
	if u.RawQuery != "" {
		u.RawQuery = "…"
	}
	return u.Redacted()
}
