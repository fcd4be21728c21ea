package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"strings"
	"syscall"
	"unicode"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/hub"
	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/install"
	"github.com/hubtool/hubtool/model/vision"
)

// outcome says how the program ends on an error: the one place that maps errors to exit codes.
type outcome struct {
	is   error
	code int
	kind string // for scripts, beside the code
	hint string // what to do next; an error's own hint comes first
}

var outcomes = []outcome{
	{context.Canceled, 130, "interrupted", "run the same command again to go on from there"},
	{errUsage, 2, "usage", ""},
	{errCheck, 8, "check-failed", ""},

	{hub.ErrInvalid, 2, "usage", ""},
	{hub.ErrNotFound, 3, "repository-not-found", "check the name; a private repository needs a token, and a data set --repo-type dataset or hf://datasets/…"},
	{hub.ErrRevision, 3, "revision-not-found", "check the branch, tag or commit"},
	{hub.ErrEntry, 3, "file-not-found", "\"hubtool pull REF --dry-run\" lists the files"},
	{hub.ErrGated, 4, "gated", "accept the terms on the repository's page, then use a token of that account"},
	{hub.ErrAuth, 4, "unauthorised", "run \"hubtool login\", or set HF_TOKEN to a token with the permission"},
	{hub.ErrOffline, 5, "offline", "run once without --offline and HF_HUB_OFFLINE to fill the cache"},
	{hub.ErrNoRanges, 5, "no-ranges", "\"hubtool pull REF\" brings the files here; use them then"},
	{hub.ErrNetwork, 5, "network", "run the same command again to go on from there"},
	{hub.ErrDamaged, 6, "damaged-file", "pull again with --force"},
	{hub.ErrChanged, 1, "changed", "run the same command again: it reads the new content from its beginning"},
	{hub.ErrConflict, 1, "conflict", "pull the newest state, or choose another name"},
	{hub.ErrSpace, 1, "no-space", "free some space, or move the cache with --cache-dir"},

	{adapters.ErrMismatch, 7, "adapter-mismatch", "\"hubtool inspect\" shows the modules of adapter and base; --base names another base"},
	{adapters.ErrMethod, 7, "method-unsupported", ""},
	{train.ErrNoClassifier, 7, "no-classifier", "name an adapter that has a trained classifier, as MODEL or with --adapter; \"hubtool train\" makes one"},

	{dataset.ErrConfigName, 3, "config-not-found", ""},
	{dataset.ErrSplit, 3, "split-not-found", ""},
	{dataset.ErrColumn, 3, "column-not-found", ""},
	{dataset.ErrClass, 3, "class-not-found", ""},
	{dataset.ErrNoData, 3, "data-not-found", "a repository with a script has its data in the Hub's conversion: REF@refs/convert/parquet"},
	{dataset.ErrDamaged, 6, "damaged-file", "mend the file or get it again; what was pulled comes again with \"hubtool pull REF --force\""},
	{dataset.ErrUnsupported, 6, "unsupported-file", ""},
	{format.ErrDamaged, 6, "damaged-file", "get the file again; what was pulled comes again with \"hubtool pull REF --force\""},
	{format.ErrUnsupported, 6, "unsupported-file", ""},
	{format.ErrConfig, 6, "malformed-config", ""},
	{adapters.ErrBaseNonFinite, 6, "not-finite", "--allow-nonfinite-base merges all the same"},
	{adapters.ErrNonFinite, 6, "not-finite", "train the adapter again, with a lower learning rate"},
	{vision.ErrFormat, 6, "unsupported-file", ""},

	{install.ErrDownload, 5, "network", "run the same command again, or download the wheels elsewhere and name their folder with --from"},
	{install.ErrDamaged, 6, "damaged-file", "download it again"},
	{install.ErrUnsupported, 6, "unsupported-file", ""},
	{engine.ErrUnavailable, 2, "engine-unavailable", "--engine go works everywhere"},
	{train.ErrOtherRun, 2, "other-settings", ""},
	{train.ErrOtherFormat, 6, "other-checkpoint", ""},
	{train.ErrDiverged, 1, "diverged", "try a smaller learning rate, or a warm-up"},

	{syscall.ENOSPC, 1, "no-space", "free some space, or choose another folder"},
	{syscall.EADDRINUSE, 1, "address-in-use", "another program listens there: choose another address"},
	{syscall.ENOTDIR, 1, "not-a-folder", "a file is where a folder is needed"},
	{syscall.EISDIR, 1, "is-a-folder", "name a file"},
	{os.ErrPermission, 1, "no-permission", "change the permissions, or choose another place"},
	{os.ErrExist, 1, "exists", "choose another name"},
	{os.ErrNotExist, 3, "not-found", ""},
}

