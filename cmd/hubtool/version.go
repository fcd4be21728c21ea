package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/cpu"

	"github.com/hubtool/hubtool/model/engine"
)

func (e *env) versionCommand() *cli.Command {
	return &cli.Command{
		Name:   "version",
		Usage:  "print the version and how the program was built",
		Action: func(*cli.Context) error { return e.version() },
	}
}

type build struct {
	Version     string   `json:"version"`
	Commit      string   `json:"commit"` // "+" at the end: the tree had uncommitted changes
	Go          string   `json:"go"`
	Platform    string   `json:"platform"`
	SIMD        bool     `json:"simd"`   // the Go engine has vector kernels for this processor
	Kernel      string   `json:"kernel"` // their name, or ""
	XLA         bool     `json:"xla"`    // XLA plugins can be loaded
	CPUFeatures []string `json:"cpu_features"`
}

// release is set by the linker for a release; other builds use what the go command recorded.
var release string

func buildInfo() build {
	b := build{
		Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		SIMD: engine.Kernel() != "", Kernel: engine.Kernel(), XLA: engine.XLA, CPUFeatures: cpuFeatures(),
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		b.Version = cmp.Or(b.Version, "unknown")
		return b
	}
	b.Version = cmp.Or(b.Version, info.Main.Version, "(devel)")
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Commit = s.Value + b.Commit
		case s.Key == "vcs.modified" && s.Value == "true":
			b.Commit += "+"
		}
	}
	return b
}

// cpuFeatures lists the vector extensions that our kernels and engines ask for.
func cpuFeatures() []string {
	features := []struct {
		name string
		has  bool
	}{
		{"avx", cpu.X86.HasAVX}, {"avx2", cpu.X86.HasAVX2}, {"fma", cpu.X86.HasFMA}, {"avx512f", cpu.X86.HasAVX512F},
		{"avx512bw", cpu.X86.HasAVX512BW}, {"avx512vnni", cpu.X86.HasAVX512VNNI}, {"avx512bf16", cpu.X86.HasAVX512BF16},
		{"amxbf16", cpu.X86.HasAMXBF16}, {"asimd", cpu.ARM64.HasASIMD}, {"sve", cpu.ARM64.HasSVE},
	}
	names := []string{}
	for _, f := range features {
		if f.has {
			names = append(names, f.name)
		}
	}
	return names
}

func (e *env) version() error {
	b := buildInfo()
	return e.result(func(w io.Writer) {
		fmt.Fprintf(w, "hubtool %s", b.Version)
		if b.Commit != "" {
			fmt.Fprintf(w, " (%s)", b.Commit)
		}
		fmt.Fprintf(w, "\n%s %s, kernels: %s, xla linked: %s\ncpu: %s\n",
			b.Go, b.Platform, cmp.Or(b.Kernel, "none"), yesNo(b.XLA), strings.Join(b.CPUFeatures, " "))
	}, b)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
