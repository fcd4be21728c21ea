package hub

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/internal/hashing"
)

const preuploadBatch = 256

// compare asks how each file is to be sent and leaves those in p.uploads that the
// repository lacks.
func (p *pushing) compare(ctx context.Context) error {
	ignored := map[string]bool{}
	if p.head != "" {
		for batch := range slices.Chunk(p.uploads, preuploadBatch) {
			if err := p.preupload(ctx, batch, ignored); err != nil {
				return err
			}
		}
	}
	if err := p.c.each(ctx, len(p.uploads), func(_ context.Context, i int) error { return p.c.hashUpload(p.uploads[i]) }); err != nil {
		return err
	}
	if err := p.fillRemote(ctx); err != nil {
		return err
	}
	p.result.Skipped = nil
	p.uploads = slices.DeleteFunc(p.uploads, func(u *upload) bool {
		same := u.remote != "" && (u.remote == u.git || u.remote == u.sha256)
		if same || ignored[u.name] {
			p.result.Skipped = append(p.result.Skipped, u.name)
			p.c.report(Event{File: u.name, State: Skipped, Done: u.size, Total: u.size})
		}
		return same || ignored[u.name]
	})
	return nil
}

func (p *pushing) preupload(ctx context.Context, batch []*upload, ignored map[string]bool) error {
	type entry struct {
		Path   string `json:"path"`
		Sample string `json:"sample"`
		Size   int64  `json:"size"`
	}
	q := struct {
		Files     []entry `json:"files"`
		GitIgnore string  `json:"gitIgnore,omitempty"`
	}{}
	byName := map[string]*upload{}
	for _, u := range batch {
		sample, err := readSample(u.local)
		if err != nil {
			return err
		}
		q.Files = append(q.Files, entry{u.name, base64.StdEncoding.EncodeToString(sample), u.size})
		byName[u.name] = u
	}
	for _, u := range p.uploads {
		if u.name == ".gitignore" {
			text, err := os.ReadFile(u.local)
			if err != nil {
				return err
			}
			q.GitIgnore = string(text)
		}
	}
	var answer struct {
		Files []struct {
			Path         string `json:"path"`
			UploadMode   string `json:"uploadMode"`
			ShouldIgnore bool   `json:"shouldIgnore"`
			OID          string `json:"oid"`
		} `json:"files"`
	}
	address := p.c.apiURL(p.repo, "preupload", p.repo.Revision) + p.prQuery()
	if _, err := p.c.call(ctx, http.MethodPost, address, q, &answer); err != nil {
		return fmt.Errorf("asking how to send the files: %w", err)
	}
	for _, a := range answer.Files {
		u, ok := byName[a.Path]
		if !ok {
			continue
		}
		delete(byName, a.Path)
		// An empty file is no LFS object, whatever the server says.
		u.lfs, u.remote = a.UploadMode == "lfs" && u.size > 0, a.OID
		ignored[u.name] = a.ShouldIgnore
	}
	for name := range byName {
		return fmt.Errorf("asking how to send the files: %w: the server does not answer for %q", ErrNetwork, name)
	}
	return nil
}

func (p *pushing) prQuery() string {
	if p.opts.CreatePR {
		return "?create_pr=1"
	}
	return ""
}

func readSample(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 512))
}

// hashUpload computes the ids of a file's content: git's, and SHA-256 for LFS.
func (c *Client) hashUpload(u *upload) error {
	c.report(Event{File: u.name, State: Checking, Total: u.size})
	f, err := os.Open(u.local)
	if err != nil {
		return err
	}
	defer f.Close()
	git := hashing.NewSHA1()
	fmt.Fprintf(git, "blob %d\x00", u.size)
	hashes := []io.Writer{git}
	var sha hash.Hash
	if u.lfs {
		sha = hashing.NewSHA256()
		hashes = []io.Writer{sha}
	}
	n, err := io.Copy(io.MultiWriter(hashes...), f)
	if err != nil {
		return err
	}
	if n != u.size {
		return u.unchanged()
	}
	if sha != nil {
		u.sha256 = hex.EncodeToString(sha.Sum(nil))
		return nil
	}
	u.git = hex.EncodeToString(git.Sum(nil))
	return nil
}

// fillRemote looks up what the repository has where preupload did not say, which
// some servers never do.
func (p *pushing) fillRemote(ctx context.Context) error {
	byName := map[string]*upload{}
	for _, u := range p.uploads {
		if u.remote == "" {
			byName[u.name] = u
		}
	}
	if len(byName) == 0 || p.head == "" {
		return nil
	}
	for f, err := range p.c.Files(ctx, p.repo.at(p.head)) {
		if err != nil {
			return err
		}
		if u := byName[f.Path]; u != nil {
			u.remote = f.ETag()
		}
	}
	return nil
}

// deletions lists what Delete selects of the repository, less what is being sent.
func (p *pushing) deletions(ctx context.Context) ([]string, error) {
	if len(p.opts.Delete) == 0 || p.head == "" {
		return nil, nil
	}
	prefix := strings.Trim(p.opts.PathInRepo, "/")
	if prefix != "" {
		prefix += "/"
	}
	kept := map[string]bool{".gitattributes": true}
	for _, name := range append(slices.Clone(p.result.Skipped), names(p.uploads)...) {
		kept[name] = true
	}
	sel := compile(p.opts.Delete)
	var out []string
	for f, err := range p.c.Files(ctx, p.repo.at(p.head)) {
		if err != nil {
			return nil, err
		}
		if rel, ok := strings.CutPrefix(f.Path, prefix); ok && sel.match(rel) && !kept[f.Path] {
			out = append(out, f.Path)
		}
	}
	return out, nil
}

func names(uploads []*upload) []string {
	var out []string
	for _, u := range uploads {
		out = append(out, u.name)
	}
	return out
}
