package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/hub/hubserve"
)

func (e *env) serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "be a Hub on this machine, kept in a folder",
		Description: "Prints its address on stdout as soon as it accepts connections; set HF_ENDPOINT to it. With --token,\n" +
			"writing needs that token, and so does reading private repositories; without, only this machine can connect. Ctrl-C ends it.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "keep everything in `DIR`", Required: true},
			&cli.StringFlag{Name: "addr", Usage: "listen on `HOST:PORT`; port 0 takes a free one", Value: "127.0.0.1:8642"},
			&cli.BoolFlag{Name: "read-only", Usage: "refuse every change"},
		},
		Action: func(c *cli.Context) error {
			token, err := e.givenToken()
			if err != nil {
				return err
			}
			ln, err := listen(c.Context, c.String("addr"), token != "")
			if err != nil {
				return err
			}
			opts := []hubserve.Option{hubserve.WithLogger(e.logger())}
			if token != "" {
				opts = append(opts, hubserve.WithToken(token))
			}
			if c.Bool("read-only") {
				opts = append(opts, hubserve.WithReadOnly())
			}
			handler, err := hubserve.New(c.String("dir"), opts...)
			if err != nil {
				return errors.Join(err, ln.Close())
			}
			url := "http://" + ln.Addr().String()
			if err := e.result(func(w io.Writer) { fmt.Fprintln(w, url) }, map[string]string{"url": url}); err != nil {
				return errors.Join(err, ln.Close(), handler.Close())
			}
			return errors.Join(serve(c.Context, ln, handler), handler.Close())
		},
	}
}

// listen opens the address, which without a token must be this machine's own.
func listen(ctx context.Context, addr string, open bool) (net.Listener, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, usage("serving a Hub", fmt.Sprintf("--addr is %q, but must be HOST:PORT: %v", addr, err))
	}
	if !open && !tcp.IP.IsLoopback() {
		return nil, usage("serving a Hub", fmt.Sprintf("--addr is %q: other machines could write without a --token; give one, or listen on 127.0.0.1", addr))
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", tcp.String())
	if err != nil {
		return nil, fmt.Errorf("serving a Hub: %w", err)
	}
	return ln, nil
}

// serve answers until ctx ends, then lets open transfers finish for a moment. What is cut off then
// is resumed by the client.
func serve(ctx context.Context, ln net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
	})
	err := server.Serve(ln)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving a Hub: %w", err)
}
