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
// A build with GOEXPERIMENT=simd leaves the upper halves of the vector registers dirty, after which
// math.Exp, which mixes VEX and legacy SSE instructions where the CPU has FMA, runs 150 times slower. Only
// the environment of the process can turn that path off.
//
// CUDA plugins load libraries by name, and the dynamic linker looks only where it was told to at the
// process's start: here, to the wheels beside the plugin.
//
// Plugins for the processor take a step's memory from malloc and give it back (see allocator).
func Environment(spec string) []string {
	plugins := candidates(spec)
	changed := append(loader(plugins), allocator(plugins)...)
	if godebug := os.Getenv("GODEBUG"); simdBuild && !strings.Contains(godebug, "cpu.fma=") {
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

// tunables have glibc's malloc use huge pages and keep what is freed. Otherwise a step's activations,
// hundreds of megabytes, are mapped, cleared page by page and unmapped at every step, which takes a
// tenth of the time of training a ViT-base and more of smaller ones.
var tunables = []string{"glibc.malloc.hugetlb=1", "glibc.malloc.mmap_max=0", "glibc.malloc.trim_threshold=17179869184"}

// allocator is the setting that glibc reads at a process's start, with the tunables that it lacks, where
// the first plugin computes on the processor. Other C libraries take no notice of it.
func allocator(plugins []string) []string {
	if !xlaLinked || len(plugins) == 0 || !isCPUPlugin(plugins[0]) {
		return nil
	}
	present := os.Getenv("GLIBC_TUNABLES")
	all := present
	for _, tunable := range tunables {
		if name, _, _ := strings.Cut(tunable, "="); !strings.Contains(present, name+"=") {
			all += ":" + tunable
		}
	}
	if all == present {
		return nil
	}
	return []string{"GLIBC_TUNABLES=" + strings.TrimPrefix(all, ":")}
}
