package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/hub"
)

func (e *env) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:        "doctor",
		Usage:       "look at the program's surroundings, and say what to do about problems",
		Description: "Asks the Hub one question, unless --offline is given. Finding a problem is no failure.",
		Action: func(c *cli.Context) error {
			checks := e.diagnose(c.Context)
			if err := c.Context.Err(); err != nil {
				return err
			}
			return e.result(func(w io.Writer) {
				for _, k := range checks {
					fmt.Fprintf(w, "%-8s %-9s %s\n", k.Status, k.Name, oneLine(k.Found))
					if k.Advice != "" {
						fmt.Fprintf(w, "%-8s %-9s %s\n", "", "", oneLine(k.Advice))
					}
				}
			}, map[string][]check{"checks": checks})
		},
	}
}

type check struct {
	Name   string `json:"name"`
	Status string `json:"status"` // "ok", "note" or "problem"
	Found  string `json:"found"`
	Advice string `json:"advice"`
}

func (e *env) diagnose(ctx context.Context) []check {
	b := buildInfo()
	checks := []check{
		{"version", "ok", strings.Join(strings.Fields(b.Version+" "+b.Commit+" "+b.Go+" "+b.Platform), " "), ""},
		{"cpu", "ok", strings.Join(b.CPUFeatures, " "), ""},
	}
	if !b.SIMD {
		checks[1].Status, checks[1].Advice = "note", "the Go engine has vector kernels for AVX2 and AVX-512 only and is slow without; use XLA or another machine"
	}
	checks = append(checks, check{"build", "ok", fmt.Sprintf("kernels %s, xla %s", cmp.Or(b.Kernel, "none"), yesNo(b.XLA)), ""})
	for _, g := range e.listEngines(ctx) {
		status, advice := "ok", ""
		switch {
		case !g.Usable && g.named:
			status, advice = "problem", "HUBTOOL_ENGINE or GOMLX_BACKEND names it, and every command that computes fails: correct or unset that"
		case !g.Usable:
			status, advice = "note", "only needed for speed; \"hubtool engine install cpu\" (or cuda12, cuda13) gets a plugin, --engine go works everywhere"
		}
		checks = append(checks, check{"engine", status, g.about(), advice})
	}
	client, err := e.client()
	if err != nil {
		return append(checks, check{"hub", "problem", err.Error(), "correct the flag or variable named there"})
	}
	return append(checks, cacheCheck(client.CacheDir()), tokenCheck(client), e.endpointCheck(ctx, client))
}

// cacheCheck writes into the cache, or into the nearest folder above it that exists.
func cacheCheck(dir string) check {
	k := check{"cache", "ok", dir, ""}
	existing := dir
	for {
		if _, err := os.Stat(existing); err == nil || existing == filepath.Dir(existing) {
			break
		}
		existing = filepath.Dir(existing)
	}
	f, err := os.CreateTemp(existing, ".hubtool-doctor-")
	if err != nil {
		k.Status, k.Found, k.Advice = "problem", err.Error(), "choose a folder that can be written with --cache-dir or HF_HUB_CACHE"
		return k
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		k.Status, k.Found = "problem", err.Error()
		return k
	}
	if free, ok := freeSpace(existing); ok {
		k.Found += ", " + byteSize(free) + " free"
		if free < 2e9 {
			k.Status, k.Advice = "note", "models need more; free some space, or move the cache with --cache-dir"
		}
	}
	return k
}

func tokenCheck(client *hub.Client) check {
	if source := client.TokenSource(); source != "" {
		return check{"token", "ok", "from " + source, ""}
	}
	return check{"token", "note", "none", "needed to push, and for private and gated repositories: hubtool login"}
}

// endpointCheck asks the Hub, or says that nothing may be asked. A refusal is an answer.
func (e *env) endpointCheck(ctx context.Context, client *hub.Client) check {
	k := check{"endpoint", "ok", client.Endpoint(), ""}
	if e.offline || envBool("HF_HUB_OFFLINE") || envBool("TRANSFORMERS_OFFLINE") {
		k.Status, k.Found = "note", k.Found+", not asked: offline"
		return k
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	start := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, client.Endpoint()+"/api/whoami-v2", nil)
	if err == nil {
		var resp *http.Response
		if resp, err = http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			k.Found += fmt.Sprintf(", answers after %d ms", time.Since(start).Milliseconds())
			return k
		}
	}
	k.Status, k.Found, k.Advice = "problem", err.Error(), "check the network, HTTPS_PROXY and HF_ENDPOINT; --offline works with what is in the cache"
	return k
}
