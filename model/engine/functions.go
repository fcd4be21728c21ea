package engine

import (
	"reflect"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"github.com/hubtool/hubtool/model/engine/vecmath"
)

// The Go backend keeps what executes each operation in a table that lies in an internal package, as the registry
// of products does. executors is that variable by its linker name; pointers are to structs that cannot be
// named here. If it is called something else in a new version of GoMLX, all of it is nil here.
//
//go:linkname executors github.com/gomlx/compute/internal/gobackend.nodeExecutors
var executors [compute.OpTypeLast]executor

type executor func(backend, node unsafe.Pointer, inputs []unsafe.Pointer, owned []bool) (output unsafe.Pointer, err error)

// FastFunctions tells whether the Go engine computes GELU, softmax, exponentials and the error function of
// float32 by package vecmath. If not, GoMLX's own do: as right, and many times slower.
func FastFunctions() bool { return fastFunctions }

var fastFunctions = replaceFunctions()

func replaceFunctions() bool {
	l, ok := findLayout()
	identity := executors[compute.OpTypeIdentity]
	if !ok || identity == nil {
		return false
	}
	for _, r := range []struct {
		op      compute.OpType
		compute func(x []float32, width int)
		applies func(data reflect.Value, rank int) bool // to an operation with these settings; nil: it has none
	}{
		{compute.OpTypeErf, func(x []float32, _ int) { vecmath.Erf(x) }, nil},
		{compute.OpTypeExp, func(x []float32, _ int) { vecmath.Exp(x) }, nil},
		{compute.OpTypeFusedGelu, func(x []float32, _ int) { vecmath.Gelu(x) },
			func(data reflect.Value, _ int) bool { return data.FieldByName("exact").Bool() }},
		{compute.OpTypeFusedSoftmax, vecmath.Softmax,
			func(data reflect.Value, rank int) bool { return data.FieldByName("axis").Int() == int64(rank-1) }},
	} {
		original := executors[r.op]
		executors[r.op] = func(backend, node unsafe.Pointer, inputs []unsafe.Pointer, owned []bool) (unsafe.Pointer, error) {
			shape := *(*shapes.Shape)(unsafe.Add(inputs[0], l.shape))
			data := *(*any)(unsafe.Add(node, l.data))
			if shape.DType != dtypes.Float32 || shape.Rank() == 0 || r.applies != nil && !r.applies(reflect.ValueOf(data).Elem(), shape.Rank()) {
				return original(backend, node, inputs, owned)
			}
			// Identity's output is a copy to compute in, or the input itself where nothing else needs it.
			output, err := identity(backend, node, inputs, owned)
			if err == nil {
				r.compute((*(*any)(unsafe.Add(output, l.flat))).([]float32), shape.Dimensions[shape.Rank()-1])
			}
			return output, err
		}
	}
	return true
}

// layout is where the fields that are needed lie in the internal structs.
type layout struct{ shape, flat, data uintptr }

// findLayout looks at what the backend itself makes. It is not ok where a field is not as it is known here.
func findLayout() (l layout, ok bool) {
	b, err := compute.NewWithConfig("go:ops_sequential")
	if err != nil {
		return l, false
	}
	defer b.Finalize()
	shape := shapes.Make(dtypes.Float32, 1)
	buffer, err := b.BufferFromFlatData(0, []float32{0}, shape)
	if err != nil {
		return l, false
	}
	f := b.Builder("layout").Main()
	x, err := f.Parameter("x", shape, nil)
	if err != nil {
		return l, false
	}
	gelu, err := f.FusedGelu(x, true)
	if err != nil {
		return l, false
	}
	softmax, err := f.FusedSoftmax(x, 0)
	if err != nil {
		return l, false
	}
	ok = true
	offset := func(of any, name string, want reflect.Type) uintptr {
		t := reflect.TypeOf(of)
		if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
			ok = false
			return 0
		}
		field, found := t.Elem().FieldByName(name)
		ok = ok && found && field.Type == want
		return field.Offset
	}
	l.shape = offset(buffer, "RawShape", reflect.TypeFor[shapes.Shape]())
	l.flat = offset(buffer, "Flat", reflect.TypeFor[any]())
	l.data = offset(gelu, "Data", reflect.TypeFor[any]())
	if !ok || reflect.TypeOf(softmax) != reflect.TypeOf(gelu) {
		return l, false
	}
	offset(reflect.ValueOf(gelu).Elem().FieldByName("Data").Interface(), "exact", reflect.TypeFor[bool]())
	offset(reflect.ValueOf(softmax).Elem().FieldByName("Data").Interface(), "axis", reflect.TypeFor[int]())
	return l, ok
}
