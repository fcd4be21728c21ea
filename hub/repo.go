package hub

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// RepoType says which of the Hub's name spaces a repository is in.
type RepoType string

// The three kinds of repository that can be pulled and pushed.
const (
	Model   RepoType = "model"
	Dataset RepoType = "dataset"
	Space   RepoType = "space"
)

var repoTypes = []RepoType{Model, Dataset, Space}

// ParseRepoType accepts a type in singular or plural: "model", "datasets".
func ParseRepoType(s string) (RepoType, error) {
	if t := RepoType(strings.TrimSuffix(s, "s")); slices.Contains(repoTypes, t) {
		return t, nil
	}
	return "", fmt.Errorf("%w: repository type %q is none of model, dataset, space", ErrInvalid, s)
}

// plural is the type's name in API addresses and cache folders.
func (t RepoType) plural() string { return string(t) + "s" }

// prefix is what precedes the id in web addresses: nothing for models.
func (t RepoType) prefix() string {
	if t == Model {
		return ""
	}
	return t.plural() + "/"
}

// A Repo names a repository at a revision.
type Repo struct {
	Type     RepoType // empty means Model
	ID       string   // "owner/name", or "name" for the oldest repositories
	Revision string   // branch, tag or commit; empty means main
}

// ParseRepo reads a reference as users write it: "owner/name", "gpt2",
// "owner/name@revision", "datasets/owner/name", "hf://datasets/owner/name@revision"
// or the page's address. A reference without a type is a model.
func ParseRepo(s string) (Repo, error) { return ParseRepoAs(s, Model) }

// ParseRepoAs is ParseRepo where a reference that names no type is one of type t.
func ParseRepoAs(s string, t RepoType) (Repo, error) {
	rest, isURI := strings.CutPrefix(s, "hf://")
	rest, isPage := strings.CutPrefix(rest, "https://huggingface.co/")
	if isPage {
		// A page's address says the revision as …/tree/main.
		rest = strings.TrimSuffix(strings.Replace(rest, "/tree/", "@", 1), "/")
	}
	id, revision, hasRevision := strings.Cut(rest, "@")
	if hasRevision && revision == "" {
		return Repo{}, fmt.Errorf("parsing reference %q: %w: nothing follows the @", s, ErrInvalid)
	}
	if first, name, ok := strings.Cut(id, "/"); ok && strings.HasSuffix(first, "s") {
		if named, err := ParseRepoType(first); err == nil {
			t, id = named, name
		}
	}
	if isURI || isPage {
		decoded, err := url.PathUnescape(revision)
		if err != nil {
			return Repo{}, fmt.Errorf("parsing reference %q: %w: %v", s, ErrInvalid, err)
		}
		revision = decoded
	}
	r := Repo{Type: t, ID: id, Revision: revision}
	if err := r.validate(); err != nil {
		return Repo{}, fmt.Errorf("parsing reference %q: %w", s, err)
	}
	return r, nil
}

// String is the reference in its unambiguous form, such as
// hf://datasets/owner/name@v1.
func (r Repo) String() string {
	s := "hf://" + r.kind().prefix() + r.ID
	if r.Revision != "" {
		s += "@" + r.Revision
	}
	return s
}

func (r Repo) kind() RepoType {
	if r.Type == "" {
		return Model
	}
	return r.Type
}

func (r Repo) revision() string {
	if r.Revision == "" {
		return "main"
	}
	return r.Revision
}

// at is the same repository at another revision.
func (r Repo) at(revision string) Repo {
	r.Revision = revision
	return r
}

// folder is the repository's directory name in the cache.
func (r Repo) folder() string {
	return r.kind().plural() + "--" + strings.ReplaceAll(r.ID, "/", "--")
}

var idPart = regexp.MustCompile(`^[0-9A-Za-z_][0-9A-Za-z_.-]{0,95}$`)

// validate applies the Hub's naming rules. They also make the cache folder's name
// unambiguous and safe, so nothing touches the disk before they hold.
func (r Repo) validate() error {
	if !slices.Contains(repoTypes, r.kind()) {
		return fmt.Errorf("%w: repository type %q is none of model, dataset, space", ErrInvalid, r.Type)
	}
	if err := checkID(r.ID); err != nil {
		return fmt.Errorf("%w: repository id %q %w", ErrInvalid, r.ID, err)
	}
	return checkRevision(r.Revision)
}

func checkID(id string) error {
	parts := strings.Split(id, "/")
	if len(parts) > 2 {
		return errors.New("has more than one slash; the form is owner/name")
	}
	for _, p := range parts {
		if !idPart.MatchString(p) || strings.HasSuffix(p, "-") || strings.HasSuffix(p, ".") {
			return errors.New("must be owner/name, each of at most 96 letters, digits, '-', '_' or '.', " +
				"not beginning or ending with '-' or '.'")
		}
	}
	for _, bad := range []string{"--", ".."} {
		if strings.Contains(id, bad) {
			return fmt.Errorf("must not contain %q", bad)
		}
	}
	if strings.HasSuffix(id, ".git") {
		return errors.New(`must not end in ".git"`)
	}
	return nil
}

// checkRevision refuses what git refuses in a reference and what would lead out of
// the refs directory.
func checkRevision(rev string) error {
	if rev == "" {
		return nil
	}
	for _, part := range strings.Split(rev, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return fmt.Errorf("%w: revision %q is not a branch, tag or commit name", ErrInvalid, rev)
		}
	}
	if strings.Contains(rev, "..") || strings.ContainsFunc(rev, func(c rune) bool {
		return c <= ' ' || c == 0x7f || strings.ContainsRune(`\~^:?*[`, c)
	}) {
		return fmt.Errorf("%w: revision %q is not a branch, tag or commit name", ErrInvalid, rev)
	}
	return nil
}

var commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// isCommit tells a full commit hash, which needs no resolving, from a name.
func isCommit(revision string) bool { return commitHash.MatchString(revision) }

// quote percent-encodes like Python's urllib.parse.quote: everything but letters,
// digits and the characters of safe. Revisions keep no slash, paths do.
func quote(s, safe string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			strings.IndexByte("_.-~", c) >= 0 || strings.IndexByte(safe, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

// apiURL is the address of a repository's part of the API; parts are quoted whole.
func (c *Client) apiURL(r Repo, parts ...string) string {
	u := c.endpoint + "/api/" + r.kind().plural() + "/" + r.ID
	for _, p := range parts {
		u += "/" + quote(p, "")
	}
	return u
}

// resolveURL is the address of a file's content.
func (c *Client) resolveURL(r Repo, path string) string {
	return c.endpoint + "/" + r.kind().prefix() + r.ID + "/resolve/" + quote(r.revision(), "") + "/" + quote(path, "/")
}
