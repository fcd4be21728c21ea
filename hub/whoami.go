package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// User is the account that a token belongs to.
type User struct {
	Name      string
	FullName  string
	Type      string // user or org
	Orgs      []string
	TokenName string // as the user named it
	TokenRole string // read, write or fineGrained
}

// WhoAmI asks whose token the client has. The Hub limits this request strictly:
// ask once. Without a token, or with a bad one, the error is ErrAuth.
func (c *Client) WhoAmI(ctx context.Context) (*User, error) {
	if c.token == "" && !c.offline {
		return nil, fmt.Errorf("asking who is logged in: %w: there is no token; log in or set HF_TOKEN", ErrAuth)
	}
	var answer struct {
		Type     string `json:"type"`
		Name     string `json:"name"`
		FullName string `json:"fullname"`
		Orgs     []struct {
			Name string `json:"name"`
		} `json:"orgs"`
		Auth struct {
			AccessToken struct {
				DisplayName string `json:"displayName"`
				Role        string `json:"role"`
			} `json:"accessToken"`
		} `json:"auth"`
	}
	if _, err := c.call(ctx, http.MethodGet, c.endpoint+"/api/whoami-v2", nil, &answer); err != nil {
		if errors.Is(err, ErrAuth) {
			return nil, fmt.Errorf("asking who is logged in: %w; the token came from %s", err, c.tokenSource)
		}
		return nil, fmt.Errorf("asking who is logged in: %w", err)
	}
	u := &User{Name: answer.Name, FullName: answer.FullName, Type: answer.Type,
		TokenName: answer.Auth.AccessToken.DisplayName, TokenRole: answer.Auth.AccessToken.Role}
	for _, o := range answer.Orgs {
		u.Orgs = append(u.Orgs, o.Name)
	}
	return u, nil
}

// CreateOptions are the choices of CreateRepo.
type CreateOptions struct {
	Private bool
	ExistOK bool // a repository that exists already is a success
}

// CreateRepo creates a repository and returns it under its full name: the Hub puts
// a bare name into the user's own name space.
func (c *Client) CreateRepo(ctx context.Context, r Repo, opts CreateOptions) (Repo, error) {
	if err := r.validate(); err != nil {
		return r, fmt.Errorf("creating %q: %w", r, err)
	}
	visibility := "public"
	if opts.Private {
		visibility = "private"
	}
	q := struct {
		Name         string  `json:"name"`
		Organization *string `json:"organization"`
		Type         string  `json:"type"`
		Visibility   string  `json:"visibility"`
		Private      bool    `json:"private"` // what older servers read
	}{r.ID, nil, string(r.kind()), visibility, opts.Private}
	if owner, name, ok := strings.Cut(r.ID, "/"); ok {
		q.Name, q.Organization = name, &owner
	}
	var answer struct {
		URL string `json:"url"`
	}
	for attempt := 0; ; attempt++ {
		_, err := c.call(ctx, http.MethodPost, c.endpoint+"/api/repos/create", q, &answer)
		var e *Error
		switch {
		case err == nil:
			return c.named(r, answer.URL), nil
		case errors.As(err, &e) && e.Status == http.StatusConflict && strings.Contains(e.Message, "conflicting operation") && attempt < c.attempts:
			if err := sleep(ctx, c.pause(nil, 0, attempt)); err != nil {
				return r, err
			}
			continue
		case !opts.ExistOK || e == nil:
		case e.Status == http.StatusConflict:
			_ = json.Unmarshal(e.body, &answer) // without an address the given name stands
			return c.named(r, answer.URL), nil
		case e.Status == http.StatusUnauthorized || e.Status == http.StatusPaymentRequired || e.Status == http.StatusForbidden:
			// A token may write to a repository without the right to create one.
			if _, probe := c.call(ctx, http.MethodGet, c.apiURL(r), nil, &struct{}{}); probe == nil {
				return r, nil
			}
		}
		return r, fmt.Errorf("creating %q: %w", r, err)
	}
}

// named gives r the id in the address of its page.
func (c *Client) named(r Repo, page string) Repo {
	u, err := url.Parse(page)
	base, err2 := url.Parse(c.endpoint)
	if err != nil || err2 != nil || page == "" {
		return r
	}
	id := strings.Trim(strings.TrimPrefix(u.Path, base.Path), "/")
	id = strings.TrimPrefix(id, r.kind().prefix())
	if checkID(id) == nil {
		r.ID = id
	}
	return r
}
