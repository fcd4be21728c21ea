package engine_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/gemm"
	"github.com/hubtool/hubtool/model/engine/vecmath"
)

func TestOpenGo(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.Spec != "go" || e.Backend.String() != "go" {
		t.Errorf("engine is %+v", e)
	}
}

func TestOpenAutoFallsBackToGo(t *testing.T) {
	t.Setenv("PJRT_PLUGIN_LIBRARY_PATH", t.TempDir())
	e, err := engine.Open("auto")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.Spec != "go" || e.Why == "" {
		t.Errorf("engine %q because %q, want go and a reason", e.Spec, e.Why)
	}
}

// A plugin that cannot be loaded is a sentence, never a crash, and auto goes on without it.
func TestOpenBrokenPlugin(t *testing.T) {
	dir := t.TempDir()
	plugin := filepath.Join(dir, "pjrt_c_api_broken_plugin.so")
	if err := os.WriteFile(plugin, []byte("not a library"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, spec := range []string{"xla:" + plugin, "xla:" + filepath.Join(dir, "missing.so"), "xla:" + dir, "tpu"} {
		if _, err := engine.Open(spec); !errors.Is(err, engine.ErrUnavailable) {
			t.Errorf("Open(%q) = %v, want ErrUnavailable", spec, err)
		}
	}
	t.Setenv("PJRT_PLUGIN_LIBRARY_PATH", dir)
	e, err := engine.Open("auto")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.Spec != "go" || engine.XLA && !strings.Contains(e.Why, "broken") {
		t.Errorf("engine %q because %q, want go and the plugin's failure", e.Spec, e.Why)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("GODEBUG", "gctrace=0")
	env := engine.Environment("go")
	if !simdBuild() {
		if env != nil {
			t.Errorf("a build without GOEXPERIMENT=simd wants %v", env)
		}
		return
	}
	if len(env) == 0 || env[0] != "GODEBUG=gctrace=0,cpu.fma=off" {
		t.Errorf("environment starts with %q", env[:1])
	}
	t.Setenv("GODEBUG", "cpu.fma=off")
	if env := engine.Environment("go"); env != nil {
		t.Error("the process would be started again for ever")
	}
}

// simdBuild tells how this test was built, as the binary itself says.
func simdBuild() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool {
		return s.Key == "GOEXPERIMENT" && strings.Contains(s.Value, "simd")
	})
}

// The Go engine multiplies by our kernels where there is one, bit for bit, in both layouts and with a batch.
func TestKernel(t *testing.T) {
	if engine.Kernel() != gemm.Kernel() {
		t.Fatalf("kernel %q, but %q multiplies here: GoMLX's registry of products has changed", engine.Kernel(), gemm.Kernel())
	}
	if gemm.Kernel() == "" {
		t.Skip("no kernel for this processor")
	}
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	const batch, m, n, k = 2, 5, 40, 700
	a, b := make([]float32, batch*m*k), make([]float32, batch*k*n)
	for i := range a {
		a[i] = float32(math.Sin(float64(i)))
	}
	for i := range b {
		b[i] = float32(math.Cos(float64(i)))
	}
	for _, c := range []struct {
		transposed bool
		dims       []int
		axis       int
	}{{false, []int{batch, k, n}, 1}, {true, []int{batch, n, k}, 2}} {
		got, err := graph.CallOnce(e.Backend, func(x, y *graph.Node) *graph.Node {
			return graph.Dot(x, y).General([]int{2}, []int{0}, []int{c.axis}, []int{0})
		}, tensors.FromFlatDataAndDimensions(a, batch, m, k), tensors.FromFlatDataAndDimensions(b, c.dims...))
		if err != nil {
			t.Fatal(err)
		}
		want := make([]float32, batch*m*n)
		gemm.Multiply(want, a, b, gemm.Shape{Batch: batch, M: m, N: n, K: k, Transposed: c.transposed})
		if values := tensors.MustCopyFlatData[float32](got); !slices.Equal(values, want) {
			t.Errorf("transposed %t: the engine gives %v ..., its kernel %v ...", c.transposed, values[:3], want[:3])
		}
	}
}

// The Go engine computes functions of float32 by package vecmath, bit for bit, without touching an argument that
// is needed further on, and all others as GoMLX does.
func TestFunctions(t *testing.T) {
	if !engine.FastFunctions() {
		t.Fatal("GoMLX computes GELU and softmax by itself: what executes its operations has changed")
	}
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	const rows, n = 5, 37
	x := make([]float32, rows*n)
	for i := range x {
		x[i] = 5 * float32(math.Sin(float64(i)))
	}
	one := func(f func(float64) float64) func([]float32) {
		return func(x []float32) {
			for i, v := range x {
				x[i] = float32(f(float64(v)))
			}
		}
	}
	softmax := func(x []float32) { vecmath.Softmax(x, n) }
	for _, c := range []struct {
		name  string
		build func(x *graph.Node) *graph.Node
		want  func([]float32)
		error float64
	}{
		{"erf", graph.Erf, vecmath.Erf, 0},
		{"exp", graph.Exp, vecmath.Exp, 0},
		{"gelu", func(x *graph.Node) *graph.Node { return graph.BackendFusedGelu(x, true) }, vecmath.Gelu, 0},
		{"softmax", func(x *graph.Node) *graph.Node { return graph.BackendFusedSoftmax(x, 1) }, softmax, 0},
		{"approximate gelu", func(x *graph.Node) *graph.Node { return graph.BackendFusedGelu(x, false) },
			one(func(v float64) float64 { return v / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v))) }), 1e-6},
		{"softmax of columns", func(x *graph.Node) *graph.Node {
			return graph.Transpose(graph.BackendFusedSoftmax(graph.Transpose(x, 0, 1), 0), 0, 1)
		}, softmax, 1e-6},
		{"exp in float64", func(x *graph.Node) *graph.Node {
			return graph.ConvertDType(graph.Exp(graph.ConvertDType(x, dtypes.Float64)), dtypes.Float32)
		}, one(math.Exp), 0},
	} {
		got, err := graph.CallOnceN(e.Backend, func(in *graph.Node) []*graph.Node {
			own := graph.AddScalar(in, 0) // a buffer that the function may take, were it not an output as well
			return []*graph.Node{c.build(own), own, c.build(graph.AddScalar(in, 0.5))}
		}, tensors.FromFlatDataAndDimensions(x, rows, n))
		if err != nil {
			t.Fatal(err)
		}
		if kept := tensors.MustCopyFlatData[float32](got[1]); !slices.Equal(kept, x) {
			t.Errorf("%s writes over its argument", c.name)
		}
		for output, shift := range map[int]float32{0: 0, 2: 0.5} {
			want := slices.Clone(x)
			for i := range want {
				want[i] += shift
			}
			c.want(want)
			for i, v := range tensors.MustCopyFlatData[float32](got[output]) {
				if math.Abs(float64(v-want[i])) > c.error {
					t.Fatalf("%s(%g) is %g, want %g", c.name, x[i]+shift, v, want[i])
				}
			}
		}
	}
}

