package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// result prints a command's result on stdout: one JSON value with --json, else what text writes.
func (e *env) result(text func(w io.Writer), value any) error {
	e.endProgress()
	var out bytes.Buffer
	if e.json {
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(value); err != nil {
			return fmt.Errorf("writing the result as JSON: %w", err)
		}
	} else {
		text(&out)
	}
	if _, err := e.out.Write(out.Bytes()); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// printHelp prints what urfave/cli has made of --help, which itself does not look whether it could write.
func (e *env) printHelp() error {
	if _, err := e.help.WriteTo(e.out); err != nil {
		return fmt.Errorf("writing the help: %w", err)
	}
	return nil
}

// note tells the user, on stderr, of a decision worth knowing.
func (e *env) note(format string, args ...any) {
	if !e.quiet {
		e.endProgress()
		fmt.Fprintf(e.err, "hubtool: %s\n", oneLine(fmt.Sprintf(format, args...)))
	}
}

// orEmpty makes JSON of a list that has nothing in it [], not null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
