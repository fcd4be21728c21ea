package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
)

// A Draft is a commit whose large files are sent one by one, as they come into
// being: each may be removed from this disk before the next one exists. The
// repository shows nothing of them before Commit. A Draft is not for concurrent
// use; a program that was interrupted begins a new one, and asks with Has what
// need not be sent again.
type Draft struct {
	p      *pushing
	stored []*upload // in LFS, to be in the commit
}

// Draft prepares a commit to the repository's revision, which must be a branch; the
// repository and the branch are created if they do not exist. A token without the
// right to write is refused here, before any work is done for it. Patterns,
// PathInRepo and DryRun have no meaning for it and are ErrInvalid.
func (c *Client) Draft(ctx context.Context, r Repo, opts PushOptions) (*Draft, error) {
	d, err := c.draft(ctx, r, opts)
	if err != nil {
		return nil, fmt.Errorf("preparing a push to %q: %w", r, err)
	}
	return d, nil
}

func (c *Client) draft(ctx context.Context, r Repo, opts PushOptions) (*Draft, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	if opts.PathInRepo != "" || opts.DryRun || len(opts.Include)+len(opts.Exclude)+len(opts.Delete) > 0 {
		return nil, fmt.Errorf("%w: a draft takes no patterns, no folder and no dry run", ErrInvalid)
	}
	if r.Revision == "" {
		r.Revision = "main"
	}
	d := &Draft{p: &pushing{c: c, repo: r, opts: opts, result: &Commit{}}}
	if err := d.p.prepareRepo(ctx); err != nil {
		return nil, err
	}
	// Asking where something would have to be sent is the way to learn whether we may.
	probe := sha256.Sum256([]byte("hubtool"))
	_, err := d.p.lfsBatch(ctx, []*upload{{name: "a file", size: 7, sha256: hex.EncodeToString(probe[:])}})
	return d, err
}

// Repo is the repository, under the name the Hub knows it by.
func (d *Draft) Repo() Repo { return d.p.repo }

// Has tells whether the Hub has content of this SHA-256 and size in bytes. If so, it
// will be in the commit under the name.
func (d *Draft) Has(ctx context.Context, name, sha256 string, size int64) (bool, error) {
	u, objects, err := d.ask(ctx, name, sha256, size)
	if err != nil {
		return false, err
	}
	if objects[sha256].Actions != nil {
		return false, nil
	}
	d.stored = append(d.stored, u)
	return true, nil
}

// Put sends the file at path, which has this SHA-256, unless the Hub has its
// content. It will be in the commit under the name.
func (d *Draft) Put(ctx context.Context, name, sha256, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("uploading: %w", err)
	}
	u, objects, err := d.ask(ctx, name, sha256, info.Size())
	if err != nil {
		return err
	}
	u.local, u.mtime = path, info.ModTime()
	sent, err := d.p.sendObject(ctx, u, objects[sha256])
	d.p.result.Sent += sent
	if err == nil {
		err = u.unchanged()
	}
	if err != nil {
		return fmt.Errorf("uploading %q: %w", name, err)
	}
	d.stored = append(d.stored, u)
	return nil
}

func (d *Draft) ask(ctx context.Context, name, sha256 string, size int64) (*upload, map[string]lfsObject, error) {
	if err := checkUploadName(name); err != nil {
		return nil, nil, err
	}
	if !sha256Hex.MatchString(sha256) || size <= 0 {
		return nil, nil, fmt.Errorf("uploading %q: %w: SHA-256 %q, %d bytes", name, ErrInvalid, sha256, size)
	}
	u := &upload{name: name, size: size, sha256: sha256, lfs: true}
	objects, err := d.p.lfsBatch(ctx, []*upload{u})
	return u, objects, err
}

// Commit commits what Has and Put have named, together with the files in dir, as
// Push does. Files that the repository has already are left out.
func (d *Draft) Commit(ctx context.Context, dir string) (*Commit, error) {
	result, err := d.commit(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("pushing to %q: %w", d.p.repo, err)
	}
	return result, nil
}

func (d *Draft) commit(ctx context.Context, dir string) (*Commit, error) {
	p := d.p
	var err error
	if p.uploads, err = walk(dir, p.opts); err != nil {
		return nil, err
	}
	if err := p.prepareRepo(ctx); err != nil { // the branch may have moved since
		return nil, err
	}
	for _, step := range []func(context.Context) error{p.validateCard, p.compare, p.sendLFS} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	for _, u := range p.uploads {
		if err := u.unchanged(); err != nil {
			return nil, err
		}
	}
	there, err := p.contents(ctx, p.head, changesOf(d.stored))
	if err != nil {
		return nil, err
	}
	for _, u := range d.stored {
		if there[u.name] == u.sha256 {
			p.result.Skipped = append(p.result.Skipped, u.name)
		} else {
			p.uploads = append(p.uploads, u)
		}
	}
	p.result.Repo = p.repo
	p.result.Uploaded = names(p.uploads)
	slices.Sort(p.result.Uploaded)
	if len(p.uploads) == 0 {
		p.result.OID, p.result.URL = p.head, p.commitURL(p.head)
		return p.result, nil
	}
	return p.result, p.commitAll(ctx)
}

func changesOf(uploads []*upload) []change {
	list := make([]change, len(uploads))
	for i, u := range uploads {
		list[i] = change{upload: u}
	}
	return list
}
