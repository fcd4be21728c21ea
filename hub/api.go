package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-resty/resty/v2"
)

// call makes one API request, with retries, and decodes a JSON answer into out
// unless that is nil. body is sent as JSON unless it is nil.
func (c *Client) call(ctx context.Context, method, address string, body, out any) (http.Header, error) {
	r := c.api.R().SetContext(ctx)
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encoding a request: %w", err)
		}
		r.SetBody(text).SetHeader("Content-Type", "application/json")
	}
	return c.send(r, method, address, out)
}

// send executes a prepared request of the api client.
func (c *Client) send(r *resty.Request, method, address string, out any) (http.Header, error) {
	resp, err := r.Execute(method, address)
	if err != nil {
		return nil, requestError(method, address, err)
	}
	raw := resp.RawResponse
	c.notices(resp.Header())
	if !resp.IsSuccess() {
		return resp.Header(), responseError(raw.Request, resp.StatusCode(), resp.Header(), resp.Body())
	}
	if out == nil {
		return resp.Header(), nil
	}
	if err := json.Unmarshal(resp.Body(), out); err != nil {
		e := responseError(raw.Request, resp.StatusCode(), resp.Header(), nil)
		e.kind, e.cause = ErrNetwork, err
		e.Message = fmt.Sprintf("unexpected response of type %q instead of JSON: is this a Hub, or a proxy's page?", resp.Header().Get("Content-Type"))
		return resp.Header(), e
	}
	return resp.Header(), nil
}

// notices passes on what the Hub wants users to read, once per topic.
func (c *Client) notices(h http.Header) {
	for _, w := range h.Values("X-HF-Warning") {
		topic, text, ok := strings.Cut(w, ";")
		if !ok {
			text = topic
		}
		if _, seen := c.warned.LoadOrStore(topic, true); !seen {
			c.log.Warn(strings.TrimSpace(text))
		}
	}
}

// failure reads the beginning of an unsuccessful answer of a streaming client and
// closes it.
func failure(resp *http.Response) error {
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	return responseError(resp.Request, resp.StatusCode, resp.Header, text)
}

// stream makes one request of a streaming client. The caller closes the body; any
// status is a success here.
func stream(ctx context.Context, client *resty.Client, method, address string, h map[string]string, body io.Reader) (*http.Response, error) {
	r := client.R().SetContext(ctx).SetHeaders(h)
	if body != nil {
		r.SetBody(body)
	}
	resp, err := r.Execute(method, address)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, ctx.Err()) {
			err = cause // says "no data for 10s" instead of "context canceled"
		}
		return nil, requestError(method, address, err)
	}
	return resp.RawResponse, nil
}

// maxPages bounds a listing: the Hub puts 1000 entries on a page.
const maxPages = 2000

// pages follows a listing from address on and gives each page to yield, which says
// whether to go on.
func pages[T any](ctx context.Context, c *Client, address string, yield func([]T) bool) error {
	seen := map[string]bool{}
	for n := 0; address != ""; n++ {
		switch {
		case seen[address]:
			return fmt.Errorf("%w: the listing at %s repeats itself at page %d", ErrNetwork, redactURL(address), n+1)
		case n == maxPages:
			return fmt.Errorf("%w: the listing at %s has more than %d pages", ErrNetwork, redactURL(address), maxPages)
		}
		seen[address] = true
		var page []T
		h, err := c.call(ctx, http.MethodGet, address, nil, &page)
		if err != nil {
			return err
		}
		next := nextLink(h)
		if !yield(page) || next == "" {
			return nil
		}
		if address, err = c.localise(address, next); err != nil {
			return err
		}
	}
	return nil
}

// nextLink is the address in a header like <…>; rel="next".
func nextLink(h http.Header) string {
	for _, line := range h.Values("Link") {
		for _, link := range strings.Split(line, ",") {
			target, params, ok := strings.Cut(link, ";")
			target = strings.TrimSpace(target)
			if ok && strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") &&
				strings.HasPrefix(target, "<") && strings.HasSuffix(target, ">") {
				return target[1 : len(target)-1]
			}
		}
	}
	return ""
}

// localise makes an address that the server names one that may be asked: relative
// ones are resolved, and those of the public Hub, which mirrors pass on unchanged,
// are moved to the endpoint. Any other host is refused.
func (c *Client) localise(from, to string) (string, error) {
	to = c.rewrite(to)
	base, err1 := url.Parse(from)
	ref, err2 := url.Parse(to)
	if err1 != nil || err2 != nil {
		return "", fmt.Errorf("%w: the listing names the malformed next page %q", ErrNetwork, redact(to))
	}
	next := base.ResolveReference(ref)
	if originOfURL(next) != originOf(c.endpoint) {
		return "", fmt.Errorf("%w: the listing continues at another host, %s; set the endpoint to that host if it is the right one",
			ErrNetwork, redactURL(next.String()))
	}
	return next.String(), nil
}

// rewrite moves an address of the public Hub to the endpoint.
func (c *Client) rewrite(address string) string {
	if rest, ok := strings.CutPrefix(address, DefaultEndpoint+"/"); ok {
		return c.endpoint + "/" + rest
	}
	return address
}

// jsonLine is one line of an NDJSON body.
func jsonLine(w *bytes.Buffer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
