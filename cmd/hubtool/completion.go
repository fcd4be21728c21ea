package main

import (
	"embed"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/internal/nearest"
)

//go:embed completion
var completionScripts embed.FS

// shells tells how each of the shells wants a candidate and what it is for.
var shells = map[string]func(c candidate) string{
	"bash": func(c candidate) string { return c.Word },
	"zsh":  func(c candidate) string { return strings.ReplaceAll(c.Word, ":", `\:`) + ":" + c.Usage },
	"fish": func(c candidate) string { return c.Word + "\t" + c.Usage },
}

func (e *env) completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script with which bash, zsh or fish completes commands and flags",
		ArgsUsage: "SHELL [WORD...]",
		Description: "SHELL is bash, zsh or fish; the script's first lines say where it goes. With WORDs, which such a script sends\n" +
			"behind \"--\": what the last one of a command line can become.",
		Action: func(c *cli.Context) error { return e.completion(c.Args().First(), c.Args().Tail()) },
	}
}

func (e *env) completion(shell string, words []string) error {
	show, ok := shells[shell]
	if !ok {
		names := slices.Sorted(maps.Keys(shells))
		return usage("completing", fmt.Sprintf("%q is none of %s%s", shell, strings.Join(names, ", "), nearest.DidYouMean(shell, names)))
	}
	if len(words) == 0 {
		script, err := completionScripts.ReadFile("completion/hubtool." + shell)
		if err != nil {
			return err
		}
		return e.result(func(w io.Writer) { fmt.Fprintf(w, "%s", script) }, map[string]string{"shell": shell, "script": string(script)})
	}
	found := candidates(newEnv(e.streams), words)
	return e.result(func(w io.Writer) {
		for _, c := range found {
			fmt.Fprintln(w, show(c))
		}
	}, map[string][]candidate{"candidates": orEmpty(found)})
}

// candidate is a word that may stand in a command line.
type candidate struct {
	Word  string `json:"word"`
	Usage string `json:"usage"` // one line
}

// candidates are what the last of some words behind "hubtool" can become; none where anything may stand there, such as
// the name of a file. The flags of draft receive values.
func candidates(draft *env, words []string) []candidate {
	before, last := words[:len(words)-1], words[len(words)-1]
	a := newArranger(draft)
	if !a.walk(before) || slices.Contains(before, "--") {
		return nil
	}
	var found []candidate
	add := func(word, usage string) {
		if strings.HasPrefix(word, last) {
			usage, _, _ = strings.Cut(strings.ReplaceAll(usage, "`", ""), "\n")
			found = append(found, candidate{word, usage})
		}
	}
	written, _, hasValue := strings.Cut(last, "=")
	switch {
	case a.waiting != nil:
		for _, value := range flagValues(a.waiting) {
			add(value, "")
		}
	case strings.HasPrefix(last, "-") && hasValue:
		if f := a.find(strings.TrimLeft(written, "-")); f != nil {
			for _, value := range flagValues(f) {
				add(written+"="+value, "")
			}
		}
	case strings.HasPrefix(last, "-"):
		idle := a.idleGlobals(draft)
		for _, f := range a.flags {
			name, doc := f.Names()[0], f.(cli.DocGenerationFlag)
			if v, ok := f.(cli.VisibleFlag); ok && v.IsVisible() && !slices.Contains(idle, name) {
				add("--"+name, doc.GetUsage())
			}
		}
		add("--help", "show help")
	case a.cmd == nil:
		for _, c := range a.app.Commands {
			add(c.Name, c.Usage)
		}
	default:
		for _, c := range a.cmd.Subcommands {
			add(c.Name, c.Usage)
		}
	}
	return found
}

// flagValues are the words that a flag takes, where there are a few.
func flagValues(f cli.Flag) []string {
	var list []string
	switch v := flagValue(f).(type) {
	case nil:
		if isSwitch(f) {
			return []string{"true", "false"}
		}
	case *choiceValue:
		for _, word := range v.allowed {
			if !strings.HasSuffix(word, "*") {
				list = append(list, word)
			}
		}
	case *settingValue:
		list = v.words()
	}
	return list
}
