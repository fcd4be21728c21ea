// Package engine opens what hubtool computes on: GoMLX's own Go backend, which every build has, or
// XLA through a PJRT plugin, where the build has cgo.
//
// It is the only package that links backends; the others are handed a [compute.Backend].
package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/support/exceptions"
	"golang.org/x/sys/cpu"
)

// ErrUnavailable is returned when an engine was asked for by name and cannot be used.
var ErrUnavailable = errors.New("engine not available")

// Engine is an opened backend and how to feed it.
type Engine struct {
	Backend compute.Backend

	// Spec reopens the same engine: "go" or "xla:/path/to/plugin.so".
	Spec string

	// Why says in a sentence how the engine came to be chosen.
	Why string
}

// Open opens the engine that spec names:
//
//	""  or "auto"   an XLA plugin for a GPU if one is installed and works, then one for the CPU,
//	                then the Go backend
//	"go"            the Go backend
//	"xla"           the first XLA plugin that is installed
//	"xla:PLUGIN"    the plugin in that file; options may follow, as in "xla:/p.so,tf32=false"
//
// The error wraps [ErrUnavailable] where a named engine cannot be used.
func Open(spec string) (*Engine, error) { return Opener{}.Open(spec) }

// Opener opens engines, and tries plugins elsewhere first.
type Opener struct {
	// Try loads a plugin in another process, because a wrong one can crash the one that it is loaded
	// into; nil loads it at once.
	Try func(plugin string) error

	// Devices is how many devices are wanted. The processor is one, unless more are asked for: a plugin for
	// it then makes as many out of its threads, and of more threads than the processor has where it must.
	Devices int

	// Float16 tells that programs will multiply float16.
	Float16 bool
}

// Open opens the engine that spec names, as [Open] does.
func (o Opener) Open(spec string) (*Engine, error) {
	switch kind, plugin, _ := strings.Cut(spec, ":"); {
	case spec == "" || spec == "auto":
		return o.auto()
	case spec == "go":
		return openGo("it was asked for")
	case kind == "xla" && plugin == "":
		plugins := Plugins()
		if len(plugins) == 0 {
			return nil, fmt.Errorf("opening engine %q: %w: no plugin in %s: \"hubtool engine install cpu\" gets one, or name the file with xla:PATH",
				spec, ErrUnavailable, strings.Join(append([]string{DataDir()}, pluginDirs()...), ", "))
		}
		return o.xla(plugins[0], "it is the first plugin installed")
	case kind == "xla":
		return o.xla(plugin, "it was asked for")
	default:
		return nil, fmt.Errorf("opening engine %q: %w: must be auto, go, xla or xla:PATH", spec, ErrUnavailable)
	}
}

func (o Opener) auto() (*Engine, error) {
	var failed []string
	for _, plugin := range Plugins() {
		e, err := o.xla(plugin, "it is installed and works")
		if err == nil {
			return e, nil
		}
		failed = append(failed, err.Error())
	}
	why := "no XLA plugin is installed"
	switch {
	case len(failed) > 0:
		why = strings.Join(failed, "; ")
	case !xlaLinked:
		why = "this build has no XLA (it was built without cgo)"
	}
	return openGo(why)
}

// openGo opens the Go backend. Its default of running graph nodes in parallel can deadlock: nodes
// wait for slots of the pool that they hold themselves. Sequential nodes still use the pool inside.
func openGo(why string) (*Engine, error) {
	b, err := catch(func() (compute.Backend, error) { return compute.NewWithConfig("go:ops_sequential") })
	if err != nil {
		return nil, fmt.Errorf("opening the Go engine: %w", err)
	}
	return &Engine{Backend: b, Spec: "go", Why: why}, nil
}

