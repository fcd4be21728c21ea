package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/internal/nearest"
)

// arrange checks a whole command line and puts it into the one order that urfave/cli understands:
// global flags, command, its flags, "--", operands. People may write them in any order. All
// problems are reported together. The flags of draft receive the values.
func arrange(draft *env, args []string) ([]string, error) {
	a := newArranger(draft)
	whole := a.walk(args)
	if a.help {
		return append(append([]string{a.app.Name}, a.path...), "--help"), nil
	}
	if a.cmd != nil && whole {
		a.checkGlobals(draft)
		a.checkRequired()
		a.checkOperands()
	}
	if len(a.problems) > 0 {
		return nil, usage("reading the command line", a.problems...)
	}
	ordered := append([]string{a.app.Name}, a.global...)
	ordered = append(append(ordered, a.path...), a.local...)
	if len(a.operands) > 0 {
		ordered = append(append(ordered, "--"), a.operands...)
	}
	return ordered, nil
}

type arranger struct {
	app   *cli.App
	cmd   *cli.Command      // the innermost command read so far
	flags []cli.Flag        // all flags valid so far
	set   *flag.FlagSet     // the same, to try values on
	given map[string]string // flag name -> as written

	path, global, local, operands []string
	problems                      []string
	help                          bool
	waiting                       cli.Flag // the line ends before its value
}

func newArranger(draft *env) *arranger {
	a := &arranger{app: draft.app(), set: flag.NewFlagSet("", flag.ContinueOnError)}
	a.set.SetOutput(io.Discard)
	a.know(a.app.Flags)
	return a
}

func (a *arranger) problem(format string, args ...any) {
	a.problems = append(a.problems, fmt.Sprintf(format, args...))
}

func (a *arranger) know(flags []cli.Flag) {
	for _, f := range flags {
		if err := f.Apply(a.set); err != nil {
			panic(err) // a default of ours is wrong, which every test would show
		}
	}
	a.flags = append(a.flags, flags...)
}

// walk reads the arguments one by one. It gives up at an unknown command, because what follows
// cannot be judged then.
func (a *arranger) walk(args []string) bool {
	a.given = map[string]string{}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			a.operands = append(a.operands, args...)
			return true
		case arg == "-h" || arg == "--help" || arg == "help" && a.cmd == nil:
			a.help = true
		case len(arg) > 1 && arg[0] == '-':
			args = a.flag(arg, args)
		case a.cmd == nil:
			if !a.enter(arg, a.app.Commands) {
				return a.giveUp(args)
			}
		case len(a.cmd.Subcommands) > 0:
			if !a.enter(arg, a.cmd.Subcommands) {
				return a.giveUp(args)
			}
		default:
			a.operands = append(a.operands, arg)
		}
	}
	return true
}

// giveUp leaves the rest unread, but for how the error is to be printed.
func (a *arranger) giveUp(rest []string) bool {
	if slices.Contains(rest, "--json") {
		_ = a.set.Set("json", "true")
	}
	return false
}

func (a *arranger) enter(word string, commands []*cli.Command) bool {
	for _, c := range commands {
		if c.HasName(word) {
			a.cmd = c
			a.path = append(a.path, c.Name)
			a.know(c.Flags)
			return true
		}
	}
	advice := nearest.DidYouMean(word, commandNames(commands))
	if advice == "" && a.cmd != nil {
		advice = ", there is: " + strings.Join(commandNames(commands), ", ")
	}
	a.problem("unknown command %q%s", strings.Join(append(a.path, word), " "), advice)
	return false
}

// flag takes one flag, with its value where it has one, and returns the arguments left.
func (a *arranger) flag(arg string, rest []string) []string {
	written, value, hasValue := strings.Cut(arg, "=")
	f := a.find(strings.TrimLeft(written, "-"))
	switch {
	case f == nil:
		a.problem("unknown flag %q%s", written, nearest.DidYouMean(written, a.flagNames()))
		return rest
	case hasValue:
	case isSwitch(f):
		value = "true"
		if s, ok := flagValue(f).(interface{ takes(string) bool }); ok && len(rest) > 0 && s.takes(rest[0]) {
			value, rest = rest[0], rest[1:]
		}
	case len(rest) == 0:
		a.problem("flag %q needs a value", written)
		a.waiting = f
		return rest
	default:
		value, rest = rest[0], rest[1:]
	}
	name := f.Names()[0]
	if err := a.set.Set(name, value); err != nil {
		a.problem("%s is %q, but %s", written, value, expectation(f, err))
	}
	a.given[name] = written
	if a.isGlobal(name) {
		a.global = append(a.global, dashed(name)+"="+value)
	} else {
		a.local = append(a.local, dashed(name)+"="+value)
	}
	return rest
}

