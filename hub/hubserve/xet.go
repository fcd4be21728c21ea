package hubserve

import (
	"crypto/hmac"
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The receiving half of Xet, as its specification describes it for clients:
//
//	GET  /api/<type>s/<id>/xet-write-token/<revision>  where to send content, and a token for it
//	GET  /xet/<instance>/v1/chunks/default-merkledb/<hash>  404: nothing is known in advance
//	POST /xet/<instance>/v1/xorbs/default/<hash>       a bundle of compressed chunks
//	POST /xet/<instance>/v1/shards                     which chunks make which files
//
// A shard's files are assembled at once and stored as plain content under their
// SHA-256. Of a bundle, what stays is a record of where in that content its chunks
// are now: clients remember for weeks which chunks they have sent, and refer to
// them. The instance in the address is one per directory, so that a client never
// believes that an empty Hub at an old address has anything.
//
// Hashes of bundles are names here and not checked; a file is, by its SHA-256.

const (
	maxXorb  = 80 << 20 // 64 MiB by the specification
	maxShard = 80 << 20
)

// xetToken answers where to send content.
func (r *request) xetToken() error {
	r.s.mu.RLock()
	_, err := r.readable()
	r.s.mu.RUnlock()
	if err != nil {
		return err
	}
	instance, err := r.s.instance()
	if err != nil {
		return err
	}
	expires := r.s.now().Add(time.Hour).Unix()
	exp := strconv.FormatInt(expires, 10)
	token := "xet_" + exp + "_" + r.s.sign("XET", instance, exp)
	cas := r.base() + "/xet/" + instance
	h := r.w.Header()
	h.Set("X-Xet-Access-Token", token)
	h.Set("X-Xet-Token-Expiration", exp)
	h.Set("X-Xet-Cas-Url", cas)
	return r.answer(map[string]any{"accessToken": token, "exp": expires, "casUrl": cas})
}

// instance is the name that this Hub's storage has for good.
func (s *Server) instance() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, err := s.st.load("instance")
	if errors.Is(err, fs.ErrNotExist) {
		name = []byte(requestID()[len("Root="):])
		err = s.st.save("instance", name)
	}
	return string(name), err
}

// xet handles the addresses under /xet/.
func (r *request) xet(args []string) error {
	if len(args) < 3 {
		return fail(http.StatusNotFound, "", "no such page")
	}
	exp, sig, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer xet_"), "_")
	until, err := strconv.ParseInt(exp, 10, 64)
	if err != nil || !hmac.Equal([]byte(sig), []byte(r.s.sign("XET", args[0], exp))) || r.s.now().Unix() > until {
		return fail(http.StatusUnauthorized, "", "the Xet token is wrong or has expired")
	}
	switch r.Method + " " + strings.Join(args[1:min(len(args), 4)], "/") {
	case "POST v1/xorbs/default":
		if len(args) == 5 && sha256Hex.MatchString(args[4]) {
			return r.receiveXorb(args[4])
		}
	case "POST v1/shards":
		return r.receiveShard()
	}
	return fail(http.StatusNotFound, "", "not known here")
}
