package hubserve

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
)

func requestID() string {
	var b [8]byte
	rand.Read(b[:])
	return "Root=" + hex.EncodeToString(b[:])
}

// credentials says whether the request carries the right token, and whether it
// carries any.
func (r *request) credentials() (valid, given bool) {
	sent, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		_, sent, ok = r.BasicAuth() // as git sends it
	}
	if r.s.token == "" {
		return true, ok
	}
	return ok && subtle.ConstantTimeCompare([]byte(sent), []byte(r.s.token)) == 1, ok
}

// authorise requires the token, if there is one to require.
func (r *request) authorise() error {
	switch valid, given := r.credentials(); {
	case valid:
		return nil
	case given:
		return fail(http.StatusUnauthorized, "", "Invalid credentials in Authorization header")
	}
	return fail(http.StatusUnauthorized, "", "Invalid username or password.")
}

// readable loads the repository if the client may see it. To clients without the
// token the answer to a private one is that to one that does not exist, and 401, so
// that they know what to try.
func (r *request) readable() (*repo, error) {
	valid, given := r.credentials()
	if given && !valid {
		return nil, r.authorise()
	}
	rp, err := r.s.loadRepo(r.kind, r.id)
	var f *failure
	switch {
	case !valid && (errors.As(err, &f) && f.code == "RepoNotFound" || err == nil && rp.Private):
		return nil, fail(http.StatusUnauthorized, "RepoNotFound", "Invalid username or password.")
	case err != nil:
		return nil, err
	case rp.Disabled:
		return nil, fail(http.StatusForbidden, "", "Access to this resource is disabled.")
	}
	return rp, nil
}

// contents is readable for requests that show what files contain, which a gated
// repository keeps for those it knows.
func (r *request) contents() (*repo, error) {
	rp, err := r.readable()
	if err != nil || rp.Gated == "" {
		return rp, err
	}
	if valid, given := r.credentials(); !valid || !given {
		return nil, fail(http.StatusUnauthorized, "GatedRepo",
			"Access to %s %s is restricted. You must have access to it and be authenticated to access it. Please log in.", rp.Type, rp.ID)
	}
	return rp, nil
}

func (r *request) whoami() error {
	valid, given := r.credentials()
	if !given || !valid {
		return fail(http.StatusUnauthorized, "", "Invalid username or password.")
	}
	return r.answer(map[string]any{
		"type": "user", "id": r.s.user, "name": r.s.user, "fullname": r.s.user,
		"emailVerified": true, "isPro": false, "orgs": []any{},
		"auth": map[string]any{"type": "access_token", "accessToken": map[string]string{"displayName": "hubtool", "role": "write"}},
	})
}

func (r *request) authCheck() error {
	rp, err := r.contents()
	if err != nil {
		return err
	}
	if len(r.args) > 0 && r.args[0] == "write" {
		if err := r.authorise(); err != nil {
			return err
		}
	}
	return r.answer(map[string]string{"id": rp.ID})
}