// A plugin for the processor wants an allocator that keeps memory, whatever else the user tells it.
func TestEnvironmentOfPlugins(t *testing.T) {
	if !engine.XLA {
		t.Skip("this build has no XLA")
	}
	t.Setenv("GODEBUG", "cpu.fma=off")
	for _, c := range []struct{ plugin, present, want string }{
		{"pjrt_c_api_cpu_plugin.so", "", "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"},
		{"pjrt_c_api_cpu_plugin.so,tf32=false", "glibc.malloc.mmap_max=7:glibc.rtld.nns=5",
			"glibc.malloc.mmap_max=7:glibc.rtld.nns=5:glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=17179869184"},
		{"pjrt_c_api_cuda_plugin.so", "", ""},
	} {
		t.Setenv("GLIBC_TUNABLES", c.present)
		env := engine.Environment("xla:/nowhere/" + c.plugin)
		got := ""
		if len(env) > 0 {
			got = strings.TrimPrefix(env[0], "GLIBC_TUNABLES=")
		}
		if got != c.want {
			t.Errorf("%s beside %q: %q, want %q", c.plugin, c.present, got, c.want)
		}
		t.Setenv("GLIBC_TUNABLES", got)
		if again := engine.Environment("xla:/nowhere/" + c.plugin); again != nil {
			t.Errorf("%s: the process would be started again for ever", c.plugin)
		}
	}
}

// TF32 and non-deterministic kernels are things of GPUs.
func TestModes(t *testing.T) {
	specs := []string{"go"}
	if plugin := os.Getenv("HUBTOOL_TEST_XLA"); plugin != "" {
		specs = append(specs, "xla:"+plugin)
	}
	const own = "--xla_gpu_per_fusion_autotune_cache_dir=/nowhere" // what docs/benchmarks.md tells users of: it stays, and plugins know it
	t.Setenv("XLA_FLAGS", own)
	for range 2 {
		if err := engine.Deterministic(); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := os.Getenv("XLA_FLAGS"), own+" --xla_gpu_deterministic_ops=true"; got != want {
		t.Errorf("XLA_FLAGS is %q, want %q", got, want)
	}
	for _, spec := range specs { // a plugin ends the process where it does not know a flag
		e, err := engine.Open(spec)
		if err != nil {
			t.Fatal(err)
		}
		if e.Accelerated() {
			t.Errorf("%s is taken for an accelerator", e.Spec)
		}
		if err := e.SetTF32(false); !errors.Is(err, engine.ErrUnavailable) {
			t.Errorf("%s has TF32: %v", e.Spec, err)
		}
		e.Close()
	}
}
