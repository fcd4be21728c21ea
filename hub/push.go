package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
)

// PushOptions say what Push sends and how. The zero value sends the whole folder to
// the repository's root, and creates a public repository if there is none.
type PushOptions struct {
	PathInRepo  string   // folder, or for a single file its name, in the repository
	Include     []string // wildcards, relative to the pushed folder
	Exclude     []string
	Delete      []string // wildcards of files to remove from PathInRepo that are not being sent
	Message     string   // default: "Upload … with hubtool"
	Description string
	CreatePR    bool // put the commit on a new pull request
	Private     bool // of a repository that has to be created
	DryRun      bool // say what would be sent; nothing is changed

	// Card makes one of a README.md that is pushed to the repository's root and the one
	// that is there. By default the former replaces the latter.
	Card func(ours, theirs []byte) ([]byte, error)
}

// Commit is what Push did.
type Commit struct {
	Repo        Repo   // under the name the Hub knows it by
	OID         string // the commit; if nothing changed, the branch's head
	URL         string
	PullRequest string   // address of the pull request, if one was made
	Uploaded    []string // names in the repository
	Skipped     []string // unchanged, or ignored by the repository's .gitignore
	Deleted     []string
	Sent        int64 // body bytes of content that went over the network
}

// Push sends a folder or a file as one commit to the repository's revision, which
// must be a branch; the repository and the branch are created if they do not
// exist. What the repository has already is not sent again, so that a push that
// was cut short goes on where it was. A very large push becomes several commits,
// the last of which brings the README.
//
// If the branch moves meanwhile, Push goes on unless the same files changed
// there, which is ErrConflict. If the answer to the commit is lost, Push finds out
// whether it happened; a pull request is never asked for twice.
func (c *Client) Push(ctx context.Context, r Repo, path string, opts PushOptions) (*Commit, error) {
	result, err := c.push(ctx, r, path, opts)
	if err != nil {
		return nil, fmt.Errorf("pushing %q to %q: %w", path, r, err)
	}
	return result, nil
}

// pushing is a push under way.
type pushing struct {
	c       *Client
	repo    Repo
	opts    PushOptions
	head    string // commit that the changes are relative to; "" before the repository exists
	uploads []*upload
	result  *Commit
}

func (c *Client) push(ctx context.Context, r Repo, path string, opts PushOptions) (*Commit, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	if r.Revision == "" {
		r.Revision = "main"
	}
	uploads, err := walk(path, opts)
	if err != nil {
		return nil, err
	}
	if len(uploads) == 0 && len(opts.Delete) == 0 {
		return nil, fmt.Errorf("%w: there is nothing to push in %q", ErrInvalid, path)
	}
	p := &pushing{c: c, repo: r, opts: opts, uploads: uploads, result: &Commit{}}
	if err := p.prepareRepo(ctx); err != nil {
		return nil, err
	}
	done, err := p.joinCards(ctx)
	defer done()
	if err != nil {
		return nil, err
	}
	if err := p.validateCard(ctx); err != nil {
		return nil, err
	}
	if err := p.compare(ctx); err != nil {
		return nil, err
	}
	deleted, err := p.deletions(ctx)
	if err != nil {
		return nil, err
	}
	p.result.Repo, p.result.Deleted = p.repo, deleted
	for _, u := range p.uploads {
		p.result.Uploaded = append(p.result.Uploaded, u.name)
	}
	switch {
	case opts.DryRun:
		return p.result, nil
	case len(p.uploads) == 0 && len(deleted) == 0:
		c.log.Info("nothing to push: the repository has it all", "commit", p.head)
		p.result.OID, p.result.URL = p.head, p.commitURL(p.head)
		return p.result, nil
	}
	if err := p.sendLFS(ctx); err != nil {
		return nil, err
	}
	for _, u := range p.uploads {
		if err := u.unchanged(); err != nil {
			return nil, err
		}
	}
	return p.result, p.commitAll(ctx)
}

func (p *pushing) commitURL(oid string) string {
	return p.c.endpoint + "/" + p.repo.kind().prefix() + p.repo.ID + "/commit/" + oid
}

// prepareRepo finds the branch's head, creating what does not exist. Looking comes
// first: a token may write to a repository without the right to create one.
func (p *pushing) prepareRepo(ctx context.Context) error {
	info, err := p.c.info(ctx, p.repo)
	if errors.Is(err, ErrNotFound) && !p.opts.DryRun {
		var created Repo
		created, err = p.c.CreateRepo(ctx, p.repo, CreateOptions{Private: p.opts.Private, ExistOK: true})
		if err == nil {
			p.repo = created
			info, err = p.c.info(ctx, p.repo)
		}
	}
	if errors.Is(err, ErrRevision) && !p.opts.DryRun {
		branch := p.c.apiURL(p.repo, "branch", p.repo.Revision)
		if _, err = p.c.call(ctx, http.MethodPost, branch, struct{}{}, nil); err == nil || errors.Is(err, ErrConflict) {
			info, err = p.c.info(ctx, p.repo)
		}
	}
	switch {
	case err == nil:
		p.head = info.SHA
		if info.ID != "" && checkID(info.ID) == nil {
			p.repo.ID = info.ID // the present name of one that has moved
		}
		return nil
	case p.opts.DryRun && (errors.Is(err, ErrNotFound) || errors.Is(err, ErrRevision)):
		return nil // everything would be new
	}
	return err
}

// validateCard has the Hub check the model card's front matter, before anything is
// sent that a bad one would make it refuse.
func (p *pushing) validateCard(ctx context.Context) error {
	i := slices.IndexFunc(p.uploads, func(u *upload) bool { return u.name == cardName })
	if i < 0 || p.opts.DryRun {
		return nil
	}
	text, err := os.ReadFile(p.uploads[i].local)
	if err != nil {
		return err
	}
	var answer struct {
		Warnings []struct {
			Message string `json:"message"`
		} `json:"warnings"`
	}
	q := map[string]string{"content": string(text), "repoType": string(p.repo.kind())}
	_, err = p.c.call(ctx, http.MethodPost, p.c.endpoint+"/api/validate-yaml", q, &answer)
	var e *Error
	if errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed) {
		p.c.log.Warn("the server cannot check README.md")
		return nil
	}
	for _, w := range answer.Warnings {
		p.c.log.Warn("README.md: " + w.Message)
	}
	if err != nil {
		return fmt.Errorf("checking README.md: %w", err)
	}
	return nil
}
