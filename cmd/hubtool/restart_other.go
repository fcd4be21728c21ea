//go:build !unix

package main

// restart does nothing: a process cannot be replaced here, and a child would miss signals.
func restart(string) {}
