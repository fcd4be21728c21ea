package hub

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"slices"
)

const cardName = "README.md"

// joinCards lets the caller decide what becomes of a model card that the repository
// has, before anything is compared or sent. done removes what that takes.
func (p *pushing) joinCards(ctx context.Context) (done func(), err error) {
	done = func() {}
	i := slices.IndexFunc(p.uploads, func(u *upload) bool { return u.name == cardName })
	if i < 0 || p.opts.Card == nil || p.head == "" {
		return done, nil
	}
	u := p.uploads[i]
	ours, err := os.ReadFile(u.local)
	if err != nil {
		return done, err
	}
	theirs, err := p.c.card(ctx, p.repo.at(p.head))
	if err != nil || theirs == nil {
		return done, err
	}
	joined, err := p.opts.Card(ours, theirs)
	if err != nil || bytes.Equal(joined, ours) {
		return done, err
	}
	f, err := os.CreateTemp("", "hubtool-card-*.md")
	if err != nil {
		return done, err
	}
	done = func() { os.Remove(f.Name()) }
	_, err = f.Write(joined)
	info, statErr := f.Stat()
	f.Close()
	if err == nil {
		err = statErr
	}
	if err == nil {
		u.local, u.size, u.mtime = f.Name(), info.Size(), info.ModTime()
	}
	return done, err
}

// card is the repository's model card; nil if it has none.
func (c *Client) card(ctx context.Context, r Repo) ([]byte, error) {
	address := c.resolveURL(r, cardName)
	resp, err := c.api.R().SetContext(ctx).Execute(http.MethodGet, address)
	switch {
	case err != nil:
		return nil, requestError(http.MethodGet, address, err)
	case resp.StatusCode() == http.StatusNotFound:
		return nil, nil
	case !resp.IsSuccess():
		return nil, responseError(resp.RawResponse.Request, resp.StatusCode(), resp.Header(), resp.Body())
	}
	return resp.Body(), nil
}
