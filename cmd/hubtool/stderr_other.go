//go:build !unix

package main

import "os"

// stderr is os.Stderr: no signal comes of a broken pipe here.
func stderr() *os.File { return os.Stderr }
