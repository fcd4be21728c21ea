package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
)

const lfsType = "application/vnd.git-lfs+json"

type lfsObject struct {
	OID     string `json:"oid"`
	Size    int64  `json:"size"`
	Actions *struct {
		Upload lfsAction  `json:"upload"`
		Verify *lfsAction `json:"verify"`
	} `json:"actions"`
	Error *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

type lfsAction struct {
	Href   string                     `json:"href"`
	Header map[string]json.RawMessage `json:"header"`
}

// header gives a value of Header, which servers write as a string or a number.
func (a lfsAction) header(name string) string {
	var s string
	if json.Unmarshal(a.Header[name], &s) == nil {
		return s
	}
	return string(a.Header[name])
}

// sendLFS brings the content of the LFS files to the server's store. What is there
// already, from this or another push, is not sent.
func (p *pushing) sendLFS(ctx context.Context) error {
	var todo []*upload
	seen := map[string]bool{}
	for _, u := range p.uploads {
		if u.lfs && !seen[u.sha256] {
			seen[u.sha256] = true
			todo = append(todo, u)
		}
	}
	var sent atomic.Int64
	for batch := range slices.Chunk(todo, preuploadBatch) {
		objects, err := p.lfsBatch(ctx, batch)
		if err != nil {
			return err
		}
		err = p.c.each(ctx, len(batch), func(ctx context.Context, i int) error {
			n, err := p.sendObject(ctx, batch[i], objects[batch[i].sha256])
			sent.Add(n)
			if err != nil {
				return fmt.Errorf("uploading %q: %w", batch[i].name, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	p.result.Sent += sent.Load()
	return nil
}

// lfsBatch asks where to put the content of files.
func (p *pushing) lfsBatch(ctx context.Context, batch []*upload) (map[string]lfsObject, error) {
	type object struct {
		OID  string `json:"oid"`
		Size int64  `json:"size"`
	}
	type ref struct {
		Name string `json:"name"`
	}
	q := struct {
		Operation string   `json:"operation"`
		Transfers []string `json:"transfers"`
		Objects   []object `json:"objects"`
		HashAlgo  string   `json:"hash_algo"`
		Ref       *ref     `json:"ref,omitempty"` // with it, the right to write to the branch is checked
	}{"upload", []string{"basic", "multipart"}, nil, "sha256", nil}
	if !p.opts.CreatePR {
		q.Ref = &ref{p.repo.Revision}
	}
	for _, u := range batch {
		q.Objects = append(q.Objects, object{u.sha256, u.size})
	}
	text, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Objects []lfsObject `json:"objects"`
	}
	address := p.c.endpoint + "/" + p.repo.kind().prefix() + p.repo.ID + ".git/info/lfs/objects/batch"
	r := p.c.api.R().SetContext(ctx).SetBody(text).SetHeader("Content-Type", lfsType).SetHeader("Accept", lfsType)
	if _, err := p.c.send(r, http.MethodPost, address, &answer); err != nil {
		return nil, fmt.Errorf("asking where to upload: %w", err)
	}
	objects := map[string]lfsObject{}
	for _, o := range answer.Objects {
		objects[o.OID] = o
	}
	var problems []error
	for _, u := range batch {
		o, ok := objects[u.sha256]
		switch {
		case !ok:
			problems = append(problems, fmt.Errorf("%w: the server does not answer for %q", ErrNetwork, u.name))
		case o.Error != nil:
			problems = append(problems, fmt.Errorf("the server refuses %q: %s (%d)", u.name, o.Error.Message, o.Error.Code))
		case o.Actions != nil && o.Actions.Upload.Href == "":
			problems = append(problems, fmt.Errorf("%w: the server names no address for %q", ErrNetwork, u.name))
		}
	}
	return objects, errors.Join(problems...)
}

// sendObject uploads one file's content and has the server verify it. An address
// that has expired is asked for again; an upload in parts that an earlier run began
// goes on where it was.
func (p *pushing) sendObject(ctx context.Context, u *upload, o lfsObject) (sent int64, err error) {
	if o.Actions == nil {
		p.c.report(Event{File: u.name, State: Skipped, Done: u.size, Total: u.size})
		return 0, nil
	}
	action, resumed := o.Actions.Upload, false
	var rec *uploadRecord
	if _, parts := action.Header["chunk_size"]; parts {
		rec = p.c.openRecord(p.repo, u)
		action, resumed = rec.continues(action)
	}
	defer func() { rec.close(err == nil) }()
	for renewals := 0; ; renewals++ {
		n, err := p.c.putObject(ctx, u, action, rec)
		sent += n
		if err == nil {
			break
		}
		// What became of an older upload the store says in ways of its own.
		if over := gone(err) || resumed && expired(err); !over || renewals == 2 {
			return sent, err
		}
		objects, err := p.lfsBatch(ctx, []*upload{u})
		if err != nil {
			return sent, err
		}
		if o = objects[u.sha256]; o.Actions == nil {
			break
		}
		action, resumed = o.Actions.Upload, false
		rec.begin(action)
	}
	if o.Actions != nil && o.Actions.Verify != nil && o.Actions.Verify.Href != "" {
		v := *o.Actions.Verify
		r := p.c.api.R().SetContext(ctx).SetHeaders(v.plainHeaders()).SetHeader("Content-Type", lfsType).
			SetBody([]byte(fmt.Sprintf(`{"oid":%q,"size":%d}`, u.sha256, u.size)))
		if _, err := p.c.send(r, http.MethodPost, p.c.rewrite(v.Href), nil); err != nil {
			return sent, fmt.Errorf("%w: the server did not receive what was sent: %v", ErrDamaged, err)
		}
	}
	p.c.report(Event{File: u.name, State: Done, Done: u.size, Total: u.size})
	return sent, nil
}

// gone tells that an address, or the upload that it belongs to, has ended.
func gone(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == http.StatusForbidden || e.Status == http.StatusNotFound || e.Status == http.StatusGone)
}

// plainHeaders are the headers to send along: all but those that describe parts.
func (a lfsAction) plainHeaders() map[string]string {
	h := map[string]string{}
	for name := range a.Header {
		if _, err := strconv.Atoi(name); err != nil && name != "chunk_size" {
			h[name] = a.header(name)
		}
	}
	return h
}

func (c *Client) putObject(ctx context.Context, u *upload, a lfsAction, rec *uploadRecord) (int64, error) {
	tracker := &uploadProgress{c: c, u: u}
	if _, parts := a.Header["chunk_size"]; parts {
		return c.putParts(ctx, u, a, rec, tracker)
	}
	_, err := c.put(ctx, u, a.Href, a.plainHeaders(), 0, u.size, tracker)
	return tracker.sent.Load(), err
}

// partsAtOnce bounds the parts of one file that are under way, because a kill loses
// them. Parts below what object stores take are those of a server nearby, to which two
// connections are as fast as eight.
func partsAtOnce(size int64) int {
	if size < 5<<20 {
		return 2
	}
	return 8
}

// putParts uploads the parts that have not arrived, several at a time, and then has
// all of them joined.
func (c *Client) putParts(ctx context.Context, u *upload, a lfsAction, rec *uploadRecord, tracker *uploadProgress) (int64, error) {
	type part struct {
		number int
		href   string
		ETag   string
	}
	var parts []part
	for name := range a.Header {
		if n, err := strconv.Atoi(name); err == nil {
			parts = append(parts, part{number: n, href: a.header(name)})
		}
	}
	slices.SortFunc(parts, func(x, y part) int { return cmp.Compare(x.number, y.number) })
	size, err := strconv.ParseInt(a.header("chunk_size"), 10, 64)
	if err != nil || size <= 0 || int64(len(parts)) != (u.size+size-1)/size {
		return 0, fmt.Errorf("%w: the server wants %d parts of %q bytes for a file of %d", ErrNetwork, len(parts), a.header("chunk_size"), u.size)
	}
	err = each(ctx, min(c.jobs, partsAtOnce(size)), len(parts), func(ctx context.Context, i int) error {
		from := int64(i) * size
		if parts[i].ETag = rec.has(parts[i].number); parts[i].ETag != "" {
			tracker.skipped.Add(min(size, u.size-from))
			return nil
		}
		h, err := c.put(ctx, u, parts[i].href, nil, from, min(size, u.size-from), tracker)
		if err != nil {
			return err
		}
		if parts[i].ETag = h.Get("ETag"); parts[i].ETag == "" {
			return fmt.Errorf("%w: the server gave no ETag for part %d", ErrNetwork, parts[i].number)
		}
		rec.arrived(parts[i].number, parts[i].ETag)
		return nil
	})
	if err != nil {
		return tracker.sent.Load(), err
	}
	type done struct {
		Number int    `json:"partNumber"`
		ETag   string `json:"etag"`
	}
	q := struct {
		OID   string `json:"oid"`
		Parts []done `json:"parts"`
	}{OID: u.sha256}
	for _, pt := range parts {
		q.Parts = append(q.Parts, done{pt.number, pt.ETag})
	}
	text, err := json.Marshal(q)
	if err != nil {
		return tracker.sent.Load(), err
	}
	r := c.api.R().SetContext(ctx).SetBody(text).SetHeader("Content-Type", lfsType).SetHeader("Accept", lfsType)
	_, err = c.send(r, http.MethodPost, c.rewrite(a.Href), nil)
	return tracker.sent.Load(), err
}
