package engine

import (
	"reflect"
	_ "unsafe" // for linkname

	"github.com/gomlx/compute/dtypes"

	"github.com/hubtool/hubtool/model/engine/gemm"
)

// The Go backend keeps its implementations of products in a registry that is made for others to be added,
// but lies in an internal package. registry is that variable by its linker name, and the types below
// are its types, field by field. TestKernel fails if a new version of GoMLX has changed them.
//
//go:linkname registry github.com/gomlx/compute/internal/gobackend/dot.registeredImplementations
var registry map[productKey]*product

type productKey struct {
	layout        int // 0: [batch, M, K] x [batch, K, N]; 1: [batch, M, K] x [batch, N, K]
	input, output dtypes.DType
}

// product is the beginning of a registration.
type product struct {
	name     string
	multiply any // func(backend, layout, a, b []float32, batch, m, n, k int, c []float32)
}

// Kernel names the vector kernels by which the Go engine multiplies float32, "AVX-512" or "AVX2". It is
// empty where this processor has none and GoMLX's own products remain.
func Kernel() string { return kernel }

// The registry is complete once the packages imported here are initialised, and graphs are built later.
var kernel = replaceProducts()

func replaceProducts() string {
	if gemm.Kernel() == "" {
		return ""
	}
	for layout := range 2 {
		p := registry[productKey{layout, dtypes.Float32, dtypes.Float32}]
		if p == nil {
			return ""
		}
		replacement, ok := multiply(reflect.TypeOf(p.multiply), layout == 1)
		if !ok {
			return ""
		}
		p.name, p.multiply = "gemm", replacement
	}
	return gemm.Kernel()
}

// Arithmetic tells builds and processors apart between which the Go engine's results may differ in their
// last bits: both vector kernels give the same, other products and a math.Exp without FMA do not.
func Arithmetic() string {
	name := "scalar products"
	if Kernel() != "" {
		name = "vector kernels"
	}
	if simdBuild {
		name += " without FMA"
	}
	return name
}

// multiply makes a function of the registry's type, which has parameters of internal types and so can only
// be had by reflection. It is not ok if the type is not the one that is known here.
func multiply(t reflect.Type, transposed bool) (f any, ok bool) {
	floats, integer := reflect.TypeFor[[]float32](), reflect.TypeFor[int]()
	want := []reflect.Type{nil, nil, floats, floats, integer, integer, integer, integer, floats}
	if t == nil || t.Kind() != reflect.Func || t.NumIn() != len(want) || t.NumOut() != 0 {
		return nil, false
	}
	for i, in := range want {
		if in != nil && t.In(i) != in {
			return nil, false
		}
	}
	return reflect.MakeFunc(t, func(in []reflect.Value) []reflect.Value {
		size := func(i int) int { return int(in[i].Int()) }
		matrix := func(i int) []float32 { return in[i].Interface().([]float32) }
		gemm.Multiply(matrix(8), matrix(2), matrix(3),
			gemm.Shape{Batch: size(4), M: size(5), N: size(6), K: size(7), Transposed: transposed})
		return nil
	}).Interface(), true
}
