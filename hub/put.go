package hub

import (
	"context"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-resty/resty/v2"
)

// put sends n bytes of a file from an offset, with retries, and returns the
// answer's headers.
func (c *Client) put(ctx context.Context, u *upload, href string, h map[string]string, from, n int64, tracker *uploadProgress) (http.Header, error) {
	if err := c.acquire(ctx); err != nil {
		return nil, err
	}
	defer c.release()
	for attempt := 0; ; attempt++ {
		answer, err := c.putOnce(ctx, u, c.rewrite(href), h, from, n, tracker)
		if err == nil {
			return answer, nil
		}
		if ctx.Err() != nil || !retryable(err) || attempt+1 >= c.maxAttempts(ctx) {
			return nil, err
		}
		c.report(Event{File: u.name, State: Retrying, Total: u.size, Err: err})
		if err := sleep(ctx, c.retryPause(err, attempt)); err != nil {
			return nil, err
		}
	}
}

// uploadPatience is how long a server may take nothing, or work on what it has.
const uploadPatience = 5 * time.Minute

func (c *Client) putOnce(ctx context.Context, u *upload, href string, h map[string]string, from, n int64, tracker *uploadProgress) (http.Header, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(uploadPatience, func() { cancel(errIdle) })
	defer timer.Stop()
	body, err := openSection(u.local, from, n, func(k int) {
		timer.Reset(uploadPatience)
		tracker.add(k)
	})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	resp, err := stream(context.WithValue(ctx, bodyKey{}, body), c.body, http.MethodPut, href, h, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, c.failed(resp)
	}
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	return resp.Header, resp.Body.Close()
}

// section is a part of a file as a request body of known length.
type section struct {
	*io.SectionReader
	file *os.File
	read func(int)
	once sync.Once
}

func openSection(path string, from, n int64, read func(int)) (*section, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &section{SectionReader: io.NewSectionReader(f, from, n), file: f, read: read}, nil
}

func (s *section) Read(b []byte) (int, error) {
	n, err := s.SectionReader.Read(b)
	s.read(n)
	return n, err
}

func (s *section) Close() (err error) {
	s.once.Do(func() { err = s.file.Close() })
	return err
}

type bodyKey struct{}

// attach gives a request the section that its context carries. Through SetBody,
// resty would read all of it into memory, and leave its length unsaid, which
// stores of objects do not take.
func attach(_ *resty.Client, r *http.Request) error {
	s, ok := r.Context().Value(bodyKey{}).(*section)
	if !ok {
		return nil
	}
	_, from, n := s.Outer()
	r.Body, r.ContentLength = s, n
	r.GetBody = func() (io.ReadCloser, error) { return openSection(s.file.Name(), from, n, s.read) }
	return nil
}

// uploadProgress adds up what the parts of one file have sent.
type uploadProgress struct {
	c    *Client
	u    *upload
	sent atomic.Int64

	skipped atomic.Int64 // sent by an earlier run

	mu   sync.Mutex
	told time.Time
}

func (p *uploadProgress) add(n int) {
	sent := p.sent.Add(int64(n))
	p.mu.Lock()
	now := time.Now()
	due := now.Sub(p.told) >= 100*time.Millisecond
	if due {
		p.told = now
	}
	p.mu.Unlock()
	if due {
		p.c.report(Event{File: p.u.name, State: Running, Done: min(sent+p.skipped.Load(), p.u.size), Total: p.u.size})
	}
}
