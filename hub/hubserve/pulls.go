package hubserve

import (
	"net/http"
	"strconv"
)

// discussions lists the pull requests, or describes one. Only those exist here, no
// plain discussions.
func (r *request) discussions() error {
	r.s.mu.RLock()
	defer r.s.mu.RUnlock()
	rp, err := r.readable()
	if err != nil {
		return err
	}
	if len(r.args) > 0 {
		n, _ := strconv.Atoi(r.args[0])
		if n < 1 || n > len(rp.Pulls) {
			return fail(http.StatusNotFound, "", "no such discussion")
		}
		return r.answer(r.describePull(rp, n))
	}
	list := []any{}
	for n := len(rp.Pulls); n > 0; n-- {
		list = append(list, r.describePull(rp, n))
	}
	return r.answer(map[string]any{"discussions": list, "count": len(list), "start": 0})
}

func (r *request) describePull(rp *repo, n int) map[string]any {
	p := rp.Pulls[n-1]
	return map[string]any{
		"num": n, "title": p.Title, "status": p.Status, "isPullRequest": true, "createdAt": p.Created,
		"author": map[string]string{"name": r.s.user}, "repo": map[string]string{"name": rp.ID, "type": rp.Type},
		"changes": map[string]string{"base": "refs/heads/" + p.Base}, "filesWithConflicts": []any{}, "diff": "",
		"events": []any{map[string]any{
			"id": "1", "type": "comment", "createdAt": p.Created, "author": map[string]string{"name": r.s.user},
			"data": map[string]any{"edited": false, "hidden": false, "latest": map[string]string{"raw": p.Description}},
		}},
	}
}

// openPull opens a pull request without changes, or merges one.
func (r *request) openPull() error {
	if len(r.args) == 2 && r.args[1] == "merge" {
		return r.mergePull()
	}
	var q struct {
		Title       string `json:"title"`
		Description string `json:"description"`
		PullRequest bool   `json:"pullRequest"`
	}
	if err := r.decode(&q); err != nil {
		return err
	}
	if !q.PullRequest || len(r.args) > 0 {
		return fail(http.StatusBadRequest, "", "this Hub has pull requests only, no discussions")
	}
	var n int
	err := r.change(func(rp *repo) error {
		n = rp.openPull(pull{Title: q.Title, Description: q.Description, Base: "main", Head: rp.Branches["main"], Created: r.s.now()})
		return nil
	})
	if err != nil {
		return err
	}
	return r.answer(map[string]any{"num": n, "url": r.repoURL(r.kind, r.id) + "/discussions/" + strconv.Itoa(n)})
}

func (r *repo) openPull(p pull) (number int) {
	p.Status = "open"
	r.Pulls = append(r.Pulls, p)
	return len(r.Pulls)
}

// mergePull brings a pull request's changes to its branch. If the branch has moved
// since, the changes must not touch a path that has changed there.
func (r *request) mergePull() error {
	err := r.change(func(rp *repo) error {
		p := rp.pullOf("refs/pr/" + r.args[0])
		if p == nil || p.Status != "open" {
			return fail(http.StatusNotFound, "", "no such open pull request")
		}
		theirs, err := r.s.loadCommit(rp, p.Head)
		if err != nil {
			return err
		}
		if rp.Branches[p.Base] != theirs.Parent && rp.Branches[p.Base] != theirs.ID {
			return fail(http.StatusConflict, "", "the branch has moved since; push the changes again")
		}
		rp.Branches[p.Base], p.Status = theirs.ID, "merged"
		return nil
	})
	if err != nil {
		return err
	}
	return r.answer("OK")
}
