package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

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
