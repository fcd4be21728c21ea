package hubserve

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
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

type upload struct {
	oid   string
	size  int64
	parts map[int]blob
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
		case r.s.partSize > 0 && o.Size > r.s.partSize && contains(q.Transfers, "multipart"):
			transfer = "multipart"
			answer["actions"] = r.multipart(o)
		default:
			answer["actions"] = map[string]any{
				"upload": map[string]any{"href": r.base() + r.s.signed(http.MethodPut, o.OID, 12*time.Hour), "header": map[string]string{}},
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
func (r *request) multipart(o lfsObject) map[string]any {
	id := requestID()[len("Root="):]
	r.s.uploads.mu.Lock()
	if r.s.uploads.all == nil {
		r.s.uploads.all = map[string]*upload{}
	}
	r.s.uploads.all[id] = &upload{oid: o.OID, size: o.Size, parts: map[int]blob{}}
	r.s.uploads.mu.Unlock()
	header := map[string]string{"chunk_size": strconv.FormatInt(r.s.partSize, 10)}
	for n := int64(1); (n-1)*r.s.partSize < o.Size; n++ {
		header[strconv.FormatInt(n, 10)] = r.base() + r.s.signedPath(http.MethodPut, fmt.Sprintf("/lfs/part/%s/%d", id, n), 12*time.Hour)
	}
	return map[string]any{
		"upload": map[string]any{"href": r.base() + r.s.signedPath(http.MethodPost, "/lfs/complete/"+id, 12*time.Hour), "header": header},
		"verify": map[string]any{"href": r.base() + "/lfs/verify"},
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

func (r *request) receivePart(args []string) error {
	u, err := r.upload(args[1])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[2])
	if err != nil || n < 1 {
		return fail(http.StatusBadRequest, "", "malformed part number")
	}
	b, err := r.receive("")
	if err != nil {
		return err
	}
	r.s.uploads.mu.Lock()
	u.parts[n] = b
	r.s.uploads.mu.Unlock()
	r.w.Header().Set("ETag", `"`+b.SHA256+`"`)
	return nil
}

// complete joins the parts that the client lists, in their order.
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
	var readers []io.Reader
	for i, p := range q.Parts {
		r.s.uploads.mu.Lock()
		b, ok := u.parts[p.Number]
		r.s.uploads.mu.Unlock()
		if !ok || p.Number != i+1 || strings.Trim(p.ETag, `"`) != b.SHA256 {
			return fail(http.StatusBadRequest, "", "part %d is missing or has another ETag", i+1)
		}
		f, _, err := r.s.st.openBlob(b.SHA256)
		if err != nil {
			return err
		}
		defer f.Close()
		readers = append(readers, f)
	}
	if _, err := store(r.s.st, io.MultiReader(readers...), u.oid); err != nil {
		if errors.Is(err, errMismatch) {
			return fail(http.StatusBadRequest, "", "%v", err)
		}
		return err
	}
	r.s.uploads.mu.Lock()
	delete(r.s.uploads.all, id)
	r.s.uploads.mu.Unlock()
	return r.answer(map[string]any{})
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
