package engine

import (
	"os"
	"slices"
	"strings"
)

// XLA tells whether this build can load XLA plugins.
const XLA = xlaLinked

const fmaOff = "cpu.fma=off"

// Environment returns the environment in which the process should be started again before the engine
// that spec names is opened, or nil if the present one will do.
//
// The SIMD kernels leave the upper halves of the vector registers dirty, after which math.Exp, which
// mixes VEX and legacy SSE instructions where the CPU has FMA, runs 150 times slower. Only the
// environment of the process can turn that path off; the kernels themselves keep their speed.
//
// CUDA plugins load libraries by name, and the dynamic linker looks only where it was told to at the
// process's start: here, to the wheels beside the plugin.
func Environment(spec string) []string {
	changed := loader(spec)
	if godebug := os.Getenv("GODEBUG"); SIMD && !strings.Contains(godebug, "cpu.fma=") {
		if godebug != "" {
			godebug += ","
		}
		changed = append(changed, "GODEBUG="+godebug+fmaOff)
	}
	if changed == nil {
		return nil
	}
	env := changed
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !slices.ContainsFunc(changed, func(c string) bool { return strings.HasPrefix(c, name+"=") }) {
			env = append(env, v)
		}
	}
	return env
}
