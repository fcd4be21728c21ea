package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/hub"
)

func testEnv() (*env, *bytes.Buffer, *bytes.Buffer) {
	var out, err bytes.Buffer
	return newEnv(streams{in: strings.NewReader(""), out: &out, err: &err}), &out, &err
}

func TestExitCodes(t *testing.T) {
	tests := []struct {
		err  error
		code int
		kind string
	}{
		{errors.New("any"), 1, "error"},
		{usage("reading", "a", "b"), 2, "usage"},
		{fmt.Errorf("x: %w", hub.ErrInvalid), 2, "usage"},
		{hub.ErrNotFound, 3, "repository-not-found"},
		{&format.Error{Op: "opening", Path: "p", Err: os.ErrNotExist}, 3, "not-found"},
		{dataset.ErrSplit, 3, "split-not-found"},
		{hub.ErrGated, 4, "gated"},
		{hub.ErrNetwork, 5, "network"},
		{errors.Join(hub.ErrOffline, os.ErrNotExist), 5, "offline"},
		{&format.Error{Kind: format.ErrDamaged, Err: errors.New("x")}, 6, "damaged-file"},
		{checkFailed("verifying", "different"), 8, "check-failed"},
		{fmt.Errorf("pulling: %w", context.Canceled), 130, "interrupted"},
	}
	for _, tt := range tests {
		e, _, stderr := testEnv()
		e.json = true
		if code := e.fail(context.Background(), tt.err); code != tt.code {
			t.Errorf("%v: exit code %d, want %d", tt.err, code, tt.code)
		}
		var got struct {
			Error struct {
				Code                int
				Kind, Message, Hint string
				Details             []string
			}
		}
		if err := json.Unmarshal(stderr.Bytes(), &got); err != nil {
			t.Fatalf("%v: %v in %s", tt.err, err, stderr)
		}
		if got.Error.Code != tt.code || got.Error.Kind != tt.kind || got.Error.Message != tt.err.Error() {
			t.Errorf("%v: printed %s", tt.err, stderr)
		}
	}
	// A library's list is the details.
	e, _, stderr := testEnv()
	e.json = true
	if code := e.fail(context.Background(), fmt.Errorf("loading: %w:\n  - a\n  + b", adapters.ErrMismatch)); code != 7 {
		t.Errorf("a mismatch: exit code %d", code)
	}
	if !strings.Contains(stderr.String(), `"details":["- a","+ b"]`) {
		t.Errorf("printed %s", stderr)
	}
	// Whatever an interrupted step says, the run was interrupted.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	e, _, _ = testEnv()
	if code := e.fail(ctx, hub.ErrNetwork); code != 130 {
		t.Errorf("after an interrupt: exit code %d", code)
	}
}