func (o Opener) xla(plugin, why string) (*Engine, error) {
	fail := func(err error) (*Engine, error) {
		return nil, fmt.Errorf("opening XLA plugin %q: %w: %w", plugin, ErrUnavailable, err)
	}
	if !xlaLinked {
		return fail(errors.New("this build has no XLA: build with CGO_ENABLED=1 on Linux"))
	}
	path, options, _ := strings.Cut(plugin, ",")
	abs, err := filepath.Abs(path)
	if err != nil {
		return fail(err)
	}
	if err := CheckPlugin(abs); err != nil {
		return fail(err)
	}
	if o.Try != nil {
		if err := o.Try(abs); err != nil {
			return fail(err)
		}
	}
	if options != "" {
		options = "," + options
	}
	processor := isCPUPlugin(abs)
	if processor {
		if err := addFlags(processorFlags(abs, os.Getenv("XLA_FLAGS"), o.Float16)...); err != nil {
			return fail(err)
		}
	}
	// An absolute path skips go-xla's search, its naming rule and its test for a GPU.
	b, err := catch(func() (compute.Backend, error) { return newXLA(abs+options, processor, max(1, o.Devices)) })
	if err != nil {
		return fail(err)
	}
	return &Engine{Backend: b, Spec: "xla:" + abs + options, Why: why}, nil
}

// catch turns the panics of a backend's constructor into errors: go-xla dereferences nil where dlopen
// fails, and GoMLX panics on an unknown name.
func catch(open func() (compute.Backend, error)) (b compute.Backend, err error) {
	if caught := exceptions.Try(func() { b, err = open() }); caught != nil {
		var bug runtime.Error
		if e, ok := caught.(error); ok && errors.As(e, &bug) {
			return nil, fmt.Errorf("it does not answer as a plugin does: %w", bug)
		} else if ok {
			return nil, e
		}
		return nil, fmt.Errorf("%v", caught)
	}
	return b, err
}

// Plugins lists the PJRT plugins in [DataDir], and found where go-xla's installer and system packages
// put them, those for a GPU first.
func Plugins() []string {
	var found, gpu, cpu []string
	if os.Getenv("PJRT_PLUGIN_LIBRARY_PATH") == "" {
		found = installed()
	}
	for _, dir := range pluginDirs() {
		more, _ := filepath.Glob(filepath.Join(dir, "pjrt_c_api_*_plugin.so"))
		found = append(found, more...)
	}
	for _, path := range found {
		if isCPUPlugin(path) {
			cpu = append(cpu, path)
		} else {
			gpu = append(gpu, path)
		}
	}
	return append(gpu, cpu...)
}

func pluginDirs() []string {
	if list := os.Getenv("PJRT_PLUGIN_LIBRARY_PATH"); list != "" {
		return filepath.SplitList(list)
	}
	dirs := []string{"/usr/local/lib/go-xla", "/usr/local/lib/go-xla/nvidia"}
	if home, err := os.UserHomeDir(); err == nil {
		local := filepath.Join(home, ".local/lib/go-xla")
		dirs = append([]string{local, filepath.Join(local, "nvidia")}, dirs...)
	}
	return dirs
}

// IsGo tells whether it is GoMLX's own backend.
func (e *Engine) IsGo() bool { return e.Spec == "go" }

// Accelerated tells whether it computes on something else than the processor, going by the name of
// the plugin.
func (e *Engine) Accelerated() bool {
	plugin, _, _ := strings.Cut(e.Spec, ",")
	return !e.IsGo() && !isCPUPlugin(plugin)
}

// BFloat16 tells whether it is XLA on a processor that multiplies bfloat16 several times faster than
// float32.
func (e *Engine) BFloat16() bool { return !e.IsGo() && !e.Accelerated() && cpu.X86.HasAMXBF16 }

func isCPUPlugin(path string) bool { return strings.Contains(filepath.Base(path), "cpu") }

// Close frees the backend.
func (e *Engine) Close() { e.Backend.Finalize() }

// String describes the engine for people.
func (e *Engine) String() string {
	if !e.IsGo() {
		plural := "s"
		if e.Backend.NumDevices() == 1 {
			plural = ""
		}
		return fmt.Sprintf("%s (%d device%s)", e.Spec, e.Backend.NumDevices(), plural)
	}
	kernel := "no vector kernels for this processor"
	if Kernel() != "" {
		kernel = Kernel() + " kernels"
	}
	return fmt.Sprintf("go (%s, %d threads)", kernel, runtime.GOMAXPROCS(0))
}
