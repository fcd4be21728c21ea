package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/hub"
)

func (e *env) cacheCommand() *cli.Command {
	repoType := &cli.StringFlag{Name: "repo-type", Usage: "model or dataset (default: model, or what hf:// says)"}
	dataSize := Bytes(-1)
	removing := []cli.Flag{
		&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"},
		&cli.BoolFlag{Name: "dry-run", Usage: "say what would be removed"},
	}
	return &cli.Command{
		Name:  "cache",
		Usage: "look after the cache that Python shares",
		Subcommands: []*cli.Command{
			{Name: "ls", Usage: "list what the cache holds, largest first, and the images made from data sets, newest first", Action: func(*cli.Context) error { return e.cacheList() }},
			{
				Name: "verify", Usage: "hash cached files and compare them with the Hub's listing", ArgsUsage: "[REF...]",
				Description: "Without REF everything in the cache is verified. A damaged file is exit code 6, one that differs\nfrom the Hub 8; files that were never pulled are no fault.",
				Flags:       []cli.Flag{repoType, &cli.StringFlag{Name: "local-dir", Usage: "verify the files in `DIR`, which REF was pulled to"}},
				Action:      e.cacheVerify,
			},
			{
				Name: "rm", Usage: "remove repositories, with REF@REVISION single revisions, or images by the name that ls shows", ArgsUsage: "REF...",
				Flags: append(removing, repoType),
				Action: func(c *cli.Context) error {
					return e.cacheRemove(c, func(r *hub.CacheReport) (cacheRemoval, error) { return e.planRemoval(c, r) })
				},
			},
			{
				Name: "prune", Usage: "remove revisions that no branch or tag means, and what dead downloads and pushed merges left",
				Flags: append(removing, &cli.GenericFlag{Name: "data-size", Value: textFlag{&dataSize}, Usage: "also remove images made from data sets, those used longest ago first, until they take `SIZE`"}),
				Action: func(c *cli.Context) error {
					return e.cacheRemove(c, func(r *hub.CacheReport) (cacheRemoval, error) {
						size := int64(dataSize)
						if size < 0 {
							size = math.MaxInt64
						}
						images, err := e.dataCache(0).Shrink(size, true)
						if err != nil {
							return cacheRemoval{}, err
						}
						merges, err := e.abandonedMerges()
						return cacheRemoval{r.PlanPrune(), images, merges}, err
					})
				},
			},
		},
	}
}

