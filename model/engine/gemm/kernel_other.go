//go:build !amd64

package gemm

func usable() []*kernel { return nil }