// find looks a flag up; as in Python's tools, "_" may be written for "-".
func (a *arranger) find(name string) cli.Flag {
	for _, spelling := range []string{name, strings.ReplaceAll(name, "_", "-")} {
		for _, f := range a.flags {
			for _, n := range f.Names() {
				if n == spelling {
					return f
				}
			}
		}
	}
	return nil
}

func (a *arranger) flagNames() []string {
	var names []string
	for _, f := range a.flags {
		for _, n := range f.Names() {
			names = append(names, dashed(n))
		}
	}
	return names
}

func (a *arranger) isGlobal(name string) bool {
	for _, f := range a.app.Flags {
		if f.Names()[0] == name {
			return true
		}
	}
	return false
}

// checkGlobals refuses global flags that the command has no use for.
func (a *arranger) checkGlobals(draft *env) {
	for _, name := range a.idleGlobals(draft) {
		if written, ok := a.given[name]; ok {
			a.problem("flag %q does nothing in %q", written, strings.Join(a.path, " "))
		}
	}
	for _, pair := range [][2]string{{"quiet", "verbose"}, {"token", "token-file"}} {
		one, other := a.given[pair[0]], a.given[pair[1]]
		if one != "" && other != "" {
			a.problem("flags %q and %q exclude each other", one, other)
		}
	}
}

// idleGlobals are the global flags that the command does not obey.
func (a *arranger) idleGlobals(draft *env) []string {
	if a.cmd == nil {
		return nil
	}
	var obeys topic
	for _, c := range draft.commands() {
		if c.Name == a.path[0] {
			obeys = c.obeys
		}
	}
	idle := []string{"version"} // takes no command
	for _, g := range draft.globals() {
		if g.topic&^obeys != 0 {
			idle = append(idle, g.Names()[0])
		}
	}
	return idle
}

func (a *arranger) checkRequired() {
	for _, f := range a.cmd.Flags {
		r, ok := f.(cli.RequiredFlag)
		if _, given := a.given[f.Names()[0]]; ok && r.IsRequired() && !given {
			a.problem("flag %q is missing", dashed(f.Names()[0]))
		}
	}
}

// checkOperands counts the operands against the command's usage line: a word is one operand, a
// word in brackets may be absent, and dots allow more.
func (a *arranger) checkOperands() {
	name := strings.Join(a.path, " ")
	if len(a.cmd.Subcommands) > 0 {
		a.problem("%q needs a command: %s", name, strings.Join(commandNames(a.cmd.Subcommands), ", "))
		return
	}
	least, most := 0, 0
	words := strings.Fields(a.cmd.ArgsUsage)
	for _, w := range words {
		if !strings.HasPrefix(w, "[") {
			least++
		}
		most++
	}
	if n := len(a.operands); n < least {
		a.problem("%q needs %s", name, strings.Join(words[n:least], " and "))
	} else if n > most && !strings.Contains(a.cmd.ArgsUsage, "...") {
		a.problem("%q has no use for %q", name, a.operands[most:])
	}
}

func commandNames(commands []*cli.Command) []string {
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func flagValue(f cli.Flag) cli.Generic {
	if g, ok := f.(*cli.GenericFlag); ok {
		return g.Value
	}
	return nil
}

// isSwitch reports whether a flag may stand without a value.
func isSwitch(f cli.Flag) bool {
	if _, ok := f.(*cli.BoolFlag); ok {
		return true
	}
	b, ok := flagValue(f).(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// expectation says what a flag's value must be; the messages of package flag do not.
func expectation(f cli.Flag, err error) string {
	switch f.(type) {
	case *cli.Uint64Flag:
		return "must be a whole number, 0 or more"
	case *cli.BoolFlag:
		return "must be true or false"
	}
	return err.Error()
}
