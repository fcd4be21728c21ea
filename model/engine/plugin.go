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
	// The file is searched last, and not again when the process has been started anew.
	if len(plugins) > 0 && isCPUPlugin(plugins[0]) && cpu.X86.HasAVX512F && !strings.Contains(all, wide+"=") && contains(plugins[0], wide) {
		flags = append(flags, "--"+wide+"=512")
	}
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

// wide is how long the vectors are that XLA has LLVM use, 256 bits unless told otherwise. On processors
// with AVX-512 whole registers make a step of training 3 % faster.
const wide = "xla_cpu_prefer_vector_width"

// contains looks for a text in a file. A plugin that does not know a flag ends the process, and one that
// does has its name inside.
func contains(path, text string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	piece := make([]byte, 1<<20)
	for kept := 0; ; {
		n, err := f.Read(piece[kept:])
		read := piece[:kept+n]
		if bytes.Contains(read, []byte(text)) {
			return true
		}
		if err != nil {
			return false
		}
		kept = copy(piece, read[max(0, len(read)-len(text)):]) // the text may lie across two pieces
	}
}