// Foreign text cannot forge lines or drive the terminal, and hints come from the error first.
func TestFailureText(t *testing.T) {
	e, _, stderr := testEnv()
	e.fail(context.Background(), withHint(fmt.Errorf("reading %s: %w", "a\x1b[2J\nb", hub.ErrNotFound), "try %d", 1))
	if got, want := stderr.String(), "hubtool: reading a�[2J; b: repository not found\nhint: try 1\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}

func TestPanicIsAnInternalError(t *testing.T) {
	for _, verbose := range []bool{false, true} {
		e, _, stderr := testEnv()
		e.verbose = verbose
		code := 0
		func() {
			defer e.rescue(context.Background(), &code)
			panic("index out of range")
		}()
		if code != 1 || !strings.HasPrefix(stderr.String(), "hubtool: internal error: index out of range\nhint: ") {
			t.Errorf("exit code %d, printed %s", code, stderr)
		}
		if strings.Contains(stderr.String(), "goroutine") != verbose {
			t.Errorf("verbose %v printed %s", verbose, stderr)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// What could not be written was not done: help and versions are no exception.
func TestFullDisk(t *testing.T) {
	for _, args := range []string{"", "--help", "pull --help", "cache --help", "help merge", "--version", "version", "version --json", "init", "init food101"} {
		var stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(args), streams{in: strings.NewReader(""), out: full{}, err: &stderr})
		if code != 1 || !strings.Contains(stderr.String(), syscall.ENOSPC.Error()) {
			t.Errorf("%q: exit code %d, printed %s", args, code, &stderr)
		}
	}
}

func TestArrange(t *testing.T) {
	tests := []struct{ args, want string }{
		{"pull a b --revision r --json", "hubtool --json=true pull --revision=r -- a b"},
		{"--json pull --revision=r a", "hubtool --json=true pull --revision=r -- a"},
		{"pull --include *.json --include=*.md a -q", "hubtool --quiet=true pull --include=*.json --include=*.md -- a"},
		{"pull --repo_type dataset a", "hubtool pull --repo-type=dataset -- a"},
		{"pull -- -odd --json", "hubtool pull -- -odd --json"},
		{"pull a --revision --json", "hubtool pull --revision=--json -- a"}, // the value is what follows
		{"pull a --force=false", "hubtool pull --force=false -- a"},
		{"pull --help --bad", "hubtool pull --help"},
		{"help pull", "hubtool pull --help"},
		{"--version", "hubtool --version=true"},
		{"", "hubtool"},
	}
	for _, tt := range tests {
		e, _, _ := testEnv()
		got, err := arrange(e, strings.Fields(tt.args))
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.args, got, err, tt.want)
		}
	}
}

// A flag that two commands, or a command and the globals, define would hide one of them.
func TestFlagsDoNotShadowGlobals(t *testing.T) {
	e, _, _ := testEnv()
	app := e.app()
	var walk func(path string, commands []*cli.Command, above []string)
	walk = func(path string, commands []*cli.Command, above []string) {
		for _, c := range commands {
			names := slices.Clone(above)
			for _, f := range c.Flags {
				for _, n := range f.Names() {
					if slices.Contains(names, n) {
						t.Errorf("%s %s: flag %s is defined twice", path, c.Name, n)
					}
					names = append(names, n)
				}
			}
			walk(path+" "+c.Name, c.Subcommands, names)
		}
	}
	var globals []string
	for _, f := range app.Flags {
		globals = append(globals, f.Names()...)
	}
	walk("hubtool", app.Commands, globals)
}

// A number that makes no sense is refused by its flag, not taken for none: so every flag with a number is of a type that
// has a least value.
func TestNumbersOfFlags(t *testing.T) {
	e, _, _ := testEnv()
	counted := 0
	var walk func(path []string, commands []*cli.Command)
	walk = func(path []string, commands []*cli.Command) {
		for _, c := range commands {
			path := append(slices.Clone(path), c.Name)
			for _, f := range c.Flags {
				switch f.(type) {
				case *cli.IntFlag, *cli.Int64Flag, *cli.Float64Flag:
					t.Errorf("%v: --%s takes numbers without bounds", path, f.Names()[0])
				}
				var wrong []string
				switch v := flagValue(f).(type) {
				case *countValue:
					wrong = []string{strconv.Itoa(v.least - 1), "-7", "1.5", ""}
				case *fractionValue:
					wrong = []string{"0", "-0.5", "1.01", "NaN", "half"}
				}
				for _, value := range wrong {
					counted++
					draft, _, _ := testEnv()
					_, err := arrange(draft, append(slices.Clone(path), "--"+f.Names()[0]+"="+value))
					if want := fmt.Sprintf("--%s is %q, but must be a ", f.Names()[0], value); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), want) {
						t.Errorf("%v --%s=%s: %v", path, f.Names()[0], value, err)
					}
				}
			}
			walk(path, c.Subcommands)
		}
	}
	walk(nil, e.app().Commands)
	if counted < 60 {
		t.Errorf("only %d values of flags were tried", counted)
	}
}

func TestReference(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, path := range []string{"owner/model/config.json", "owner/data/train/cat/1.JPG", "owner/other/notes.txt", "single.safetensors", "gpt2/config.json"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	abs, err := filepath.Abs("owner/model")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		ref  string
		want hub.RepoType
		got  string // path or hf:// form; "" for not found
	}{
		{"owner/model", hub.Model, "owner/model"},
		{"./owner/model", hub.Model, "./owner/model"},
		{abs, hub.Model, abs},
		{"gpt2", hub.Model, "gpt2"},
		{"single.safetensors", hub.Model, "single.safetensors"},
		{"owner/data", hub.Dataset, "owner/data"},
		{"owner/model@v1", hub.Model, "hf://owner/model@v1"},
		{"hf://owner/model", hub.Model, "hf://owner/model"},
		{"hf://datasets/owner/data@v2", hub.Dataset, "hf://datasets/owner/data@v2"},
		{"owner/data", hub.Model, "hf://owner/data"}, // a data set is no model
		{"owner/model", hub.Dataset, "hf://datasets/owner/model"},
		{"owner/other", hub.Model, "hf://owner/other"},
		{"beans", hub.Dataset, "hf://datasets/beans"},
		{"./nowhere", hub.Model, ""},
		{"nowhere.safetensors", hub.Model, ""},
		{"owner/data/train", hub.Model, ""},
		{"a/b/c", hub.Dataset, ""},
	}
	for _, tt := range tests {
		e, _, _ := testEnv()
		r, err := e.reference(tt.ref, tt.want)
		got := r.path
		if err == nil && got == "" {
			got = r.repo.String()
		}
		if got != tt.got || (err != nil) != (tt.got == "") || err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s as a %s: %q, %v; want %q", tt.ref, tt.want, got, err, tt.got)
		}
	}
}

