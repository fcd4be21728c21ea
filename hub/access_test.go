package hub_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/hub/hubserve"
	"github.com/hubtool/hubtool/hub/hubtest"
)

func TestWhoMayRead(t *testing.T) {
	tests := []struct {
		name   string
		access hubserve.Access
		repo   hub.Repo
		token  string
		faults []hubtest.Fault
		want   error
		text   string
	}{
		{name: "49 gated, no token", access: hubserve.Access{Gated: "manual"}, repo: repo, want: hub.ErrGated, text: "restricted"},
		{name: "49 gated, token without access", repo: repo, token: token, want: hub.ErrGated, text: "ask the authors",
			faults: []hubtest.Fault{{Path: "/resolve/", Do: hubtest.Status(403, "X-Error-Code", "GatedRepo", "X-Error-Message", "ask the authors")}}},
		{name: "50 private, anonymous", access: hubserve.Access{Private: true}, repo: repo, want: hub.ErrNotFound},
		{name: "50 a bare 401", repo: repo, want: hub.ErrNotFound,
			faults: []hubtest.Fault{{Path: "/revision/", Do: hubtest.Status(401, "X-Error-Message", "Invalid username or password.")}}},
		{name: "51 a bad token on a public repository", repo: repo, token: "hf_wrongwrongwrong", want: hub.ErrAuth, text: "Invalid credentials"},
		{name: "52 no such repository", repo: hub.Repo{ID: "acme/none"}, token: token, want: hub.ErrNotFound},
		{name: "52 no such revision", repo: hub.Repo{ID: repoID, Revision: "none"}, token: token, want: hub.ErrRevision, text: "none"},
		{name: "53 disabled", access: hubserve.Access{Disabled: true}, repo: repo, token: token, want: hub.ErrAuth, text: "disabled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if err := r.hub.SetAccess("model", repoID, tt.access); err != nil {
				t.Fatal(err)
			}
			for _, f := range tt.faults {
				r.hub.Inject(f)
			}
			_, err := r.client(hub.WithToken(tt.token)).Pull(context.Background(), tt.repo, hub.PullOptions{})
			wantErr(t, err, tt.want, tt.text)
			if n := r.hub.Count("GET", "/revision/"); n != 1 {
				t.Errorf("asked %d times for what no retry can cure", n)
			}
		})
	}
}

// hosts answers requests by host name, without a network.
type hosts map[string]http.HandlerFunc

func (h hosts) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	handler, ok := h[r.URL.Scheme+"://"+r.URL.Host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: r.URL.Host, IsNotFound: true}
	}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	handler(rec, r)
	resp := rec.Result()
	resp.Request = r
	if n := rec.Header().Get("Content-Length"); n == "" && r.Method != http.MethodHead {
		resp.ContentLength = int64(rec.Body.Len())
	}
	return resp, nil
}

const commitID = "0123456789abcdef0123456789abcdef01234567"

// emptyETag is git's id of the content "".
const emptyETag = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"

func answer(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		w.Write([]byte(body))
	}
}

