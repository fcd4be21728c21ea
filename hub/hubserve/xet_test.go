package hubserve

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"
)

// pack compresses with another implementation of LZ4.
func pack(t testing.TB, data []byte, options ...lz4.Option) []byte {
	t.Helper()
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	if err := w.Apply(options...); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func samples() map[string][]byte {
	noise := make([]byte, 100_000)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	return map[string][]byte{
		"one byte": {7}, "zeros": make([]byte, 131_072), "noise": noise,
		"text":     bytes.Repeat([]byte("the quick brown fox "), 6000),
		"mixed":    append(bytes.Repeat([]byte("abc"), 20_000), noise[:50_000]...),
		"a period": bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7}, 9000),
	}
}

func TestLZ4Frame(t *testing.T) {
	for name, data := range samples() {
		for _, options := range [][]lz4.Option{nil, {lz4.BlockSizeOption(lz4.Block64Kb)}, {lz4.BlockChecksumOption(true), lz4.SizeOption(uint64(len(data)))}, {lz4.CompressionLevelOption(lz4.Level9)}} {
			packed := pack(t, data, options...)
			got, err := lz4Frame(packed, len(data))
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
			if _, err := lz4Frame(packed, len(data)-1); err == nil {
				t.Errorf("%s: more bytes than announced are accepted", name)
			}
			if _, err := lz4Frame(packed[:len(packed)/2], len(data)); err == nil {
				t.Errorf("%s: half a frame is accepted", name)
			}
		}
	}
}

func FuzzLZ4(f *testing.F) {
	for _, data := range samples() {
		f.Add(pack(f, data[:min(len(data), 300)]))
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		got, err := lz4Frame(packed, 1000)
		if err != nil {
			return
		}
		// What we accept, the other implementation must read as the same, unless only a
		// checksum is wrong, which we do not look at.
		r := lz4.NewReader(bytes.NewReader(packed))
		want := make([]byte, 1000)
		if n, err := r.Read(want); err == nil && n == 1000 && !bytes.Equal(got, want) {
			t.Error("unpacked to something else")
		}
	})
}

func TestUngroup(t *testing.T) {
	for n := range 10 {
		data := []byte("0123456789")[:n]
		var grouped []byte
		for g := range 4 {
			for i := g; i < n; i += 4 {
				grouped = append(grouped, data[i])
			}
		}
		if got := ungroup(grouped); !bytes.Equal(got, data) {
			t.Errorf("%q grouped is %q and comes back as %q", data, grouped, got)
		}
	}
}

// aShard describes one file made of one chunk.
func aShard() []byte {
	data := append(bytes.Clone(shardTag), make([]byte, 16)...)
	binary.LittleEndian.PutUint64(data[32:], 2)
	entry := func(flags, a, b, c uint32) {
		e := make([]byte, 48)
		for i, v := range []uint32{flags, a, b, c} {
			binary.LittleEndian.PutUint32(e[32+4*i:], v)
		}
		data = append(data, e...)
	}
	end := append(bytes.Repeat([]byte{0xff}, 32), make([]byte, 16)...)
	entry(1<<31|1<<30, 1, 0, 0) // a file with one term, a verification and its SHA-256
	entry(0, 5, 0, 1)
	entry(0, 0, 0, 0)
	entry(0, 0, 0, 0)
	data = append(data, end...)
	entry(0, 1, 5, 13) // a bundle with one chunk
	entry(0, 0, 5, 0)
	return append(data, end...)
}

func TestParseShard(t *testing.T) {
	whole := aShard()
	files, xorbs, err := parseShard(whole)
	zero := strings.Repeat("0", 64)
	if err != nil || len(files) != 1 || len(xorbs) != 1 || files[0].sha256 != zero || files[0].terms[0] != (shardTerm{zero, 0, 1}) {
		t.Fatalf("%+v, %v, %v", files, xorbs, err)
	}
	for n := range whole {
		if _, _, err := parseShard(whole[:n]); err == nil {
			t.Errorf("a shard cut after %d bytes is accepted", n)
		}
	}
}

func FuzzShard(f *testing.F) {
	f.Add(aShard())
	f.Fuzz(func(t *testing.T, data []byte) { parseShard(data) })
}

func TestXetRefuses(t *testing.T) {
	s, err := New("")
	if err != nil {
		t.Fatal(err)
	}
	s.Commit("model", "ada/vit", "main", "first", map[string][]byte{"a": []byte("A")})
	ask := func(method, path string, body []byte, token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, bytes.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w
	}
	w := ask("GET", "/api/models/ada/vit/xet-write-token/main", nil, "")
	token, cas := w.Header().Get("X-Xet-Access-Token"), strings.TrimPrefix(w.Header().Get("X-Xet-Cas-Url"), "http://example.com")
	zero := strings.Repeat("0", 64)
	chunk := []byte{0, 5, 0, 0, 0, 5, 0, 0, 'h', 'e', 'l', 'l', 'o'}
	tests := []struct {
		name   string
		path   string
		body   []byte
		token  string
		status int
	}{
		{"no token", "/v1/shards", aShard(), "", 401},
		{"another token", "/v1/shards", aShard(), "xet_9999999999_00", 401},
		{"a shard whose bundle is not here", "/v1/shards", aShard(), token, 400},
		{"a shard that is none", "/v1/shards", []byte("x"), token, 400},
		{"a bundle that breaks off", "/v1/xorbs/default/" + zero, chunk[:10], token, 400},
		{"a bundle under no hash", "/v1/xorbs/default/x", chunk, token, 404},
		{"a bundle", "/v1/xorbs/default/" + zero, chunk, token, 200},
		{"the bundle again", "/v1/xorbs/default/" + zero, chunk, token, 200},
		{"a shard whose file is another one", "/v1/shards", aShard(), token, 400}, // "hello" has not the SHA-256 zero
		{"what is known", "/v1/chunks/default-merkledb/" + zero, nil, token, 404},
	}
	for _, tt := range tests {
		if w := ask("POST", cas+tt.path, tt.body, tt.token); w.Code != tt.status {
			t.Errorf("%s: %d %s; want %d", tt.name, w.Code, w.Body, tt.status)
		}
	}
}
