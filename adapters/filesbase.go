package adapters

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/format"
)

// FilesBase describes as much of a base as adapters' files tell: the modules that they adapt and the
// parameters that they replace. It is enough for work on adapters that needs no weights.
func FilesBase(dirs ...string) (Base, error) {
	b := Base{tied: map[string]string{}, Values: func(name string) ([]float32, error) {
		return nil, fmt.Errorf("%w: the base's %q is not known here", ErrMismatch, name)
	}}
	tensors := map[string][]int{}
	transposed := false
	for _, dir := range dirs {
		hints := adapterHints{shapes: map[string][]int{}, transposed: map[string]bool{}}
		if err := hints.read(dir); err != nil {
			return b, err
		}
		maps.Copy(tensors, hints.shapes)
		transposed = transposed || slices.Contains(slices.Collect(maps.Values(hints.transposed)), true)
	}
	for name := range tensors {
		if strings.HasPrefix(name, "vit.") {
			b.ModelType = "vit"
		}
	}
	parts := map[string]map[string][]int{} // by module
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		module, _, ok := format.SplitAdapterName(name)
		if !ok {
			if strings.Contains(name, savedCopy) {
				continue
			}
			canonical := format.Canonical(b.ModelType, name)
			if !slices.ContainsFunc(b.Parameters, func(p Parameter) bool { return p.Name == canonical }) {
				b.Parameters = append(b.Parameters, Parameter{Name: canonical, Shape: tensors[name]})
			}
			continue
		}
		canonical := format.Canonical(b.ModelType, module)
		if parts[canonical] == nil {
			parts[canonical] = map[string][]int{}
		}
		parts[canonical][strings.TrimPrefix(name, module+".")] = tensors[name]
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		m, ok := moduleOf(name, parts[name])
		if !ok {
			return b, fmt.Errorf("%w: the tensors of %q do not tell its shape; name the base", ErrMethod, name)
		}
		if transposed && m.Kind == Linear {
			m.Kind = Transposed
		}
		m.Bias = parts[name]["lora_B.bias"] != nil || slices.ContainsFunc(b.Parameters, func(p Parameter) bool { return p.Name == name+".bias" })
		b.Modules = append(b.Modules, m)
	}
	return b, nil
}

// moduleOf finds a module's shape by the shapes of its adapter's tensors.
func moduleOf(name string, parts map[string][]int) (m Module, ok bool) {
	dim := func(part string, axis int) int {
		if s := parts[part]; axis < len(s) {
			return s[axis]
		}
		return 0
	}
	m = Module{Name: name}
	switch {
	case len(parts["lora_A.weight"]) == 4:
		m.Kind, m.Shape = Convolution, append([]int{dim("lora_B.weight", 0)}, parts["lora_A.weight"][1:]...)
	case parts["lora_A.weight"] != nil:
		m.Shape = []int{dim("lora_B.weight", 0), dim("lora_A.weight", 1)}
	case parts["lora_A"] != nil: // AdaLoRA
		m.Shape = []int{dim("lora_B", 0), dim("lora_A", 1)}
	case parts["lora_embedding_A"] != nil:
		m.Kind, m.Shape = Embedding, []int{dim("lora_embedding_B", 0), dim("lora_embedding_A", 1)}
	case len(parts["hada_t1"]) == 4:
		m.Kind, m.Shape = Convolution, []int{dim("hada_w1_a", 1), dim("hada_w1_b", 1), dim("hada_t1", 2), dim("hada_t1", 3)}
	case parts["hada_w1_a"] != nil:
		m.Shape = []int{dim("hada_w1_a", 0), dim("hada_w1_b", 1)}
	case parts["lokr_w1"] != nil || parts["lokr_w1_a"] != nil:
		l, c := dim("lokr_w1", 0)+dim("lokr_w1_a", 0), dim("lokr_w1", 1)+dim("lokr_w1_b", 1)
		switch w2, t2 := parts["lokr_w2"], parts["lokr_t2"]; {
		case len(w2) == 4:
			m.Kind, m.Shape = Convolution, []int{l * w2[0], c * w2[1], w2[2], w2[3]}
		case w2 != nil:
			m.Shape = []int{l * dim("lokr_w2", 0), c * dim("lokr_w2", 1)}
		case len(t2) == 4:
			m.Kind, m.Shape = Convolution, []int{l * dim("lokr_w2_a", 1), c * dim("lokr_w2_b", 1), t2[2], t2[3]}
		default:
			m.Shape = []int{l * dim("lokr_w2_a", 0), c * dim("lokr_w2_b", 1)}
		}
	}
	return m, len(m.Shape) > 0 && !slices.Contains(m.Shape, 0)
}
