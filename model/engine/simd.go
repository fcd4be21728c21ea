//go:build goexperiment.simd && amd64

package engine

// SIMD tells whether this build has the Go backend's AVX2 and AVX-512 kernels.
const SIMD = true
