package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Info is what the Hub says about a repository at a revision.
type Info struct {
	ID          string    `json:"id"`
	SHA         string    `json:"sha"` // the commit the revision names
	Private     bool      `json:"private"`
	Gated       Gate      `json:"gated"`
	Disabled    bool      `json:"disabled"`
	Tags        []string  `json:"tags"`
	LibraryName string    `json:"library_name"`
	PipelineTag string    `json:"pipeline_tag"`
	Modified    time.Time `json:"lastModified"`
	Siblings    []struct {
		Name string `json:"rfilename"`
	} `json:"siblings"`
}

// Gate is how access is granted: "" (open), "auto" or "manual".
type Gate string

// UnmarshalJSON accepts false for an open repository, as the Hub writes it.
func (g *Gate) UnmarshalJSON(b []byte) error {
	var open bool
	if json.Unmarshal(b, &open) == nil {
		*g = ""
		return nil
	}
	return json.Unmarshal(b, (*string)(g))
}

// Info asks for the repository at its revision; SHA is the commit to use from then
// on. Errors unwrap to ErrNotFound, ErrRevision, ErrGated, ErrAuth, ErrNetwork or
// ErrOffline.
func (c *Client) Info(ctx context.Context, r Repo) (*Info, error) {
	info, err := c.info(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("asking for %q: %w", r, err)
	}
	return info, nil
}

func (c *Client) info(ctx context.Context, r Repo) (*Info, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	var info Info
	if _, err := c.call(ctx, http.MethodGet, c.apiURL(r, "revision", r.revision()), nil, &info); err != nil {
		return nil, err
	}
	// Some self-hosted Hubs answer an unknown revision with an empty commit.
	if !isCommit(info.SHA) {
		return nil, fmt.Errorf("%w: the server names commit %q", ErrRevision, info.SHA)
	}
	if info.ID != "" && !strings.EqualFold(info.ID, r.ID) {
		c.log.Warn("the repository has moved; use its new name", "old", r.ID, "new", info.ID)
	}
	return &info, nil
}

// A File is one entry of a repository's listing.
type File struct {
	Path    string
	Size    int64
	BlobID  string // git's SHA-1 of the content, or of the pointer to it for LFS files
	SHA256  string // of the content; LFS files only
	XetHash string // set if the Hub stores the content in Xet; it is served over HTTP as well

	unlisted bool // found in a snapshot whose listing is unknown
}

// ETag is the name of the file's content in the cache: SHA256, else BlobID.
func (f File) ETag() string {
	if f.SHA256 != "" {
		return f.SHA256
	}
	return f.BlobID
}

// check refuses what cannot become a file on this disk.
func (f File) check() error {
	if f.Size < 0 {
		return fmt.Errorf("%w: file %q has the size %d", ErrDamaged, f.Path, f.Size)
	}
	return checkPath(f.Path)
}

// treeEntry is a line of the listing as the Hub writes it.
type treeEntry struct {
	Type string `json:"type"`
	OID  string `json:"oid"`
	Size int64  `json:"size"`
	Path string `json:"path"`
	LFS  *struct {
		OID  string `json:"oid"`
		Size int64  `json:"size"`
	} `json:"lfs"`
	XetHash string `json:"xetHash"`
}

var xetHash = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (e treeEntry) file() File {
	f := File{Path: e.Path, Size: e.Size, BlobID: e.OID}
	if xetHash.MatchString(e.XetHash) { // Python discards a whole listing over a malformed one
		f.XetHash = e.XetHash
	}
	if e.LFS != nil {
		f.SHA256, f.Size = strings.TrimPrefix(e.LFS.OID, "sha256:"), e.LFS.Size
	}
	return f
}

// Files lists every file of the repository at its revision, in the Hub's order.
// Names come from the server: check them before using them as paths, as Pull does.
// The sequence ends at the first error.
func (c *Client) Files(ctx context.Context, r Repo) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		if err := r.validate(); err != nil {
			yield(File{}, err)
			return
		}
		address := c.apiURL(r, "tree", r.revision()) + "?recursive=true&expand=false"
		err := pages(ctx, c, address, func(entries []treeEntry) bool {
			for _, e := range entries {
				// Directories are listed too, and some servers list them namelessly.
				if e.Type == "file" && !yield(e.file(), nil) {
					return false
				}
			}
			return true
		})
		if err != nil {
			yield(File{}, fmt.Errorf("listing %q: %w", r, err))
		}
	}
}
