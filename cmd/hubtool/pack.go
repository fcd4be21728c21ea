package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/hub"
)

func (e *env) packCommand() *cli.Command {
	var jobs int
	return &cli.Command{
		Name:        "pack",
		Usage:       "put repositories into one file, for machines without a network",
		ArgsUsage:   "REF...",
		Description: "\"hubtool unpack\" fills a cache with it. The same commits give the same bytes.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write to `FILE`", Required: true},
			&cli.StringFlag{Name: "repo-type", Usage: "model or dataset (default: model, or what hf:// says)"},
			&cli.StringSliceFlag{Name: "include", Usage: "only files that match `GLOB`, where * matches / too; may be repeated"},
			&cli.StringSliceFlag{Name: "exclude", Usage: "not the files that match `GLOB`; may be repeated"},
			transferJobs(&jobs),
			&cli.BoolFlag{Name: "force", Usage: "overwrite FILE"},
		},
		Action: func(c *cli.Context) error { return e.pack(c, jobs) },
	}
}

func (e *env) pack(c *cli.Context, jobs int) error {
	targets, err := repos(c)
	if err != nil {
		return err
	}
	out := c.String("out")
	if _, err := os.Lstat(out); err == nil && !c.Bool("force") {
		return usage("packing", fmt.Sprintf("%q exists; --force overwrites it", out))
	}
	client, err := e.client(hub.WithJobs(jobs))
	if err != nil {
		return err
	}
	var lock *hub.Lock
	err = replaceFile(out, func(w io.Writer) (err error) {
		lock, err = client.Pack(c.Context, w, targets, hub.PullOptions{Include: c.StringSlice("include"), Exclude: c.StringSlice("exclude")})
		return err
	})
	if err != nil {
		return err
	}
	return e.result(func(w io.Writer) { fmt.Fprintln(w, out) }, map[string]any{"path": out, "repos": lock.Repos})
}

// replaceFile writes a file under a temporary name beside it, and gives it its name when it is
// complete and on the disk.
func replaceFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.partial")
	if err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	err = write(f)
	if err == nil {
		err = errors.Join(f.Sync(), f.Chmod(0o644))
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		if gone := os.Remove(f.Name()); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return err
	}
	return nil
}

func (e *env) unpackCommand() *cli.Command {
	return &cli.Command{
		Name:      "unpack",
		Usage:     "fill the cache from a file that pack wrote",
		ArgsUsage: "FILE.tar",
		Description: "Prints the snapshots' directories. Every content is checked, and no request is made. FILE.tar may\n" +
			"be - for stdin.",
		Action: e.unpack,
	}
}

type unpackedRepo struct {
	Repo   string       `json:"repo"`
	Type   hub.RepoType `json:"type"`
	Commit string       `json:"commit"`
	Path   string       `json:"path"`
}

func (e *env) unpack(c *cli.Context) error {
	in, name := e.in, c.Args().First()
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("unpacking %q: %w", name, cause(err))
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.IsDir() {
			return fmt.Errorf("unpacking %q: %w", name, syscall.EISDIR)
		}
		in = f
	}
	client, err := e.client()
	if err != nil {
		return err
	}
	snaps, err := client.Unpack(c.Context, in)
	if errors.Is(err, hub.ErrDamaged) {
		return withHint(err, "copy the bundle again, or make it again with \"hubtool pack\"")
	}
	if err != nil {
		return err
	}
	list := []unpackedRepo{}
	for _, s := range snaps {
		list = append(list, unpackedRepo{s.Repo.ID, s.Repo.Type, s.Commit, s.Dir})
	}
	return e.result(func(w io.Writer) {
		for _, s := range list {
			fmt.Fprintln(w, s.Path)
		}
	}, map[string][]unpackedRepo{"repos": list})
}
