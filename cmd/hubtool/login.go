package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/hubtool/hubtool/hub"
)

func (e *env) loginCommand() *cli.Command {
	return &cli.Command{
		Name:        "login",
		Usage:       "store an access token where Python finds it too",
		Description: "The token is asked for, or read from stdin: an argument would stay in the shell's history.",
		Action:      e.login,
	}
}

func (e *env) login(c *cli.Context) error {
	token, err := e.readToken()
	if err != nil {
		return err
	}
	client, err := e.client(hub.WithToken(token))
	if err != nil {
		return err
	}
	user, err := client.WhoAmI(c.Context)
	if errors.Is(err, hub.ErrAuth) {
		return withHint(err, "the Hub does not know this token: copy it again from the settings of your account")
	}
	if err != nil {
		return err
	}
	if err := hub.SaveToken(token, user.TokenName); err != nil {
		return err
	}
	e.noteTokenVariable()
	return e.result(func(w io.Writer) {
		fmt.Fprintf(w, "logged in as %s; the token is in %s\n", oneLine(user.Name), hub.TokenPath())
	}, map[string]string{"name": user.Name, "token_name": user.TokenName, "path": hub.TokenPath(), "endpoint": client.Endpoint()})
}

// readToken asks on a terminal, without echo, and reads stdin elsewhere.
func (e *env) readToken() (string, error) {
	var text []byte
	var err error
	if in, ok := e.in.(*os.File); ok && isTerminal(in) {
		fmt.Fprint(e.err, "access token (it is not shown): ")
		text, err = term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(e.err)
	} else {
		text, err = io.ReadAll(io.LimitReader(e.in, 1<<16))
	}
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", usage("reading the token", "there is none on stdin; pipe it in, or run login on a terminal")
	}
	return token, nil
}

// noteTokenVariable warns that the token file is not what counts.
func (e *env) noteTokenVariable() {
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if os.Getenv(name) != "" {
			e.note("%s is set, and wins over the token file", name)
			return
		}
	}
}

func (e *env) logoutCommand() *cli.Command {
	return &cli.Command{
		Name:  "logout",
		Usage: "remove the stored token",
		Action: func(*cli.Context) error {
			removed, err := hub.ForgetToken()
			if err != nil {
				return err
			}
			e.noteTokenVariable()
			return e.result(func(w io.Writer) {
				if removed {
					fmt.Fprintf(w, "removed the token from %s\n", hub.TokenPath())
				} else {
					fmt.Fprintf(w, "there was no token in %s\n", hub.TokenPath())
				}
			}, map[string]any{"removed": removed, "path": hub.TokenPath()})
		},
	}
}

func (e *env) whoamiCommand() *cli.Command {
	return &cli.Command{
		Name:  "whoami",
		Usage: "say whose token is in use",
		Action: func(c *cli.Context) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			user, err := client.WhoAmI(c.Context)
			if err != nil {
				return err
			}
			return e.result(func(w io.Writer) {
				fmt.Fprintln(w, oneLine(user.Name))
				if len(user.Orgs) > 0 {
					fmt.Fprintf(w, "orgs: %s\n", oneLine(strings.Join(user.Orgs, ", ")))
				}
			}, map[string]any{
				"name": user.Name, "fullname": user.FullName, "type": user.Type, "orgs": orEmpty(user.Orgs),
				"token":    map[string]string{"name": user.TokenName, "role": user.TokenRole, "source": client.TokenSource()},
				"endpoint": client.Endpoint(),
			})
		},
	}
}