func TestMetadataOfOneFile(t *testing.T) {
	const helloETag = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0" // of "hello"
	found := func(w http.ResponseWriter, etag string) {
		w.Header().Set("X-Repo-Commit", commitID)
		w.Header().Set("ETag", etag)
		w.Header().Set("Content-Length", "5")
	}
	var seen []string // what foreign hosts got as credentials
	var queries []string
	foreign := func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization")+r.Header.Get("Cookie"))
		w.Write([]byte("hello"))
	}
	redirect := func(to string) http.HandlerFunc {
		return answer(302, "", "X-Repo-Commit", commitID, "X-Linked-Etag", `"`+helloETag+`"`, "X-Linked-Size", "5", "Location", to)
	}
	tests := []struct {
		name  string
		hosts hosts
		want  error
		text  string
		check func(t *testing.T, dir, path string)
	}{
		{name: "10 weak ETag", hosts: hosts{"https://hub.test": func(w http.ResponseWriter, r *http.Request) {
			found(w, `W/"`+helloETag+`"`)
			w.Write([]byte("hello"))
		}}},
		{name: "10 ETag that is no hash", hosts: hosts{"https://hub.test": func(w http.ResponseWriter, r *http.Request) {
			found(w, `"version-7"`)
			w.Write([]byte("hello"))
		}}},
		{name: "11 ETag with a slash", want: hub.ErrDamaged, hosts: hosts{"https://hub.test": answer(200, "hello", "X-Repo-Commit", commitID, "ETag", `"../../evil"`)},
			check: func(t *testing.T, dir, _ string) {
				if entries, _ := os.ReadDir(dir); len(entries) > 0 {
					t.Errorf("something was written: %v", entries)
				}
			}},
		{name: "12 to another host", hosts: hosts{"https://hub.test": redirect("https://cdn.test/x?sig=1"), "https://cdn.test": foreign}},
		{name: "13 to another port", hosts: hosts{"https://hub.test": redirect("https://hub.test:444/x?sig=1"), "https://hub.test:444": foreign}},
		{name: "14 to a subdomain", hosts: hosts{"https://hub.test": redirect("https://cdn.hub.test/x?sig=1"), "https://cdn.hub.test": foreign}},
		{name: "15 from https to http", want: hub.ErrNetwork, text: "https to http", hosts: hosts{"https://hub.test": redirect("http://hub.test/x")}},
		{name: "16 redirect without end", want: hub.ErrNetwork, text: "too many redirects",
			hosts: hosts{"https://hub.test": func(w http.ResponseWriter, r *http.Request) {
				redirect(r.URL.Path+"x")(w, r)
			}}},
		{name: "18 relative redirect with a query", hosts: hosts{"https://hub.test": func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, "/cache/") {
				answer(307, "", "X-Repo-Commit", commitID, "Location", "/cache/x?a=1&b=2")(w, r)
				return
			}
			queries = append(queries, r.URL.RawQuery)
			found(w, helloETag)
			w.Write([]byte("hello"))
		}}, check: func(t *testing.T, _, _ string) {
			for _, q := range queries {
				if q != "a=1&b=2" {
					t.Errorf("query %q", q)
				}
			}
		}},
		{name: "19 a login page", want: hub.ErrNetwork, text: "not a Hub response", hosts: hosts{"https://hub.test": answer(200, "<html>", "ETag", "x")}},
		{name: "20 HEAD is not served", hosts: hosts{"https://hub.test": func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodHead:
				w.WriteHeader(405)
			case r.Header.Get("Range") == "bytes=0-0":
				found(w, helloETag)
				w.Header().Set("Content-Length", "1")
				w.Header().Set("Content-Range", "bytes 0-0/5")
				w.WriteHeader(206)
				w.Write([]byte("h"))
			default:
				found(w, helloETag)
				w.Write([]byte("hello"))
			}
		}}},
		{name: "no size anywhere", hosts: hosts{"https://hub.test": func(w http.ResponseWriter, r *http.Request) {
			found(w, helloETag)
			if r.Method == http.MethodHead {
				w.Header().Del("Content-Length")
				return
			}
			w.Write([]byte("hello"))
		}}},
		{name: "52 no such file", want: hub.ErrEntry, hosts: hosts{"https://hub.test": answer(404, "", "X-Repo-Commit", commitID, "X-Error-Code", "EntryNotFound")},
			check: func(t *testing.T, dir, _ string) {
				if _, err := os.Stat(filepath.Join(dir, "models--acme--vit", ".no_exist", commitID, "sub", "f.txt")); err != nil {
					t.Error(err)
				}
			}},
		{name: "28 no such host", want: hub.ErrNetwork, text: "no such host", hosts: hosts{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen, queries = nil, nil
			dir := filepath.Join(t.TempDir(), "hub")
			c, err := hub.New(hub.WithEndpoint("https://hub.test"), hub.WithToken(token), hub.WithCacheDir(dir),
				hub.WithRetry(3, time.Millisecond), hub.WithHTTPClient(&http.Client{Transport: tt.hosts}))
			if err != nil {
				t.Fatal(err)
			}
			path, err := c.Download(context.Background(), repo, "sub/f.txt")
			if tt.want != nil {
				wantErr(t, err, tt.want, tt.text)
			} else if got, _ := os.ReadFile(path); err != nil || string(got) != "hello" {
				t.Errorf("got %q, %v", got, err)
			}
			for _, s := range seen {
				if s != "" {
					t.Errorf("a foreign host got the credentials %q", s)
				}
			}
			if tt.check != nil {
				tt.check(t, dir, path)
			}
		})
	}
}

