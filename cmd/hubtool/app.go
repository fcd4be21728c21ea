package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/internal/nearest"
)

// streams are the program's only doors to its caller, so that a test needs no process.
type streams struct {
	in       io.Reader
	out, err io.Writer
	restart  func(engine string)                            // what a command that computes begins with, see restart_unix.go; nil in tests
	try      func(ctx context.Context, plugin string) error // an XLA plugin in another process; nil in tests
}

// env is what every command gets: streams, global flags, and the ways to report (output.go,
// progress.go), to reach models and data sets (refs.go) and to read a training config (config.go).
type env struct {
	streams
	endpoint, token, tokenFile, cacheDir string
	progressMode, engine                 string
	offline, json, quiet, verbose        bool
	ownHub                               bool // this process serves the Hub that is asked, in any case

	sweeping bool // configs may have a section sweep, which is left in axes
	axes     []axis
	settings []setting // config keys given as flags, in the order given
	progress progress
	help     bytes.Buffer // until printHelp
}

func newEnv(s streams) *env { return &env{streams: s} }

// topic is a group of global flags that a command obeys. The flags about output are obeyed by
// all; any other one that a command has no use for is refused there.
type topic uint8

const (
	onEndpoint topic = 1 << iota
	onToken
	onCache // cache folder and offline mode
	onEngine

	onHub = onEndpoint | onToken | onCache
)

// command is a cli.Command and the global flags it obeys.
type command struct {
	obeys topic
	*cli.Command
}

// commands is the whole program at a glance.
func (e *env) commands() []command {
	return []command{
		{onHub, e.pullCommand()},
		{onHub, e.pushCommand()},
		{onHub, e.cacheCommand()},
		{onHub, e.packCommand()},
		{onCache, e.unpackCommand()},
		{onEndpoint, e.loginCommand()},
		{0, e.logoutCommand()},
		{onEndpoint | onToken, e.whoamiCommand()},
		{onToken, e.serveCommand()},
		{onHub, e.inspectCommand()},
		{onHub, e.datasetCommand()},
		{onHub | onEngine, e.trainCommand()},
		{onHub | onEngine, e.sweepCommand()},
		{onHub | onEngine, e.evalCommand()},
		{onHub | onEngine, e.predictCommand()},
		{onHub, e.mergeCommand()},
		{onHub | onEngine, e.verifyCommand()},
		{onHub, e.diffCommand()},
		{onHub, e.composeCommand()},
		{onHub, e.resizeCommand()},
		{onHub, e.extractCommand()},
		{onHub, e.convertCommand()},
		{0, e.reportCommand()},
		{onEngine, e.quickstartCommand()},
		{0, e.initCommand()},
		{0, e.engineCommand()},
		{onHub, e.doctorCommand()},
		{0, e.completionCommand()},
		{0, e.versionCommand()},
	}
}

// globals are the flags accepted before and after every command. Their environment variables are
// read where the value is used, because the Hub's have rules of their own.
func (e *env) globals() []globalFlag {
	return []globalFlag{
		{onEndpoint, &cli.StringFlag{Name: "endpoint", Usage: "`URL` of the Hub [$HF_ENDPOINT]", Destination: &e.endpoint}},
		{onToken, &cli.StringFlag{Name: "token", Usage: "access `TOKEN` [$HF_TOKEN, or the token file that Python uses]", Destination: &e.token}},
		{onToken, &cli.StringFlag{Name: "token-file", Usage: "read the access token from `FILE`", Destination: &e.tokenFile}},
		{onCache, &cli.StringFlag{Name: "cache-dir", Usage: "cache `DIR` that Python shares [$HF_HUB_CACHE, or $HF_HOME/hub]", Destination: &e.cacheDir}},
		{onCache, &cli.BoolFlag{Name: "offline", Usage: "make no request, use the cache only [$HF_HUB_OFFLINE]", Destination: &e.offline}},
		{onEngine, choice("engine", "compute `ENGINE`: auto, go or xla[:PLUGIN] [$HUBTOOL_ENGINE, $GOMLX_BACKEND]", &e.engine, "auto", "go", "xla", "xla:*")},
		{0, &cli.BoolFlag{Name: "json", Usage: "print one JSON value on stdout, and errors as JSON on stderr", Destination: &e.json}},
		{0, &cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print results only", Destination: &e.quiet}},
		{0, &cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "also print requests and decisions, without secrets", Destination: &e.verbose}},
		{0, choice("progress", "show progress in the `FORM` auto, bar, plain, json or none", &e.progressMode, progressModes...)},
	}
}

