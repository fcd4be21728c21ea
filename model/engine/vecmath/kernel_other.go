//go:build !amd64

package vecmath

func usable() []*kernel { return nil }
