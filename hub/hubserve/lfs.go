package hubserve

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hubtool/hubtool/internal/hashing"
)

// LFS content moves over addresses that are signed instead of carrying the token,
// as on the Hub:
//
//	GET  /lfs/blob/<sha256>?expires=…&sig=…           download
//	PUT  /lfs/blob/<sha256>?expires=…&sig=…           upload in one piece
//	PUT  /lfs/part/<upload>/<number>?expires=…&sig=…  one part
//	POST /lfs/complete/<upload>?expires=…&sig=…       the parts are all there
//	POST /lfs/verify                                   is it there, in full?

// uploads are the multipart uploads in flight. They end with the process; the
// client then starts again.
type uploads struct {
	mu    sync.Mutex
	all   map[string]*upload
	xorbs map[string]*xorb
	key   []byte // signs addresses
}

// An upload is content that comes in parts, each of which goes to its place.
type upload struct {
	oid      string
	size     int64
	partSize int64
	data     pending
	begun    time.Time
	etags    map[int]string // of the parts that have come in full
}

// uploadLife is how long the addresses of an upload are good, and its parts kept.
const uploadLife = 12 * time.Hour

const (
	onePiece  = 16 << 20 // largest upload that is not made in parts
	smallPart = 256 << 10
	maxParts  = 4000
)

// partsOf is the size of the parts of an upload; 0 if it comes in one piece.
func (s *Server) partsOf(size int64) int64 {
	switch {
	case s.partSize >= 0 && size > s.partSize:
		return s.partSize
	case s.partSize >= 0 || size <= onePiece:
		return 0
	}
	return smallPart * max(1, (size+maxParts*smallPart-1)/(maxParts*smallPart))
}

// sign returns the signature of an address' method and path until a moment.
func (s *Server) sign(method, path, expires string) string {
	s.uploads.mu.Lock()
	if s.uploads.key == nil {
		s.uploads.key = make([]byte, 32)
		rand.Read(s.uploads.key)
	}
	mac := hmac.New(sha256.New, s.uploads.key)
	s.uploads.mu.Unlock()
	io.WriteString(mac, method+" "+path+" "+expires)
	return hex.EncodeToString(mac.Sum(nil))
}

func (s *Server) signedPath(method, path string, valid time.Duration) string {
	expires := strconv.FormatInt(s.now().Add(valid).Unix(), 10)
	return path + "?" + url.Values{"expires": {expires}, "sig": {s.sign(method, path, expires)}}.Encode()
}

// signed is the address of a blob, without the host.
func (s *Server) signed(method, sha string, valid time.Duration) string {
	return s.signedPath(method, "/lfs/blob/"+sha, valid)
}

func (r *request) checkSignature(method string) error {
	expires := r.query.Get("expires")
	until, err := strconv.ParseInt(expires, 10, 64)
	want := r.s.sign(method, r.URL.Path, expires)
	if err != nil || !hmac.Equal([]byte(want), []byte(r.query.Get("sig"))) {
		return fail(http.StatusForbidden, "", "signature does not match")
	}
	if r.s.now().Unix() > until {
		return fail(http.StatusForbidden, "", "Request has expired")
	}
	return nil
}

var sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)

type lfsObject struct {
	OID  string `json:"oid"`
	Size int64  `json:"size"`
}

