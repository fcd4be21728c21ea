package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// metadata is what the Hub says about one file's content.
type metadata struct {
	commit   string
	etag     string
	size     int64  // -1 if the server does not say
	location string // where the content is; may be signed
}

// stat asks for a file's metadata, following redirects by hand: those within the
// Hub lead to the file, one that leaves it is the answer.
func (c *Client) stat(ctx context.Context, r Repo, path string) (metadata, error) {
	address, method := c.resolveURL(r, path), http.MethodHead
	var m metadata
	for hop := 0; ; {
		resp, err := c.headOnce(ctx, method, address)
		if err != nil {
			return m, err
		}
		h := resp.Header
		switch {
		case method == http.MethodHead && (resp.StatusCode == http.StatusMethodNotAllowed || resp.StatusCode == http.StatusNotImplemented):
			method = http.MethodGet // one byte of the content carries the same headers
			continue
		case resp.StatusCode >= 400:
			e := responseError(resp.Request, resp.StatusCode, h, nil)
			m.commit = h.Get("X-Repo-Commit")
			e.wait = c.pause(h, resp.StatusCode, 0)
			return m, e
		}
		m.merge(resp)
		if resp.StatusCode < 300 {
			m.location = address
			return m, m.check(resp)
		}
		next, err := resp.Location()
		if err != nil {
			return m, responseError(resp.Request, resp.StatusCode, h, []byte("redirect without an address"))
		}
		m.location = next.String()
		switch from := resp.Request.URL; {
		case from.Scheme == "https" && next.Scheme != "https":
			return m, requestError(method, address, errDowngrade)
		case originOfURL(next) != originOfURL(from) && originOfURL(next) != originOf(c.endpoint):
			return m, m.check(resp)
		}
		if hop++; hop > maxRedirects {
			return m, requestError(method, address, errRedirects)
		}
		c.moved(resp.Request.URL, next)
		address = m.location
	}
}

// moved tells that a repository goes by a new name, once.
func (c *Client) moved(from, to *url.URL) {
	if a, b := repoPath.FindStringIndex(from.Path), repoPath.FindStringIndex(to.Path); a != nil && b != nil && from.Path[:a[0]] != to.Path[:b[0]] {
		if _, seen := c.warned.LoadOrStore("moved "+from.Path[:a[0]], true); !seen {
			c.log.Warn("the repository has moved; use its new name", "old", from.Path[1:a[0]], "new", to.Path[1:b[0]])
		}
	}
}

func (c *Client) headOnce(ctx context.Context, method, address string) (*http.Response, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.etagTimeout, errors.New("no answer within the time-out (HF_HUB_ETAG_TIMEOUT)"))
	defer cancel()
	h := map[string]string{"Accept-Encoding": "identity"}
	if method == http.MethodGet {
		h["Range"] = "bytes=0-0"
	}
	resp, err := stream(ctx, c.head, method, address, h, nil)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	c.notices(resp.Header)
	return resp, nil
}

// merge takes what one hop says. Linked headers describe the content behind a
// redirect; the plain ones would describe the redirect itself.
func (m *metadata) merge(resp *http.Response) {
	h := resp.Header
	if v := h.Get("X-Repo-Commit"); v != "" {
		m.commit = v
	}
	m.size = -1
	if resp.StatusCode < 300 {
		m.etag = normalETag(h.Get("ETag"))
		if resp.StatusCode == http.StatusPartialContent {
			m.size = rangeTotal(h)
		} else if h.Get("Content-Encoding") == "" {
			m.size = resp.ContentLength
		}
	} else if m.etag == "" {
		m.etag = normalETag(h.Get("ETag"))
	}
	if v := h.Get("X-Linked-Etag"); v != "" {
		m.etag = normalETag(v)
	}
	if n, err := strconv.ParseInt(h.Get("X-Linked-Size"), 10, 64); err == nil && n >= 0 {
		m.size = n
	}
}

// check refuses an answer that is not the Hub's, such as a login page that a
// network puts in between.
func (m *metadata) check(resp *http.Response) error {
	if !isCommit(m.commit) || m.etag == "" {
		e := responseError(resp.Request, resp.StatusCode, resp.Header, nil)
		e.kind = ErrNetwork
		e.Message = "not a Hub response (no X-Repo-Commit or ETag): is there a proxy or login page in between?"
		return e
	}
	return checkETag(m.etag)
}

// statPatiently is stat with retries, unless ctx asks for fewer.
func (c *Client) statPatiently(ctx context.Context, r Repo, path string) (metadata, error) {
	for attempt := 0; ; attempt++ {
		m, err := c.stat(ctx, r, path)
		if err == nil {
			return m, nil
		}
		if ctx.Err() != nil || !retryable(err) || attempt+1 >= c.maxAttempts(ctx) {
			return m, fmt.Errorf("asking for %q of %q: %w", path, r, err)
		}
		if err := sleep(ctx, c.retryPause(err, attempt)); err != nil {
			return m, err
		}
	}
}
