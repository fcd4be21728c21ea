//go:build !amd64

package kernel

// available is empty: Go does everything.
var available []isa

func intelAVX512() bool { return false }
