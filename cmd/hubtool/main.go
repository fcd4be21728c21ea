// Hubtool pulls, trains, merges and pushes adapters in the formats of the Hugging Face Hub.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup, which lets a run outlive its terminal
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	// The first signal asks for an orderly end; from then on the next one kills, as without us. Some senders, such as
	// timeout(1), send each signal to the process and to its group: that is one.
	context.AfterFunc(ctx, func() { time.AfterFunc(300*time.Millisecond, stop) })
	os.Exit(run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, stderr(), restart, tryPlugin}))
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, s streams) (code int) {
	draft := newEnv(s) // problems are looked for on a draft, so that all are known before anything runs
	args, err := arrange(draft, args)
	if err != nil {
		return draft.fail(ctx, err)
	}
	e := newEnv(s)
	defer e.rescue(ctx, &code)
	err = e.app().RunContext(ctx, args)
	if err == nil {
		err = e.printHelp()
	}
	if err != nil {
		return e.fail(ctx, err)
	}
	return 0
}