// batch answers where to put the content of new LFS files.
func (r *request) batch() error {
	var q struct {
		Operation string      `json:"operation"`
		Transfers []string    `json:"transfers"`
		Objects   []lfsObject `json:"objects"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	if q.Operation == "upload" {
		if err := r.authorise(); err != nil {
			return err
		}
		if r.s.readOnly {
			return fail(http.StatusForbidden, "", "this Hub is read-only")
		}
	}
	r.s.mu.RLock()
	_, err := r.contents()
	r.s.mu.RUnlock()
	if err != nil {
		return err
	}
	transfer, objects := "basic", []map[string]any{}
	for _, o := range q.Objects {
		answer := map[string]any{"oid": o.OID, "size": o.Size}
		size, present := r.s.blobSize(o.OID)
		switch {
		case !sha256Hex.MatchString(o.OID) || o.Size < 0:
			answer["error"] = map[string]any{"code": 422, "message": "malformed object"}
		case q.Operation == "download" && !present:
			answer["error"] = map[string]any{"code": 404, "message": "Object does not exist"}
		case q.Operation == "download":
			answer["actions"] = map[string]any{"download": map[string]any{"href": r.base() + r.s.signed(http.MethodGet, o.OID, time.Hour)}}
		case present && size == o.Size:
			// no actions: nothing to send
		case r.s.partsOf(o.Size) > 0 && contains(q.Transfers, "multipart"):
			transfer = "multipart"
			if answer["actions"], err = r.multipart(o, r.s.partsOf(o.Size)); err != nil {
				return err
			}
		default:
			answer["actions"] = map[string]any{
				"upload": map[string]any{"href": r.base() + r.s.signed(http.MethodPut, o.OID, uploadLife), "header": map[string]string{}},
				"verify": map[string]any{"href": r.base() + "/lfs/verify"},
			}
		}
		objects = append(objects, answer)
	}
	r.w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
	return json.NewEncoder(r.w).Encode(map[string]any{"transfer": transfer, "objects": objects})
}

func contains(list []string, s string) bool {
	return strings.Contains(","+strings.Join(list, ",")+",", ","+s+",")
}

func (s *Server) blobSize(sha string) (int64, bool) {
	f, size, err := s.st.openBlob(sha)
	if err != nil {
		return 0, false
	}
	f.Close()
	return size, true
}

// multipart opens an upload in parts and gives the address of each.
func (r *request) multipart(o lfsObject, partSize int64) (map[string]any, error) {
	id := requestID()[len("Root="):]
	u := &upload{oid: o.OID, size: o.Size, partSize: partSize, begun: r.s.now(), etags: map[int]string{}}
	r.s.uploads.mu.Lock()
	if r.s.uploads.all == nil {
		r.s.uploads.all = map[string]*upload{}
	}
	for old, u := range r.s.uploads.all {
		if r.s.now().Sub(u.begun) > uploadLife {
			u.drop()
			delete(r.s.uploads.all, old)
		}
	}
	r.s.uploads.all[id] = u
	r.s.uploads.mu.Unlock()
	header := map[string]string{"chunk_size": strconv.FormatInt(partSize, 10)}
	for n := int64(1); (n-1)*partSize < o.Size; n++ {
		header[strconv.FormatInt(n, 10)] = r.base() + r.s.signedPath(http.MethodPut, fmt.Sprintf("/lfs/part/%s/%d", id, n), uploadLife)
	}
	return map[string]any{
		"upload": map[string]any{"href": r.base() + r.s.signedPath(http.MethodPost, "/lfs/complete/"+id, uploadLife), "header": header},
		"verify": map[string]any{"href": r.base() + "/lfs/verify"},
	}, nil
}

func (u *upload) drop() {
	if u.data != nil {
		u.data.drop()
	}
}

// transfer handles the signed addresses.
func (r *request) transfer(args []string) error {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if method == http.MethodPost && strings.Join(args, "/") == "verify" {
		return r.verify()
	}
	if len(args) < 2 {
		return fail(http.StatusNotFound, "", "no such page")
	}
	if err := r.checkSignature(method); err != nil {
		return err
	}
	switch method + " " + args[0] {
	case "GET blob":
		r.w.Header().Set("ETag", `"`+args[1]+`"`)
		r.w.Header().Set("Content-Type", "application/octet-stream")
		return r.content(args[1])
	case "PUT blob":
		_, err := r.receive(args[1])
		return err
	case "PUT part":
		return r.receivePart(args)
	case "POST complete":
		return r.complete(args[1])
	}
	return fail(http.StatusNotFound, "", "no such page")
}

// receive stores the body, which must have the SHA-256 want unless that is empty.
func (r *request) receive(want string) (blob, error) {
	b, err := store(r.s.st, r.Body, want)
	if errors.Is(err, errMismatch) {
		return b, fail(http.StatusBadRequest, "", "%v", err)
	}
	return b, err
}

func (r *request) upload(id string) (*upload, error) {
	r.s.uploads.mu.Lock()
	defer r.s.uploads.mu.Unlock()
	u, ok := r.s.uploads.all[id]
	if !ok {
		return nil, fail(http.StatusNotFound, "", "no such upload; ask for a new one")
	}
	return u, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// receivePart puts a part in its place. Its ETag is a checksum of what came; the
// whole is hashed when it is complete.
func (r *request) receivePart(args []string) error {
	u, err := r.upload(args[1])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[2])
	if err != nil || n < 1 || int64(n-1)*u.partSize >= u.size {
		return fail(http.StatusBadRequest, "", "malformed part number")
	}
	data, err := u.open(r.s)
	if err != nil {
		return err
	}
	from := int64(n-1) * u.partSize
	want := min(u.partSize, u.size-from)
	h := crc32.New(castagnoli)
	to := io.MultiWriter(io.NewOffsetWriter(data, from), h)
	got, err := io.CopyBuffer(to, io.LimitReader(r.Body, want), make([]byte, 128<<10))
	if err != nil {
		return err
	}
	if more, _ := r.Body.Read(make([]byte, 1)); got != want || more > 0 {
		return fail(http.StatusBadRequest, "", "part %d does not have %d bytes", n, want)
	}
	etag := hex.EncodeToString(h.Sum(nil))
	r.s.uploads.mu.Lock()
	u.etags[n] = etag
	r.s.uploads.mu.Unlock()
	r.w.Header().Set("ETag", `"`+etag+`"`)
	return nil
}

// open gives the place of an upload's content, which exists from the first part on.
func (u *upload) open(s *Server) (pending, error) {
	s.uploads.mu.Lock()
	defer s.uploads.mu.Unlock()
	if u.data != nil {
		return u.data, nil
	}
	data, err := s.st.createBlob()
	if err != nil {
		return nil, err
	}
	u.data = data
	return u.data, nil
}

// complete makes the parts content, if the client lists all of them, in order.
func (r *request) complete(id string) error {
	u, err := r.upload(id)
	if err != nil {
		return err
	}
	var q struct {
		OID   string `json:"oid"`
		Parts []struct {
			Number int    `json:"partNumber"`
			ETag   string `json:"etag"`
		} `json:"parts"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	if parts := (u.size + u.partSize - 1) / u.partSize; int64(len(q.Parts)) != parts {
		return fail(http.StatusBadRequest, "", "the upload has %d parts, not %d", parts, len(q.Parts))
	}
	r.s.uploads.mu.Lock()
	for i, p := range q.Parts {
		if p.Number != i+1 || u.etags[p.Number] == "" || strings.Trim(p.ETag, `"`) != u.etags[p.Number] {
			r.s.uploads.mu.Unlock()
			return fail(http.StatusBadRequest, "", "part %d is missing or has another ETag", i+1)
		}
	}
	mine := r.s.uploads.all[id] == u
	delete(r.s.uploads.all, id) // whatever comes of it: a wrong whole has no right parts
	r.s.uploads.mu.Unlock()
	if !mine {
		return fail(http.StatusNotFound, "", "no such upload; ask for a new one")
	}
	if err := u.keep(); err != nil {
		u.drop()
		return err
	}
	return r.answer(map[string]any{})
}

// keep stores the content if it is what was announced.
func (u *upload) keep() error {
	f, err := u.data.open()
	if err != nil {
		return err
	}
	defer f.Close()
	h := hashing.NewSHA256()
	if _, err := io.CopyBuffer(h, f, make([]byte, 128<<10)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != u.oid {
		return fail(http.StatusBadRequest, "", "content has SHA-256 %s, not %s", got, u.oid)
	}
	return u.data.keep(u.oid)
}

func (r *request) verify() error {
	if err := r.authorise(); err != nil {
		return err
	}
	var o lfsObject
	if err := r.decode(&o); err != nil {
		return err
	}
	size, present := r.s.blobSize(o.OID)
	switch {
	case !present:
		return fail(http.StatusNotFound, "", "object %s has not been uploaded", o.OID)
	case size != o.Size:
		return fail(http.StatusUnprocessableEntity, "", "object %s has %d bytes, not %d", o.OID, size, o.Size)
	}
	return r.answer(map[string]any{})
}
