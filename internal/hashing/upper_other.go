//go:build !goexperiment.simd || !amd64

package hashing

func clearUpper() {}
