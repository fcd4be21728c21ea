package hub

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	commitFiles   = 100      // files of one commit that the Hub advises
	commitBytes   = 50 << 20 // content inside one commit
	commitTimeout = 5 * time.Minute
	commitGrace   = 10 * time.Second // for the answer after an interruption
	commitRetries = 3                // times that a moved branch is followed
)

// change is one line of a commit: a file to add, or the name of one to remove.
type change struct {
	upload *upload
	remove string
}

func (ch change) name() string {
	if ch.upload != nil {
		return ch.upload.name
	}
	return ch.remove
}

// commitAll commits the changes, in several commits if they are very many. The
// README goes with the last: a repository without one is recognisably unfinished.
func (p *pushing) commitAll(ctx context.Context) error {
	changes := make([]change, 0, len(p.uploads)+len(p.result.Deleted))
	for _, name := range p.result.Deleted {
		changes = append(changes, change{remove: name})
	}
	var card []change
	for _, u := range p.uploads {
		if u.name == "README.md" {
			card = append(card, change{upload: u})
			continue
		}
		changes = append(changes, change{upload: u})
	}
	groups := split(append(changes, card...))
	for i := 0; i < len(groups); i++ {
		title := p.title()
		if len(groups) > 1 {
			title += fmt.Sprintf(" (part %d of %d)", i+1, len(groups))
		}
		err := p.commitOne(ctx, title, groups[i])
		if errors.Is(err, errTooLarge) && len(groups[i]) > 1 {
			half := len(groups[i]) / 2
			groups = slices.Replace(groups, i, i+1, groups[i][:half], groups[i][half:])
			i--
			continue
		}
		if err != nil {
			return fmt.Errorf("committing: %w", err)
		}
		for _, ch := range groups[i] {
			if u := ch.upload; u != nil && !u.lfs {
				p.c.report(Event{File: u.name, State: Done, Done: u.size, Total: u.size})
			}
		}
	}
	return nil
}

func (p *pushing) title() string {
	if p.opts.Message != "" {
		return p.opts.Message
	}
	if len(p.uploads) == 1 {
		return "Upload " + p.uploads[0].name + " with hubtool"
	}
	return "Upload files with hubtool"
}

func split(changes []change) [][]change {
	var groups [][]change
	var size int64
	for _, ch := range changes {
		var n int64
		if ch.upload != nil && !ch.upload.lfs {
			n = ch.upload.size
		}
		last := len(groups) - 1
		if last < 0 || len(groups[last]) == commitFiles || size+n > commitBytes {
			groups, size, last = append(groups, nil), 0, last+1
		}
		groups[last] = append(groups[last], ch)
		size += n
	}
	return groups
}

// commitOne sends one commit until it is certain to have happened or not.
func (p *pushing) commitOne(ctx context.Context, title string, changes []change) error {
	for attempt := 0; ; attempt++ {
		body, err := p.commitBody(title, changes)
		if err != nil {
			return err
		}
		answer, err := p.postCommit(ctx, body)
		if err == nil {
			return p.committed(answer)
		}
		var e *Error
		if !errors.As(err, &e) || ctx.Err() != nil || attempt >= commitRetries {
			return err
		}
		refused := e.Status != 0 && e.Status < 500 && e.Status != http.StatusRequestTimeout
		switch {
		case e.Status == http.StatusTooManyRequests:
		case e.Status == http.StatusPreconditionFailed, e.Status == http.StatusConflict:
			landed, err := p.follow(ctx, changes)
			if err != nil || landed {
				return err
			}
		case refused:
			return err
		case p.opts.CreatePR:
			return fmt.Errorf("%w; it is unknown whether the pull request was opened: look at %s/discussions before pushing again",
				err, strings.TrimSuffix(p.commitURL(""), "/commit/"))
		default:
			p.c.log.Warn("no answer to the commit; looking whether it happened", "error", err)
			landed, err := p.follow(ctx, changes)
			if err != nil || landed {
				return err
			}
		}
		if err := sleep(ctx, p.c.retryPause(err, attempt)); err != nil {
			return err
		}
	}
}