// repos reads all operands as repositories.
func repos(c *cli.Context) ([]hub.Repo, error) {
	var list []hub.Repo
	for _, name := range c.Args().Slice() {
		r, err := repo(c, name)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

type cachedRepo struct {
	Repo      string           `json:"repo"`
	Type      hub.RepoType     `json:"type"`
	Path      string           `json:"path"`
	Size      int64            `json:"size"`
	Modified  time.Time        `json:"modified"`
	Revisions []cachedRevision `json:"revisions"`
	Partial   []string         `json:"partial"`
	Broken    []string         `json:"broken"`
}

type cachedRevision struct {
	Commit string   `json:"commit"`
	Refs   []string `json:"refs"`
	Path   string   `json:"path"`
	Size   int64    `json:"size"`
	Files  int      `json:"files"`
}

func (e *env) scan() (*hub.CacheReport, error) {
	client, err := e.client()
	if err != nil {
		return nil, err
	}
	return client.ScanCache()
}

func (e *env) cacheList() error {
	found, err := e.scan()
	if err != nil {
		return err
	}
	for _, warning := range found.Warnings {
		e.note("%v", warning)
	}
	images, err := e.dataCache(0).Entries()
	if err != nil {
		return err
	}
	merges, err := e.pendingMerges()
	if err != nil {
		return err
	}
	report := struct {
		Path     string         `json:"path"`
		Size     int64          `json:"size"`
		Repos    []cachedRepo   `json:"repos"`
		Images   cachedImages   `json:"images"`
		Merges   []pendingMerge `json:"merges"`
		Warnings []string       `json:"warnings"`
	}{found.Dir, found.Size, []cachedRepo{}, newCachedImages(e.dataCache(0).Dir, images), orEmpty(merges), []string{}}
	for _, w := range found.Warnings {
		report.Warnings = append(report.Warnings, w.Error())
	}
	for _, r := range found.Repos {
		c := cachedRepo{r.Repo.ID, r.Repo.Type, r.Dir, r.Size, r.Modified, []cachedRevision{}, orEmpty(r.Partial), orEmpty(r.Broken)}
		for _, v := range r.Revisions {
			c.Revisions = append(c.Revisions, cachedRevision{v.Commit, orEmpty(v.Refs), v.Dir, v.Size, v.Files})
		}
		report.Repos = append(report.Repos, c)
	}
	return e.result(func(w io.Writer) {
		for i, r := range report.Repos {
			fmt.Fprintf(w, "%10s  %s\n", byteSize(r.Size), found.Repos[i].Repo)
			for _, v := range r.Revisions {
				fmt.Fprintf(w, "%10s    %.12s %3d files  %s\n", byteSize(v.Size), v.Commit, v.Files, strings.Join(v.Refs, ", "))
			}
			if n := len(r.Partial) + len(r.Broken); n > 0 {
				fmt.Fprintf(w, "%10s    %d files unfinished or broken\n", "", n)
			}
		}
		fmt.Fprintf(w, "%10s  in %s\n", byteSize(report.Size), report.Path)
		report.Images.text(w)
		if len(merges) > 0 {
			fmt.Fprintln(w)
		}
		for _, m := range merges {
			fmt.Fprintln(w, m)
		}
	}, report)
}

type mismatch struct {
	Name string `json:"name"`
	Want string `json:"want"`
	Got  string `json:"got"`
}

type verifiedRepo struct {
	Repo      string       `json:"repo"`
	Type      hub.RepoType `json:"type"`
	Commit    string       `json:"commit"`
	Path      string       `json:"path"`
	Checked   int          `json:"checked"`
	Damaged   []mismatch   `json:"damaged"`
	Different []mismatch   `json:"different"`
	Missing   []string     `json:"missing"`
	Extra     []string     `json:"extra"`
}

func (e *env) cacheVerify(c *cli.Context) error {
	targets, err := repos(c)
	if err != nil {
		return err
	}
	local := c.String("local-dir")
	if local != "" && len(targets) != 1 {
		return usage("verifying files", "--local-dir needs the one REF that was pulled there")
	}
	if len(targets) == 0 {
		found, err := e.scan()
		if err != nil {
			return err
		}
		for _, r := range found.Repos {
			for _, v := range r.Revisions {
				targets = append(targets, hub.Repo{Type: r.Repo.Type, ID: r.Repo.ID, Revision: v.Commit})
			}
		}
	}
	client, err := e.client()
	if err != nil {
		return err
	}
	list := []verifiedRepo{}
	var damaged, different []string
	for _, t := range targets {
		v, err := client.Verify(c.Context, t, local)
		if err != nil {
			return err
		}
		one := verifiedRepo{Repo: v.Repo.ID, Type: v.Repo.Type, Commit: v.Commit, Path: v.Dir, Checked: v.Checked,
			Damaged: []mismatch{}, Different: []mismatch{}, Missing: orEmpty(v.Missing), Extra: orEmpty(v.Extra)}
		for _, m := range v.Damaged {
			one.Damaged = append(one.Damaged, mismatch(m))
			damaged = append(damaged, fmt.Sprintf("%q of %s", m.Name, t))
		}
		for _, m := range v.Different {
			one.Different = append(one.Different, mismatch(m))
			different = append(different, fmt.Sprintf("%q of %s", m.Name, t))
		}
		list = append(list, one)
	}
	if err := e.result(func(w io.Writer) {
		for _, v := range list {
			fmt.Fprintf(w, "%s@%.12s: %d files checked, %d damaged, %d different, %d not here, %d not on the Hub\n",
				v.Repo, v.Commit, v.Checked, len(v.Damaged), len(v.Different), len(v.Missing), len(v.Extra))
		}
	}, map[string]any{"ok": len(damaged)+len(different) == 0, "repos": list}); err != nil {
		return err
	}
	if len(damaged) > 0 {
		return &problemError{is: hub.ErrDamaged, doing: "verifying files: damaged", problems: damaged, hint: "pull again with --force"}
	}
	if len(different) > 0 {
		return checkFailed("verifying files: other content than on the Hub", different...)
	}
	return nil
}

// cacheRemoval is what would be removed from the Hub's cache and from what this program keeps beside it.
type cacheRemoval struct {
	hub    *hub.Removal
	images []dataset.CacheEntry
	merges []pendingMerge
}

func (r cacheRemoval) empty() bool { return r.hub.Empty() && len(r.images)+len(r.merges) == 0 }

func (r cacheRemoval) size() int64 {
	n := r.hub.Freed
	for _, one := range r.images {
		n += one.Size
	}
	for _, one := range r.merges {
		n += one.Size
	}
	return n
}

// cacheRemove does what plan says, after asking.
func (e *env) cacheRemove(c *cli.Context, plan func(*hub.CacheReport) (cacheRemoval, error)) error {
	found, err := e.scan()
	if err != nil {
		return err
	}
	removal, err := plan(found)
	if err != nil {
		return err
	}
	dry, freed := c.Bool("dry-run"), removal.size()
	if !dry && !removal.empty() {
		if err := e.confirm(c.Bool("yes"), "remove %d repositories, %d revisions, %d files of images and %d unfinished merges, %s",
			len(removal.hub.Repos), len(removal.hub.Revisions), len(removal.images), len(removal.merges), byteSize(freed)); err != nil {
			return err
		}
		if err := removal.hub.Run(); err != nil {
			return err
		}
		var keptImages, keptMerges int64
		if removal.images, keptImages, err = e.removeImages(removal.images); err != nil {
			return err
		}
		if removal.merges, keptMerges, err = e.removeMerges(removal.merges); err != nil {
			return err
		}
		freed -= keptImages + keptMerges
	}
	images := []string{}
	for _, one := range removal.images {
		images = append(images, one.Name)
	}
	return e.result(func(w io.Writer) {
		for _, name := range slices.Concat(removal.hub.Repos, removal.hub.Revisions, images) {
			fmt.Fprintln(w, oneLine(name))
		}
		for _, m := range removal.merges {
			fmt.Fprintln(w, m)
		}
		verb := "freed"
		if dry {
			verb = "would free"
		}
		fmt.Fprintf(w, "%s %s\n", verb, byteSize(freed))
	}, map[string]any{
		"removed": !dry, "repos": orEmpty(removal.hub.Repos), "revisions": orEmpty(removal.hub.Revisions),
		"images": images, "merges": orEmpty(removal.merges), "bytes_freed": freed,
	})
}

// confirm asks on a terminal. Elsewhere --yes must have been given.
func (e *env) confirm(yes bool, question string, args ...any) error {
	if yes {
		return nil
	}
	question = fmt.Sprintf(question, args...)
	if !isTerminal(e.in) {
		return usage("asking to "+question, "nobody can answer here; give --yes")
	}
	fmt.Fprintf(e.err, "%s? [y/N] ", question)
	answer, err := bufio.NewReader(e.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("asking to %s: %w", question, err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return fmt.Errorf("asking to %s: the answer was no", question)
	}
	return nil
}
