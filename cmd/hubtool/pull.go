package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/hub"
)

func (e *env) pullCommand() *cli.Command {
	var opts hub.PullOptions
	var jobs int
	return &cli.Command{
		Name:      "pull",
		Usage:     "bring a repository, or files of it, into the cache or a folder",
		ArgsUsage: "REF [FILE...]",
		Description: "Prints the snapshot's directory, or with one FILE that file's path. A FILE that ends in / is a\n" +
			"folder. What is here already is not fetched again, and an interrupted pull goes on where it was.",
		Flags: append(repoFlags(),
			&cli.StringSliceFlag{Name: "include", Usage: "only files that match `GLOB`, where * matches / too; may be repeated"},
			&cli.StringSliceFlag{Name: "exclude", Usage: "not the files that match `GLOB`; may be repeated"},
			&cli.StringFlag{Name: "local-dir", Usage: "put plain files into `DIR` instead of the cache", Destination: &opts.LocalDir},
			transferJobs(&jobs),
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be fetched", Destination: &opts.DryRun},
			&cli.BoolFlag{Name: "force", Usage: "fetch again what is here, and overwrite edited files in --local-dir", Destination: &opts.Force},
		),
		Action: func(c *cli.Context) error {
			opts.Files = c.Args().Tail()
			opts.Include, opts.Exclude = c.StringSlice("include"), c.StringSlice("exclude")
			return e.pull(c, opts, jobs)
		},
	}
}

// repoFlags say which repository a transfer is about, beyond its name.
func repoFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "repo-type", Usage: "model or dataset (default: model, or what hf:// says)"},
		&cli.StringFlag{Name: "revision", Usage: "branch, tag or commit (default: main)"},
	}
}

// transferJobs bounds how much a transfer does at a time.
func transferJobs(to *int) cli.Flag {
	*to = 8
	return count("jobs", "transfers at a time", 1, to)
}

// repo reads a repository's name and the flags about it; they must not contradict each other.
func repo(c *cli.Context, name string) (hub.Repo, error) {
	kind := hub.Model
	var err error
	if given := c.String("repo-type"); given != "" {
		if kind, err = hub.ParseRepoType(given); err != nil {
			return hub.Repo{}, err
		}
	}
	r, err := hub.ParseRepoAs(name, kind)
	if err != nil {
		return hub.Repo{}, err
	}
	if c.IsSet("repo-type") && r.Type != kind {
		return hub.Repo{}, usage("reading the repository's name", fmt.Sprintf("%q is a %s, but --repo-type says %s", name, r.Type, kind))
	}
	if c.IsSet("revision") {
		if r.Revision != "" && r.Revision != c.String("revision") {
			return hub.Repo{}, usage("reading the repository's name", fmt.Sprintf("%q names a revision, and --revision another", name))
		}
		r.Revision = c.String("revision")
	}
	return r, nil
}

type pulledFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	ETag   string `json:"etag"`
	SHA256 string `json:"sha256"`
	Cached bool   `json:"cached"`
	Kept   bool   `json:"kept,omitempty"` // edited by the user, and left alone
}

func (e *env) pull(c *cli.Context, opts hub.PullOptions, jobs int) error {
	r, err := repo(c, c.Args().First())
	if err != nil {
		return err
	}
	client, err := e.client(hub.WithJobs(jobs))
	if err != nil {
		return err
	}
	snap, err := client.Pull(c.Context, r, opts)
	if err != nil {
		return err
	}
	if len(snap.Files) == 0 && len(opts.Include)+len(opts.Exclude) > 0 {
		return withHint(fmt.Errorf("pulling %q: %w: no name fits --include and --exclude", r, hub.ErrEntry), "\"hubtool pull %s --dry-run\" lists the files", r)
	}
	path := snap.Dir
	if len(opts.Files) == 1 && len(snap.Files) == 1 && snap.Files[0].Name == opts.Files[0] {
		path = snap.Files[0].Path
	}
	files := []pulledFile{}
	for _, f := range snap.Files {
		files = append(files, pulledFile{f.Name, f.Size, f.ETag, f.SHA256, f.Cached, f.Kept})
		if f.Kept {
			e.note("keeping %q, which was edited here; --force overwrites it", f.Path)
		}
	}
	revision := r.Revision
	if revision == "" {
		revision = "main"
	}
	return e.result(func(w io.Writer) {
		if !opts.DryRun {
			fmt.Fprintln(w, path)
			return
		}
		for _, f := range files {
			what := "fetch"
			if f.Cached || f.Kept {
				what = "have"
			}
			fmt.Fprintf(w, "%-5s %10s  %s\n", what, byteSize(f.Size), oneLine(f.Name))
		}
	}, struct {
		Repo     string       `json:"repo"`
		Type     hub.RepoType `json:"type"`
		Revision string       `json:"revision"`
		Commit   string       `json:"commit"`
		Path     string       `json:"path"`
		Files    []pulledFile `json:"files"`
		Fetched  int64        `json:"bytes_fetched"`
	}{r.ID, r.Type, revision, snap.Commit, path, files, snap.Fetched})
}
