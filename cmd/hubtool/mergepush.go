package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/hub"
)

// mergePush is where a merge is pushed to.
type mergePush struct {
	repo    hub.Repo
	options hub.PushOptions
	card    mergeCard

	client *hub.Client
	draft  *hub.Draft
	commit *hub.Commit // when it is done
}

// openPush reads where a merge is pushed to and, unless it is a dry run, makes sure that the repository
// is there and may be written to.
func (e *env) openPush(ctx context.Context, p *mergePush, o mergeOptions) (err error) {
	if p.repo, err = hub.ParseRepoAs(o.push, hub.Model); err != nil || o.dryRun {
		return err
	}
	p.options = o.options
	if p.options.Message == "" {
		p.options.Message = "Merge " + strings.Join(p.card.names(), ", ")
	}
	if p.client, err = e.client(); err != nil {
		return err
	}
	if p.draft, err = p.client.Draft(ctx, p.repo, p.options); err != nil {
		return err
	}
	p.repo.ID = p.draft.Repo().ID // the present name of one that has moved
	return nil
}

// writeCard puts a model card beside merged files, unless there is one, here or in the repository.
func (p *mergePush) writeCard(ctx context.Context, dir string) error {
	path := filepath.Join(dir, "README.md")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for f, err := range p.client.Files(ctx, p.repo) {
		if err != nil {
			return err
		}
		if f.Path == "README.md" {
			return nil
		}
	}
	card, err := p.card.text(p.repo.ID)
	if err != nil {
		return fmt.Errorf("writing the model card: %w", err)
	}
	return format.WriteFileAtomic(path, card)
}

// pushMerged pushes what a merge wrote into a folder.
func (e *env) pushMerged(ctx context.Context, p *mergePush, dir string) error {
	err := p.writeCard(ctx, dir)
	if err == nil {
		p.commit, err = p.client.Push(ctx, p.repo, dir, p.options)
	}
	e.endProgress()
	if err != nil {
		again := []string{"hubtool", "push", dir, p.repo.ID}
		if p.repo.Revision != "" {
			again = append(again, "--revision", p.repo.Revision)
		}
		if p.options.CreatePR {
			again = append(again, "--create-pr")
		}
		return withHint(err, "the merged model is complete in %q; this sends it: %s", dir, shellLine(again))
	}
	return nil
}

// mergeSend merges and pushes with at most one file of weights on this disk. What it needs to go on
// after a failure stays in the program's cache; again is the command that does so.
func (e *env) mergeSend(ctx context.Context, plan *adapters.MergePlan, p *mergePush, again string) (result adapters.MergeResult, err error) {
	name := fmt.Sprintf("%x", sha256.Sum256([]byte(p.client.Endpoint()+" "+p.repo.String()+" "+again)))[:16]
	pending := pendingMerge{Name: name, Path: filepath.Join(e.mergesDir(), name)}
	held, err := pending.hold()
	if err != nil {
		return result, fmt.Errorf("merging in %q: %w", pending.Path, err)
	}
	defer held.Close()
	rest, result, err := plan.Send(ctx, filepath.Join(pending.Path, mergeWork), draftStore{p.draft})
	if err == nil {
		err = p.writeCard(ctx, rest)
	}
	if err == nil {
		p.commit, err = p.draft.Commit(ctx, rest)
	}
	e.endProgress()
	switch {
	case err == nil:
		return result, pending.remove(held)
	case errors.Is(err, adapters.ErrNonFinite): // it will be no other way the next time
		return result, errors.Join(err, pending.remove(held))
	}
	return result, withHint(err, "what the Hub has by now is not sent again; this goes on: %s", again)
}

// draftStore keeps merged files in a draft of a commit.
type draftStore struct{ *hub.Draft }

func (d draftStore) Has(ctx context.Context, s adapters.MergedShard) (bool, error) {
	return d.Draft.Has(ctx, s.Name, s.SHA256, s.Size)
}

func (d draftStore) Put(ctx context.Context, s adapters.MergedShard, path string) error {
	return d.Draft.Put(ctx, s.Name, s.SHA256, path)
}

// command is the command line of a merge that is pushed, for the user to repeat.
func (o mergeOptions) command(refs []string) string {
	words := append([]string{"hubtool", "merge"}, refs...)
	for _, f := range []struct{ name, value, unless string }{
		{"--base", o.base, ""}, {"--rounding", o.rounding, "peft"}, {"--shard-size", o.shardSize, "keep"},
		{"--push", o.push, ""}, {"--message", o.options.Message, ""},
	} {
		if f.value != "" && f.value != f.unless {
			words = append(words, f.name, f.value)
		}
	}
	for _, f := range []struct {
		name string
		on   bool
	}{{"--stream", o.stream}, {"--untie", o.untie}, {"--allow-missing", o.allowMissing}, {"--allow-nonfinite-base", o.allowNonFinite}, {"--private", o.options.Private}, {"--create-pr", o.options.CreatePR}} {
		if f.on {
			words = append(words, f.name)
		}
	}
	return shellLine(words)
}

// shellLine writes words so that a shell reads them back.
func shellLine(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.ContainsFunc(w, func(c rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@=+,", c)
		}) {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// mergeCard is what the card of a merged model says.
type mergeCard struct {
	base     *weights
	adapters []string
	rounding string
}

// names are the adapters without paths of this machine, which are nobody's business.
func (c mergeCard) names() []string {
	list := make([]string, len(c.adapters))
	for i, ref := range c.adapters {
		list[i] = ref
		if _, err := os.Stat(ref); err == nil || isPath(ref) {
			list[i] = filepath.Base(ref)
		}
	}
	return list
}

// inherited are fields of the base's card that hold for a merged model as well.
var inherited = []string{"license", "license_name", "license_link", "language", "pipeline_tag"}

func (c mergeCard) text(name string) ([]byte, error) {
	front := map[string]any{"library_name": "transformers", "tags": []string{"merge", "peft"}}
	base := "a local model"
	if id := c.base.repo.ID; id != "" {
		base = "`" + id + "`"
		front["base_model"], front["base_model_relation"] = id, "finetune"
	}
	fields, err := frontMatter(filepath.Join(c.base.dir, "README.md"))
	if err != nil {
		return nil, err
	}
	for _, key := range inherited {
		if value, ok := fields[key]; ok {
			front[key] = value
		}
	}
	head, err := yaml.Dump(front)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "---\n%s---\n\n# %s\n\n", head, name)
	fmt.Fprintf(&b, "%s with the adapter `%s` merged into its weights by `hubtool merge --rounding %s`.\n",
		base, strings.Join(c.names(), "`, `"), c.rounding)
	return b.Bytes(), nil
}

// frontMatter reads what a model card says between its first two lines of dashes. A card without it,
// or with one that is no YAML, says nothing.
func frontMatter(path string) (map[string]any, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	fields, _ := splitCard(text)
	return fields, nil
}
