package main

import (
	"os"
	"testing"
)

// What is committed is what the generator writes.
func TestGenerated(t *testing.T) {
	asm, stubs := generate()
	for name, want := range map[string]string{"kernel_amd64.s": asm, "stubs_amd64.go": stubs} {
		got, err := os.ReadFile("../" + name)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is not up to date: run go generate in adapters/internal/kernel", name)
		}
	}
}