func TestUnreachableHub(t *testing.T) {
	closed := func() string { // an address where nobody listens
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return "http://" + l.Addr().String()
	}
	t.Run("28 refused, nothing cached", func(t *testing.T) {
		r := newRig(t)
		_, err := r.client(hub.WithEndpoint(closed())).Pull(context.Background(), repo, hub.PullOptions{})
		wantErr(t, err, hub.ErrNetwork, "refused")
	})
	t.Run("28 refused, everything cached", func(t *testing.T) {
		r := newRig(t)
		r.pull(hub.PullOptions{})
		r.pull(hub.PullOptions{}, hub.WithEndpoint(closed()))
		if !strings.Contains(r.log.String(), "may be out of date") {
			t.Error("no warning")
		}
	})
	t.Run("28 a certificate nobody trusts is not retried", func(t *testing.T) {
		tries := 0
		srv := httptest.NewUnstartedServer(http.NotFoundHandler())
		srv.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { tries++; return nil, nil }}
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		srv.StartTLS()
		defer srv.Close()
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
		r := newRig(t)
		_, err := r.client(hub.WithEndpoint(srv.URL), hub.WithHTTPClient(&http.Client{Transport: transport})).Info(context.Background(), repo)
		wantErr(t, err, hub.ErrNetwork, "certificate")
		if tries != 1 {
			t.Errorf("%d tries; want 1", tries)
		}
	})
	t.Run("29 a proxy that refuses is not masked by the cache", func(t *testing.T) {
		r := newRig(t)
		r.pull(hub.PullOptions{})
		proxy, _ := url.Parse(closed())
		transport := &http.Transport{Proxy: http.ProxyURL(proxy)}
		_, err := r.client(hub.WithEndpoint("http://hub.test"), hub.WithHTTPClient(&http.Client{Transport: transport})).Pull(context.Background(), repo, hub.PullOptions{})
		wantErr(t, err, hub.ErrNetwork, "proxy")
	})
	t.Run("29 a proxy that wants a password", func(t *testing.T) {
		r := newRig(t)
		r.pull(hub.PullOptions{})
		r.hub.Inject(hubtest.Fault{Do: hubtest.Status(407)})
		_, err := r.client().Pull(context.Background(), repo, hub.PullOptions{})
		wantErr(t, err, hub.ErrNetwork, "Proxy Authentication")
	})
	t.Run("25 rate limit that persists, cached copy", func(t *testing.T) {
		r := newRig(t)
		r.pull(hub.PullOptions{})
		r.hub.Inject(hubtest.Fault{Do: hubtest.Status(429)})
		r.pull(hub.PullOptions{})
		_, err := r.client().Pull(context.Background(), repo, hub.PullOptions{NoCacheFallback: true})
		wantErr(t, err, hub.ErrNetwork, "429")
	})
	t.Run("22 rate limit that passes", func(t *testing.T) {
		r := newRig(t)
		r.hub.Inject(hubtest.Fault{Path: "/tree/", Times: 1, Do: hubtest.Status(429, "RateLimit", `"api";r=0;t=0`)})
		start := time.Now()
		r.pull(hub.PullOptions{})
		if took := time.Since(start); took < time.Second {
			t.Errorf("went on after %v; the Hub asked for a second", took)
		}
		if !strings.Contains(r.log.String(), "bucket=api") {
			t.Error("the log does not name the bucket")
		}
	})
	t.Run("54 offline, all cached", func(t *testing.T) {
		r := newRig(t)
		r.pull(hub.PullOptions{})
		r.hub.Forget()
		r.pull(hub.PullOptions{}, hub.WithOffline(true))
		path, err := r.client(hub.WithOffline(true)).Download(context.Background(), repo, "config.json")
		if err != nil || path == "" || len(r.hub.Requests()) != 0 {
			t.Errorf("%q, %v, %d requests", path, err, len(r.hub.Requests()))
		}
	})
	t.Run("54 offline, a file missing", func(t *testing.T) {
		r := newRig(t)
		r.pull(hub.PullOptions{Exclude: []string{"model*"}})
		_, err := r.client(hub.WithOffline(true)).Pull(context.Background(), repo, hub.PullOptions{})
		wantErr(t, err, hub.ErrOffline, "model.safetensors")
	})
	t.Run("55 offline, unknown revision", func(t *testing.T) {
		r := newRig(t)
		r.pull(hub.PullOptions{})
		_, err := r.client(hub.WithOffline(true)).Pull(context.Background(), hub.Repo{ID: repoID, Revision: "dev"}, hub.PullOptions{})
		wantErr(t, err, hub.ErrOffline, `"dev"`, "commit")
	})
	t.Run("offline and force", func(t *testing.T) {
		r := newRig(t)
		_, err := r.client(hub.WithOffline(true)).Pull(context.Background(), repo, hub.PullOptions{Force: true})
		wantErr(t, err, hub.ErrInvalid)
	})
}
