package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/hubtool/hubtool/hub"
)

// client returns a Hub client that obeys the global flags; what they leave open, hub.New takes
// from the environment.
func (e *env) client(more ...hub.Option) (*hub.Client, error) {
	b := buildInfo()
	opts := []hub.Option{hub.WithUserAgent("hubtool/" + strings.Trim(b.Version, "()")), hub.WithLogger(e.logger()), hub.WithProgress(e.transfers())}
	if e.endpoint != "" {
		opts = append(opts, hub.WithEndpoint(e.endpoint))
	}
	if e.cacheDir != "" {
		opts = append(opts, hub.WithCacheDir(e.cacheDir))
	}
	if e.offline || e.ownHub {
		opts = append(opts, hub.WithOffline(e.offline)) // over HF_HUB_OFFLINE
	}
	token, err := e.givenToken()
	if err != nil {
		return nil, err
	}
	if token != "" {
		opts = append(opts, hub.WithToken(token))
	}
	return hub.New(append(opts, more...)...)
}

// givenToken is the token of --token or --token-file, or "".
func (e *env) givenToken() (string, error) {
	if e.tokenFile == "" {
		return e.token, nil
	}
	text, err := os.ReadFile(e.tokenFile)
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", usage("reading the token", fmt.Sprintf("%q is empty", e.tokenFile))
	}
	return token, nil
}

// transfers turns the events of single files into the progress of all of them together.
func (e *env) transfers() hub.Progress {
	files := map[string]hub.Event{}
	return func(ev hub.Event) {
		if ev.State == hub.Retrying {
			e.note("trying %q again: %v", ev.File, ev.Err)
		}
		files[ev.File] = ev
		s := step{Task: "transfer", Unit: "bytes", Text: ev.File}
		for _, f := range files {
			s.Done += f.Done
			s.Total += max(f.Total, f.Done)
		}
		e.report(s)
	}
}

// logger is for libraries: warnings become notes, and with --verbose everything does.
func (e *env) logger() *slog.Logger { return slog.New(noteHandler{e, ""}) }

type noteHandler struct {
	env   *env
	attrs string
}

func (h noteHandler) Enabled(_ context.Context, level slog.Level) bool {
	return h.env.verbose || level >= slog.LevelWarn
}

func (h noteHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := h.attrs
	r.Attrs(func(a slog.Attr) bool {
		attrs += " " + a.String()
		return true
	})
	h.env.note("%s%s", r.Message, attrs)
	return nil
}

func (h noteHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		h.attrs += " " + a.String()
	}
	return h
}

func (h noteHandler) WithGroup(string) slog.Handler { return h }