func TestPlainProgress(t *testing.T) {
	var out bytes.Buffer
	m := &lineMeter{w: &out, every: time.Hour, last: time.Now(), line: plainLine}
	m.show(step{Task: "pulling", Item: "a", Done: 1, Total: 2, Unit: "bytes"})
	if out.Len() != 0 {
		t.Errorf("a line at once: %q", &out)
	}
	m.last = time.Time{}
	m.show(step{Task: "pulling", Item: "a", Done: 500, Total: 2000, Unit: "bytes", Text: "fast"})
	m.show(step{Task: "pulling", Item: "a", Done: 1000, Total: 2000, Unit: "bytes"})
	m.show(step{Task: "pulling", Item: "a", Done: 2000, Total: 2000, Unit: "bytes"})
	m.show(step{Task: "pulling", Item: "a", Done: 2000, Total: 2000, Unit: "bytes"})
	want := "hubtool: pulling a: 500 B of 2.0 kB (25%), fast\nhubtool: pulling a: 2.0 kB of 2.0 kB (100%)\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
}

// Where a job is watched for a while, its lines say how fast it is and how long it will take.
func TestProgressRate(t *testing.T) {
	for _, c := range []struct {
		line func(step) string
		want string
	}{
		{plainLine, "hubtool: merging: 3.0 GB of 9.0 GB (33%), 200.0 MB/s, 30s left, b\n"},
		{jsonLine, `{"progress":{"task":"merging","done":3000000000,"total":9000000000,"unit":"bytes","text":"b","per_second":200000000,"seconds_left":30}}` + "\n"},
	} {
		var out bytes.Buffer
		m := &lineMeter{w: &out, line: func(s step) string {
			s.Rate = math.Round(s.Rate/1e7) * 1e7 // the test takes time too
			return c.line(s)
		}}
		m.show(step{Task: "merging", Done: 1e9, Total: 9e9, Unit: "bytes", Text: "a"})
		out.Reset()
		m.begun = m.begun.Add(-10 * time.Second)
		m.show(step{Task: "merging", Done: 3e9, Total: 9e9, Unit: "bytes", Text: "b"})
		if out.String() != c.want {
			t.Errorf("printed %q, want %q", &out, c.want)
		}
	}
}

func TestProgressModes(t *testing.T) {
	tests := []struct {
		set  func(*env)
		want string
	}{
		{func(e *env) { e.progressMode = "json" }, `{"progress":{"task":"training","done":1,"total":2,"unit":"steps"}}` + "\n"},
		{func(e *env) { e.progressMode = "none" }, ""},
		{func(e *env) { e.json = true }, ""},
		{func(e *env) { e.quiet = true }, ""},
		{func(*env) {}, ""}, // too early for a plain line
	}
	for _, tt := range tests {
		e, out, stderr := testEnv()
		tt.set(e)
		e.report(step{Task: "training", Done: 1, Total: 2, Unit: "steps"})
		if stderr.String() != tt.want || out.Len() > 0 {
			t.Errorf("printed %q, want %q", stderr, tt.want)
		}
	}
	e, _, stderr := testEnv()
	e.progressMode = "bar"
	e.report(step{Task: "training", Done: 1, Total: 2, Unit: "steps"})
	e.note("a word")
	if !strings.Contains(stderr.String(), "training") || !strings.HasSuffix(stderr.String(), "hubtool: a word\n") {
		t.Errorf("the bar printed %q", stderr)
	}
}

func TestByteSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 5e9: "5.0 GB", 1<<63 - 1: "9.2 EB"} {
		if got := byteSize(n); got != want {
			t.Errorf("byteSize(%d) = %q, want %q", n, got, want)
		}
	}
}
