package engine

import (
	"os"
	"strings"
)

// XLA tells whether this build can load XLA plugins.
const XLA = xlaLinked

const fmaOff = "cpu.fma=off"

// Environment returns the environment in which the process should be started again before the Go
// backend is used, or nil if the present one will do.
//
// The SIMD kernels leave the upper halves of the vector registers dirty, after which math.Exp, which
// mixes VEX and legacy SSE instructions where the CPU has FMA, runs 150 times slower. Only the
// environment of the process can turn that path off; the kernels themselves keep their speed.
func Environment() []string {
	godebug := os.Getenv("GODEBUG")
	if !SIMD || strings.Contains(godebug, "cpu.fma=") {
		return nil
	}
	if godebug != "" {
		godebug += ","
	}
	env := []string{"GODEBUG=" + godebug + fmaOff}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GODEBUG=") {
			env = append(env, v)
		}
	}
	return env
}
