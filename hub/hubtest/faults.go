package hubtest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"
)

// A Fault disturbs the requests it applies to.
type Fault struct {
	Method string // "" for any
	Path   string // text that the escaped path and query contain; "" for any
	Skip   int    // requests that pass before the first disturbed one
	Times  int    // disturbed requests; 0 for all

	// Do answers instead of the Hub, which it is given to ask.
	Do func(w http.ResponseWriter, r *http.Request, hub http.Handler)

	seen int
}

func (f *Fault) applies(r *http.Request) bool {
	if f.Method != "" && f.Method != r.Method || !strings.Contains(r.URL.EscapedPath()+"?"+r.URL.RawQuery, f.Path) {
		return false
	}
	f.seen++
	return f.seen > f.Skip && (f.Times == 0 || f.seen <= f.Skip+f.Times)
}

// Inject adds a fault. Where several apply, the first injected acts.
func (h *Hub) Inject(f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, &f)
}

type action = func(http.ResponseWriter, *http.Request, http.Handler)

// Status answers with a status and headers, given as name, value, name, value.
func Status(code int, headers ...string) action {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		setHeaders(w.Header(), headers)
		w.WriteHeader(code)
	}
}

// Text answers with a status, a content type and a body, as a proxy's page.
func Text(code int, contentType, body string) action {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

// Redirect answers with a redirect to what target makes of the request.
func Redirect(code int, target func(*http.Request) string) action {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Location", target(r))
		w.WriteHeader(code)
	}
}

// Cut sends n bytes of the right body and then breaks the connection.
func Cut(n int) action { return body(n, nil, true) }

// Corrupt changes one byte of the body.
func Corrupt(offset int) action {
	return body(-1, func(b []byte) []byte {
		if offset < len(b) {
			b[offset] ^= 0xff
		}
		return b
	}, false)
}

// Replace sends another body under the right headers except for its length.
func Replace(f func([]byte) []byte) action { return body(-1, f, false) }

// Headers changes headers of the right answer; an empty value removes one.
func Headers(headers ...string) action {
	return func(w http.ResponseWriter, r *http.Request, hub http.Handler) {
		answer := record(hub, r)
		setHeaders(answer.Header(), headers)
		send(w, r, answer, -1, false)
	}
}

// NoRanges answers as a server that ignores Range.
func NoRanges() action {
	return func(w http.ResponseWriter, r *http.Request, hub http.Handler) {
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		hub.ServeHTTP(w, r)
	}
}

// Range answers a request for a range as if another had been asked for.
func Range(header string) action {
	return func(w http.ResponseWriter, r *http.Request, hub http.Handler) {
		r = r.Clone(r.Context())
		r.Header.Set("Range", header)
		hub.ServeHTTP(w, r)
	}
}

// Stall sends n bytes of the body and then nothing for d.
func Stall(n int, d time.Duration) action {
	return func(w http.ResponseWriter, r *http.Request, hub http.Handler) {
		answer := record(hub, r)
		copyHeader(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes()[:min(n, answer.Body.Len())])
		w.(http.Flusher).Flush()
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	}
}

// Slow sends the body in pieces with a pause after each.
func Slow(piece int, pause time.Duration) action {
	return func(w http.ResponseWriter, r *http.Request, hub http.Handler) {
		answer := record(hub, r)
		copyHeader(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		for data := answer.Body.Bytes(); len(data) > 0 && r.Context().Err() == nil; {
			n := min(piece, len(data))
			w.Write(data[:n])
			w.(http.Flusher).Flush()
			data = data[n:]
			time.Sleep(pause)
		}
	}
}

// LoseAnswer does what was asked and breaks the connection instead of answering.
func LoseAnswer() action {
	return func(_ http.ResponseWriter, r *http.Request, hub http.Handler) {
		record(hub, r)
		panic(http.ErrAbortHandler)
	}
}

// Hang breaks the connection without doing anything.
func Hang() action {
	return func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }
}

func body(cut int, change func([]byte) []byte, abort bool) action {
	return func(w http.ResponseWriter, r *http.Request, hub http.Handler) {
		answer := record(hub, r)
		if change != nil {
			changed := change(append([]byte(nil), answer.Body.Bytes()...))
			answer.Body.Reset()
			answer.Body.Write(changed)
			answer.Header().Set("Content-Length", strconv.Itoa(len(changed)))
		}
		send(w, r, answer, cut, abort)
	}
}

// record asks the Hub and keeps the answer. HEAD is asked as it is.
func record(hub http.Handler, r *http.Request) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	hub.ServeHTTP(answer, r)
	return answer
}

// send passes an answer on, all of it or n bytes, and may break the connection.
func send(w http.ResponseWriter, r *http.Request, answer *httptest.ResponseRecorder, n int, abort bool) {
	copyHeader(w.Header(), answer.Header())
	if w.Header().Get("Content-Length") == "" && r.Method != http.MethodHead {
		w.Header().Set("Content-Length", fmt.Sprint(answer.Body.Len()))
	}
	w.WriteHeader(answer.Code)
	data := answer.Body.Bytes()
	if n >= 0 {
		data = data[:min(n, len(data))]
	}
	w.Write(data)
	if abort {
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func copyHeader(to, from http.Header) {
	for name, values := range from {
		to[name] = values
	}
}

func setHeaders(h http.Header, pairs []string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			h.Del(pairs[i])
			continue
		}
		h.Set(pairs[i], pairs[i+1])
	}
}
