//go:build !goexperiment.simd || !amd64

package engine

// simdBuild tells whether Go's experiment is on, which neither the kernels nor anything else here needs.
const simdBuild = false