const exitCodesHelp = `EXIT CODES:
   0 done   1 other   2 flags, arguments or config wrong   3 repository, revision, file, split or
   column not found   4 not authorised, or gated   5 network or server, or offline and not cached
   6 file damaged or unsupported   7 adapter and base do not fit   8 a check failed   130 interrupted
`

var (
	errUsage = errors.New("usage")
	errCheck = errors.New("check failed")
)

// problemError carries several problems of one kind.
type problemError struct {
	is       error
	doing    string
	problems []string
	hint     string
}

func (e *problemError) Error() string        { return e.doing + ": " + strings.Join(e.problems, "; ") }
func (e *problemError) Is(target error) bool { return target == e.is }
func (e *problemError) Details() []string    { return e.problems }
func (e *problemError) Hint() string         { return e.hint }

// usage is exit code 2: everything wrong with flags, arguments or config, at once.
func usage(doing string, problems ...string) error {
	return &problemError{is: errUsage, doing: doing, problems: problems, hint: `"hubtool COMMAND --help" lists what is valid`}
}

// checkFailed is exit code 8: the command worked, and what it checked is not so.
func checkFailed(doing string, problems ...string) error {
	return &problemError{is: errCheck, doing: doing, problems: problems}
}

// hinted adds what to do next to an error.
type hinted struct {
	error
	hint string
}

func (e hinted) Unwrap() error { return e.error }
func (e hinted) Hint() string  { return e.hint }

func withHint(err error, format string, args ...any) error {
	return hinted{err, fmt.Sprintf(format, args...)}
}

// fail prints an error the way the caller asked for and returns the exit code. Errors of any
// package may bring a hint and details along.
func (e *env) fail(ctx context.Context, err error) int {
	end := outcome{code: 1, kind: "error", hint: "if this looks like a bug, report it with the output of --verbose"}
	for _, o := range outcomes {
		if errors.Is(err, o.is) || errors.Is(o.is, context.Canceled) && ctx.Err() != nil {
			end = o
			break
		}
	}
	var advice interface{ Hint() string }
	if errors.As(err, &advice) && advice.Hint() != "" {
		end.hint = advice.Hint()
	}
	message := accessToken.ReplaceAllString(err.Error(), "hf_…")
	// Libraries put lists on lines of their own.
	_, list, _ := strings.Cut(message, "\n")
	details := []string{}
	for line := range strings.Lines(list) {
		details = append(details, strings.TrimSpace(line))
	}
	var detailed interface{ Details() []string }
	if errors.As(err, &detailed) {
		details = nil
		for _, d := range detailed.Details() {
			details = append(details, accessToken.ReplaceAllString(d, "hf_…"))
		}
	}
	e.endProgress()
	if e.json {
		type failure struct {
			Code    int      `json:"code"`
			Kind    string   `json:"kind"`
			Message string   `json:"message"`
			Hint    string   `json:"hint"`
			Details []string `json:"details"`
		}
		enc := json.NewEncoder(e.err)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(map[string]failure{"error": {end.code, end.kind, message, end.hint, details}})
		return end.code
	}
	fmt.Fprintf(e.err, "hubtool: %s\n", oneLine(message))
	if end.hint != "" {
		fmt.Fprintf(e.err, "hint: %s\n", oneLine(end.hint))
	}
	return end.code
}

// rescue turns a panic, which is a bug of ours, into exit code 1; Go's own is 2, which means wrong
// usage here. --verbose shows where it happened.
func (e *env) rescue(ctx context.Context, code *int) {
	if p := recover(); p != nil {
		*code = e.fail(ctx, fmt.Errorf("internal error: %v", p))
		if e.verbose {
			fmt.Fprintf(e.err, "%s", debug.Stack())
		}
	}
}

var newline = regexp.MustCompile(`\s*\n\s*`)

// accessToken is what a user may have put in the wrong place; it must not end up in a log.
var accessToken = regexp.MustCompile(`\bhf_[A-Za-z0-9]{6,}`)

// oneLine keeps foreign text, such as a tensor's name or a server's answer, from breaking the
// line or driving the terminal.
func oneLine(s string) string {
	s = strings.ReplaceAll(newline.ReplaceAllString(strings.TrimSpace(s), "; "), ":; ", ": ")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '�'
		}
		return r
	}, s)
}
