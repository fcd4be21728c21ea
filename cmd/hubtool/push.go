package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/hub"
)

func (e *env) pushCommand() *cli.Command {
	var opts hub.PushOptions
	var jobs int
	return &cli.Command{
		Name:      "push",
		Usage:     "send a folder or a file to a repository, as one commit",
		ArgsUsage: "PATH REPO",
		Description: "Creates the repository and the branch where they do not exist, and prints the commit's address. What\n" +
			"the repository has is not sent again, so an interrupted push goes on where it was. A README.md that train\n" +
			"has written does not replace one that a person has written there: its front matter joins that.",
		Flags: append(repoFlags(),
			&cli.StringFlag{Name: "path-in-repo", Usage: "put it there: a folder, or the name for a single file", Destination: &opts.PathInRepo},
			&cli.StringSliceFlag{Name: "include", Usage: "only files that match `GLOB`, where * matches / too; may be repeated"},
			&cli.StringSliceFlag{Name: "exclude", Usage: "not the files that match `GLOB`; may be repeated"},
			&cli.StringSliceFlag{Name: "delete", Usage: "remove files that match `GLOB` and are not being sent; may be repeated"},
			&cli.BoolFlag{Name: "private", Usage: "make the repository private if it is created", Destination: &opts.Private},
			&cli.BoolFlag{Name: "create-pr", Usage: "open a pull request with the commit", Destination: &opts.CreatePR},
			&cli.StringFlag{Name: "message", Usage: "first line of the commit's message", Destination: &opts.Message},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be sent and removed", Destination: &opts.DryRun},
			transferJobs(&jobs),
		),
		Action: func(c *cli.Context) error {
			opts.Card = joinCards
			opts.Include, opts.Exclude, opts.Delete = c.StringSlice("include"), c.StringSlice("exclude"), c.StringSlice("delete")
			return e.push(c, opts, jobs)
		},
	}
}

func (e *env) push(c *cli.Context, opts hub.PushOptions, jobs int) error {
	path, name := c.Args().Get(0), c.Args().Get(1)
	if _, err := os.Stat(path); err != nil {
		err = fmt.Errorf("pushing %q: %w", path, cause(err))
		if _, swapped := os.Stat(name); swapped == nil {
			return withHint(err, "the path comes first: hubtool push %s %s", name, path)
		}
		return err
	}
	r, err := repo(c, name)
	if err != nil {
		return err
	}
	client, err := e.client(hub.WithJobs(jobs))
	if err != nil {
		return err
	}
	commit, err := client.Push(c.Context, r, path, opts)
	if errors.Is(err, hub.ErrOffline) {
		return withHint(err, "pushing needs the Hub: run it without --offline and HF_HUB_OFFLINE")
	}
	if err != nil {
		return err
	}
	if commit.PullRequest != "" {
		e.note("opened the pull request %s", commit.PullRequest)
	}
	return e.result(func(w io.Writer) {
		if !opts.DryRun {
			fmt.Fprintln(w, commit.URL)
			return
		}
		for _, list := range []struct {
			what  string
			names []string
		}{{"send", commit.Uploaded}, {"skip", commit.Skipped}, {"delete", commit.Deleted}} {
			for _, name := range list.names {
				fmt.Fprintf(w, "%-6s  %s\n", list.what, oneLine(name))
			}
		}
	}, newPushReport(commit))
}

type pushReport struct {
	Repo        string   `json:"repo"`
	Commit      string   `json:"commit"`
	URL         string   `json:"url"`
	PullRequest *string  `json:"pull_request"`
	Uploaded    []string `json:"uploaded"`
	Skipped     []string `json:"skipped"`
	Deleted     []string `json:"deleted"`
	Sent        int64    `json:"bytes_sent"`
}

func newPushReport(c *hub.Commit) pushReport {
	r := pushReport{Repo: c.Repo.ID, Commit: c.OID, URL: c.URL, Uploaded: orEmpty(c.Uploaded), Skipped: orEmpty(c.Skipped), Deleted: orEmpty(c.Deleted), Sent: c.Sent}
	if c.PullRequest != "" {
		r.PullRequest = &c.PullRequest
	}
	return r
}