type globalFlag struct {
	topic topic
	cli.Flag
}

func (e *env) app() *cli.App {
	app := &cli.App{
		Name:                      "hubtool",
		Usage:                     "pull, train, merge and push adapters of the Hugging Face Hub",
		Description:               "REF is a local directory, owner/name[@revision], or hf://[datasets/]owner/name[@revision].\nGlobal options are accepted before and after the command. All other help: hubtool COMMAND --help.",
		Reader:                    e.in,
		Writer:                    &e.help,
		ErrWriter:                 e.err,
		HideHelpCommand:           true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {}, // only main exits
		Flags:                     []cli.Flag{&cli.BoolFlag{Name: "version", Usage: "print the version"}},
		Action: func(c *cli.Context) error {
			if c.Bool("version") {
				return e.version()
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, g := range e.globals() {
		app.Flags = append(app.Flags, g.Flag)
	}
	quietSwitches(app.Flags)
	for _, c := range e.commands() {
		if c.obeys&onEngine != 0 && e.restart != nil {
			c.Before = func(*cli.Context) error { e.restart(e.engineSpec()); return nil }
		}
		app.Commands = append(app.Commands, finish(c.Command))
	}
	app.Setup()
	return app
}

// finish gives a command and its subcommands what all of them share.
func finish(c *cli.Command) *cli.Command {
	c.HideHelpCommand = true
	quietSwitches(c.Flags)
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return err }
	for _, sub := range c.Subcommands {
		finish(sub)
	}
	if len(c.Subcommands) == 0 {
		c.CustomHelpTemplate = cli.CommandHelpTemplate + "\n" + exitCodesHelp
	}
	return c
}

// quietSwitches keeps "(default: false)" out of the help.
func quietSwitches(flags []cli.Flag) {
	for _, f := range flags {
		if b, ok := f.(*cli.BoolFlag); ok {
			b.DisableDefaultText = true
		}
	}
}

// choice is a flag whose value is one of a few words; "x:*" allows any text after "x:".
func choice(name, usage string, to *string, allowed ...string) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: &choiceValue{to, allowed}}
}

type choiceValue struct {
	to      *string
	allowed []string
}

func (v *choiceValue) String() string {
	if v.to == nil {
		return ""
	}
	return *v.to
}

func (v *choiceValue) Set(s string) error {
	for _, a := range v.allowed {
		prefix, open := strings.CutSuffix(a, "*")
		if s == a || open && strings.HasPrefix(s, prefix) && len(s) > len(prefix) {
			*v.to = s
			return nil
		}
	}
	return fmt.Errorf("must be one of %s%s", strings.Join(v.allowed, ", "), nearest.DidYouMean(s, v.allowed))
}

// count is a flag whose value is a whole number, the least allowed one or more. A value of 0 before
// parsing means that the command has a default of its own.
func count(name, usage string, least int, to *int) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: &countValue{to, least}}
}

type countValue struct {
	to    *int
	least int
}

func (v *countValue) String() string {
	if v.to == nil || *v.to == 0 {
		return ""
	}
	return strconv.Itoa(*v.to)
}

func (v *countValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < v.least {
		return fmt.Errorf("must be a whole number, %d or more", v.least)
	}
	*v.to = n
	return nil
}

// fraction is a flag whose value is above 0 and at most 1.
func fraction(name, usage string, to *float64) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: &fractionValue{to}}
}

type fractionValue struct{ to *float64 }

func (v *fractionValue) String() string {
	if v.to == nil || *v.to == 0 {
		return ""
	}
	return strconv.FormatFloat(*v.to, 'g', -1, 64)
}

func (v *fractionValue) Set(s string) error {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f > 0 && f <= 1) {
		return errors.New("must be a number above 0 and at most 1")
	}
	*v.to = f
	return nil
}

// envBool reads a boolean as the Python client does: 1, on, yes and true in any case.
func envBool(name string) bool {
	switch strings.ToLower(os.Getenv(name)) {
	case "1", "on", "yes", "true":
		return true
	}
	return false
}
