package engine

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"
)

// ManifestFile describes an engine in its folder under [DataDir].
const ManifestFile = "engine.json"

// Manifest says what an installed engine is made of.
type Manifest struct {
	Plugin string          `json:"plugin"` // the library, from the manifest's folder
	Files  []ManifestEntry `json:"files"`  // what was installed
}

// ManifestEntry is an installed wheel or library.
type ManifestEntry struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// DataDir is the folder in which package install keeps engines, one folder each: engines under
// hubtool in XDG_DATA_HOME, else in ~/.local/share. It is empty where there is no home folder.
func DataDir() string {
	data := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(data) { // by the specification of XDG, others are to be ignored
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "hubtool", "engines")
}

// installed lists the plugins that manifests name.
func installed() []string {
	found, _ := filepath.Glob(filepath.Join(DataDir(), "*", ManifestFile))
	var plugins []string
	for _, path := range found {
		var m Manifest
		text, err := os.ReadFile(path)
		if err == nil && json.Unmarshal(text, &m) == nil && filepath.IsLocal(m.Plugin) {
			plugins = append(plugins, filepath.Join(filepath.Dir(path), m.Plugin))
		}
	}
	return plugins
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// CheckPlugin reads enough of a file to tell that it is no PJRT plugin for this machine, without
// loading it.
func CheckPlugin(path string) error {
	fail := func(why string, args ...any) error {
		return fmt.Errorf("%q "+why, append([]any{path}, args...)...)
	}
	if info, err := os.Stat(path); err != nil {
		return err
	} else if info.IsDir() {
		return fail("is a directory: name the .so file")
	}
	f, err := elf.Open(path)
	if err != nil {
		return fail("is no library, or a damaged one: %w", err)
	}
	defer f.Close()
	if want, ok := machines[runtime.GOARCH]; ok && f.Machine != want {
		return fail("is for %v, and this is %v", f.Machine, want)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return fail("is no library, or a damaged one: %w", err)
	}
	if !slices.ContainsFunc(symbols, func(s elf.Symbol) bool { return s.Name == "GetPjrtApi" && s.Section != elf.SHN_UNDEF }) {
		return fail("is no PJRT plugin: it has no GetPjrtApi")
	}
	if info, err := os.Stat(path); err == nil {
		for _, p := range f.Progs {
			if p.Type == elf.PT_LOAD && int64(p.Off+p.Filesz) > info.Size() {
				return fail("is cut short")
			}
		}
	}
	return nil
}

// libraries finds the nvidia-* wheels that are unpacked beside a plugin: their library folders, and the
// CUDA folder that has ptxas and libdevice.
func libraries(plugin string) (dirs []string, cuda string) {
	for root := filepath.Dir(plugin); len(dirs) == 0 && root != filepath.Dir(root); root = filepath.Dir(root) {
		dirs, _ = filepath.Glob(filepath.Join(root, "nvidia", "*", "lib"))
		for _, name := range []string{"cu13", "cuda_nvcc"} {
			if _, err := os.Stat(filepath.Join(root, "nvidia", name, "nvvm")); err == nil && cuda == "" {
				cuda = filepath.Join(root, "nvidia", name)
			}
		}
	}
	return dirs, cuda
}

// candidates are the plugins that opening the engine spec names may load.
func candidates(spec string) []string {
	switch kind, plugin, _ := strings.Cut(spec, ":"); {
	case kind == "go":
		return nil
	case plugin != "":
		path, _, _ := strings.Cut(plugin, ",")
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil
		}
		return []string{abs}
	default:
		return Plugins()
	}
}

// loader are the settings that the dynamic linker and XLA read at a process's start, with what the
// plugins and their libraries need added.
func loader(plugins []string) []string {
	var dirs, flags []string
	for _, plugin := range plugins {
		more, cuda := libraries(plugin)
		dirs = append(dirs, more...)
		if cuda != "" {
			flags = append(flags, "--xla_gpu_cuda_data_dir="+cuda)
		}
	}
	all := os.Getenv("XLA_FLAGS")
	var env []string
	path := os.Getenv("LD_LIBRARY_PATH")
	present := filepath.SplitList(path)
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return slices.Contains(present, dir) })
	if len(dirs) > 0 {
		env = append(env, "LD_LIBRARY_PATH="+strings.Join(append(present, dirs...), string(filepath.ListSeparator)))
	}
	for _, flag := range flags {
		if name, _, _ := strings.Cut(flag, "="); !strings.Contains(all, name+"=") {
			all += " " + flag
		}
	}
	if all != os.Getenv("XLA_FLAGS") {
		env = append(env, "XLA_FLAGS="+strings.TrimSpace(all))
	}
	return env
}

// choices are flags by which XLA computes faster on the processor than by its own choice. The flags of a
// choice belong together: they are given where a plugin has all that they need inside and the user has
// decided on none of them. A plugin that does not know a flag ends the process, and one that does
// has its name inside.
var choices = []struct {
	flags   []string // name=value
	needs   string   // beside the flags' names, or empty, which every file has inside
	usable  bool
	float16 bool // for programs that multiply float16, too
}{
	// Vectors have 256 bits otherwise. With whole registers of AVX-512 a step of training is 3 % faster.
	{flags: []string{"xla_cpu_prefer_vector_width=512"}, usable: cpu.X86.HasAVX512F, float16: true},
	// Products by oneDNN instead of YNNPACK, which multiplies float32 a tenth slower, has no product of a
	// transposed matrix, and does not add biases, residual sums and GELU while it writes. For float16
	// oneDNN has no more than a reference on most processors: a step takes minutes.
	{flags: []string{"xla_cpu_experimental_onednn_custom_call=true", "xla_cpu_experimental_ynn_fusion_type="}, needs: "__onednn$matmul", usable: true},
}

// processorFlags are those of the choices that a plugin for the processor can do with, beside the flags that
// are present.
func processorFlags(plugin, present string, float16 bool) []string {
	var flags []string
	for _, choice := range choices {
		texts := []string{choice.needs}
		decided := !choice.usable || float16 && !choice.float16
		for _, flag := range choice.flags {
			name, _, _ := strings.Cut(flag, "=")
			texts = append(texts, name)
			decided = decided || strings.Contains(present, name+"=")
		}
		if decided || !contains(plugin, texts...) {
			continue
		}
		for _, flag := range choice.flags {
			flags = append(flags, "--"+flag)
		}
	}
	return flags
}

// contains tells whether a file has all of the texts inside.
func contains(path string, texts ...string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	longest := 0
	for _, text := range texts {
		longest = max(longest, len(text))
	}
	piece := make([]byte, 1<<20)
	for kept := 0; ; {
		n, err := f.Read(piece[kept:])
		read := piece[:kept+n]
		texts = slices.DeleteFunc(texts, func(text string) bool { return bytes.Contains(read, []byte(text)) })
		if len(texts) == 0 {
			return true
		}
		if err != nil {
			return false
		}
		kept = copy(piece, read[max(0, len(read)-longest):]) // a text may lie across two pieces
	}
}
