//go:build unix

package main

import (
	"os"
	"syscall"

	"github.com/hubtool/hubtool/model/engine"
)

// restart replaces the process by itself in the environment that the engine wants. Where that is
// impossible the program goes on, slower.
func restart(spec string) {
	env := engine.Environment(spec)
	if env == nil {
		return
	}
	if self, err := os.Executable(); err == nil {
		_ = syscall.Exec(self, os.Args, env)
	}
}
