package hub

import (
	"context"
	"fmt"
	"strings"
)

// follow looks where the branch is after a commit that was refused or not
// answered. If the branch has our content, the commit has landed; if it has moved
// without touching our files, the commit can be tried on top.
func (p *pushing) follow(ctx context.Context, changes []change) (landed bool, err error) {
	info, err := p.c.info(ctx, p.repo)
	if err != nil {
		return false, err
	}
	if info.SHA == p.head {
		return false, nil
	}
	before, err := p.contents(ctx, p.head, changes)
	if err != nil {
		return false, err
	}
	after, err := p.contents(ctx, info.SHA, changes)
	if err != nil {
		return false, err
	}
	landed = true
	var touched []string
	for _, ch := range changes {
		want := ""
		if u := ch.upload; u != nil {
			want = u.git + u.sha256 // only one of them is set
		}
		if after[ch.name()] != want {
			landed = false
		}
		if after[ch.name()] != before[ch.name()] {
			touched = append(touched, fmt.Sprintf("%q", ch.name()))
		}
	}
	if landed {
		p.c.log.Info("the commit is there", "commit", info.SHA)
		return true, p.committed(&commitAnswer{OID: info.SHA})
	}
	if len(touched) > 0 {
		return false, fmt.Errorf("%w: somebody else changed %s meanwhile; pull, then push again", ErrConflict, strings.Join(touched, ", "))
	}
	p.head = info.SHA
	return false, nil
}

// contents is what a commit has under the changes' names.
func (p *pushing) contents(ctx context.Context, commit string, changes []change) (map[string]string, error) {
	wanted := map[string]bool{}
	for _, ch := range changes {
		wanted[ch.name()] = true
	}
	out := map[string]string{}
	for f, err := range p.c.Files(ctx, p.repo.at(commit)) {
		if err != nil {
			return nil, err
		}
		if wanted[f.Path] {
			out[f.Path] = f.ETag()
		}
	}
	return out, nil
}