// commitBody writes the commit's lines. Content is read and checked again here: a
// file that changed since it was hashed must not be sent as what it was.
func (p *pushing) commitBody(title string, changes []change) ([]byte, error) {
	type line struct {
		Key   string `json:"key"`
		Value any    `json:"value"`
	}
	header := map[string]string{"summary": title, "description": p.opts.Description}
	if p.head != "" {
		header["parentCommit"] = p.head
	}
	var buf bytes.Buffer
	lines := []line{{"header", header}}
	for _, ch := range changes {
		switch u := ch.upload; {
		case u == nil:
			lines = append(lines, line{"deletedFile", map[string]string{"path": ch.remove}})
		case u.lfs:
			lines = append(lines, line{"lfsFile", map[string]any{"path": u.name, "algo": "sha256", "oid": u.sha256, "size": u.size}})
		default:
			data, err := os.ReadFile(u.local)
			if err != nil {
				return nil, err
			}
			h := newHash(u.git, int64(len(data)))
			h.Write(data)
			if fmt.Sprintf("%x", h.Sum(nil)) != u.git {
				return nil, fmt.Errorf("%w: %q changed while it was being pushed; push again", ErrConflict, u.local)
			}
			lines = append(lines, line{"file", map[string]string{
				"content": base64.StdEncoding.EncodeToString(data), "path": u.name, "encoding": "base64"}})
			p.result.Sent += u.size
		}
	}
	for _, l := range lines {
		if err := jsonLine(&buf, l); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), nil
}

type commitAnswer struct {
	URL         string `json:"commitUrl"`
	OID         string `json:"commitOid"`
	PullRequest string `json:"pullRequestUrl"`
}

// postCommit sends a commit once: whether to send it again is for commitOne. An
// interruption does not tear it apart but leaves it a while to be answered, because
// afterwards nobody would know whether it happened.
func (p *pushing) postCommit(interrupted context.Context, body []byte) (*commitAnswer, error) {
	if err := interrupted.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(interrupted))
	defer cancel(nil)
	timeout := time.AfterFunc(commitTimeout, func() { cancel(errIdle) })
	defer timeout.Stop()
	history := strings.Replace(p.commitURL(p.repo.Revision), "/commit/", "/commits/", 1)
	defer context.AfterFunc(interrupted, func() {
		timeout.Reset(commitGrace)
		p.c.log.Warn("waiting for the answer to the commit; interrupted again, look here whether it happened", "url", history)
	})()
	answer, err := p.sendCommit(ctx, body)
	if err != nil && interrupted.Err() != nil {
		return nil, fmt.Errorf("%w; it is unknown whether the commit happened: look at %s before pushing again",
			context.Cause(interrupted), history)
	}
	return answer, err
}

func (p *pushing) sendCommit(ctx context.Context, body []byte) (*commitAnswer, error) {
	address := p.c.apiURL(p.repo, "commit", p.repo.Revision) + p.prQuery()
	resp, err := stream(ctx, p.c.body, http.MethodPost, address, map[string]string{"Content-Type": "application/x-ndjson"}, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, p.c.failed(resp)
	}
	defer resp.Body.Close()
	var answer commitAnswer
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, requestError(http.MethodPost, address, err)
	}
	return &answer, nil
}

// committed takes the answer over; what follows builds on it.
func (p *pushing) committed(a *commitAnswer) error {
	p.result.OID, p.result.URL, p.head = a.OID, a.URL, a.OID
	if p.result.URL == "" {
		p.result.URL = p.commitURL(a.OID)
	}
	if !p.opts.CreatePR {
		return nil
	}
	n, err := strconv.Atoi(path.Base(a.PullRequest))
	if err != nil {
		return fmt.Errorf("%w: the commit %s was made, but the server does not say on which pull request", ErrNetwork, a.OID)
	}
	p.result.PullRequest = a.PullRequest
	p.opts.CreatePR = false // further parts go to the same one
	p.repo.Revision = fmt.Sprintf("refs/pr/%d", n)
	return nil
}
