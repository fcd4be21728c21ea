package adapters

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/format"
)

// conv1D lists modules that transformers stores [in, out], by model type.
var conv1D = map[string][]string{
	"gpt2":                 {"c_attn", "q_attn", "c_proj", "c_fc"},
	"openai-gpt":           {"c_attn", "c_proj", "c_fc"},
	"imagegpt":             {"c_attn", "q_attn", "c_proj", "c_fc"},
	"decision_transformer": {"c_attn", "q_attn", "c_proj", "c_fc"},
	"clvp":                 {"c_fc", "c_proj"},
}

// outerPrefixes are what a model with a head may put before the names of the backbone.
var outerPrefixes = []string{"model.", "transformer.", "bert.", "roberta.", "base_model."}

// inputEmbeddings are the last parts of names of modules whose weight a head may share.
var inputEmbeddings = []string{"embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in", "shared"}

// tiedHead is the module that has the input embeddings for weight where a checkpoint has none for it.
const tiedHead = "lm_head"

// CheckpointBase describes a checkpoint for which there is no model code, as the adapters in some
// directories see it: every weight of two dimensions is a linear layer's, every one of four a
// convolution's, unless the adapters or the model type tell otherwise.
func CheckpointBase(cfg *format.ModelConfig, ck *format.Checkpoint, adapters ...string) (Base, error) {
	b := Base{ModelType: cfg.ModelType, tied: map[string]string{}}
	hints := adapterHints{shapes: map[string][]int{}, transposed: map[string]bool{}}
	for _, dir := range adapters {
		if err := hints.read(dir); err != nil {
			return b, err
		}
	}
	stored := map[string][]int{}
	for t := range ck.Tensors() {
		stored[t.Info().Name] = t.Info().Shape
	}
	b.alignNames(stored, hints)
	shapes := map[string][]int{}
	for t := range ck.Tensors() {
		name := b.canonical(t.Info().Name)
		shapes[name] = t.Info().Shape
		b.Parameters = append(b.Parameters, Parameter{Name: name, Shape: t.Info().Shape})
	}
	b.addAbsent(cfg, shapes, hints)
	for _, p := range b.Parameters {
		name, ok := strings.CutSuffix(p.Name, ".weight")
		if !ok || len(p.Shape) != 2 && len(p.Shape) != 4 {
			continue
		}
		m := Module{Name: name, Kind: Convolution, Shape: p.Shape, Bias: shapes[name+".bias"] != nil}
		if len(p.Shape) == 2 {
			m.Kind = hints.kind(cfg.ModelType, name, p.Shape)
		}
		if m.Kind.transposed() {
			m.Shape = []int{p.Shape[1], p.Shape[0]}
		}
		b.Modules = append(b.Modules, m)
	}
	return b, nil
}

// adapterHints is what adapters' files tell about the base that they were made for.
type adapterHints struct {
	modules    []string         // that are adapted
	shapes     map[string][]int // of all tensors, by name without PEFT's prefix
	transposed map[string]bool  // adapted modules of an adapter whose config says fan_in_fan_out
	saved      []string         // modules_to_save
}

func (h *adapterHints) read(dir string) error {
	cfg, err := format.ReadAdapterConfig(dir)
	if err != nil {
		return err
	}
	ck, err := format.Open(dir)
	if err != nil {
		return err
	}
	defer ck.Close()
	var layout struct {
		FanInFanOut bool `json:"fan_in_fan_out"`
	}
	if err := cfg.Method(&layout); err != nil {
		return err
	}
	h.saved = append(h.saved, cfg.ModulesToSave...)
	for t := range ck.Tensors() {
		name := strings.TrimPrefix(t.Info().Name, keyPrefix)
		if copied(name) {
			continue
		}
		h.shapes[strings.Replace(name, ".base_layer.", ".", 1)] = t.Info().Shape
		if module, _, ok := format.SplitAdapterName(t.Info().Name); ok {
			module = strings.TrimSuffix(module, ".base_layer")
			h.modules = append(h.modules, module)
			h.transposed[module] = layout.FanInFanOut
		}
	}
	slices.Sort(h.modules)
	h.modules = slices.Compact(h.modules)
	return nil
}

// alignNames finds the prefix that makes the names of adapters and checkpoint agree, if one does.
func (b *Base) alignNames(stored map[string][]int, h adapterHints) {
	found := func(b Base) (n int) {
		names := map[string]bool{}
		for name := range stored {
			names[b.canonical(name)] = true
		}
		for _, m := range h.modules {
			if names[m+".weight"] {
				n++
			}
		}
		return n
	}
	best := found(*b)
	for _, prefix := range append(slices.Clone(outerPrefixes), b.ModelType+".") {
		for _, other := range []Base{{ModelType: b.ModelType, added: prefix}, {ModelType: b.ModelType, absent: prefix}} {
			if n := found(other); n > best {
				best = n
				b.added, b.absent = other.added, other.absent
			}
		}
	}
}

// addAbsent adds parameters that the checkpoint lacks: a head that shares the input embeddings, and
// modules that an adapter brings along whole.
func (b *Base) addAbsent(cfg *format.ModelConfig, shapes map[string][]int, h adapterHints) {
	add := func(name string, shape []int) {
		shapes[name] = shape
		b.Parameters = append(b.Parameters, Parameter{Name: name, Shape: shape})
	}
	if embedding := tiedEmbedding(cfg, shapes); embedding != "" {
		b.tied[tiedHead+".weight"] = embedding
		if slices.Contains(h.modules, tiedHead) || h.shapes[tiedHead+".weight"] != nil {
			add(tiedHead+".weight", shapes[embedding])
		}
	}
	for _, entry := range h.saved {
		if slices.ContainsFunc(slices.Collect(maps.Keys(shapes)), func(name string) bool { return inModule(name, entry) }) {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(h.shapes)) {
			if inModule(name, entry) && shapes[name] == nil {
				add(name, h.shapes[name])
			}
		}
	}
}

// tiedEmbedding returns the name of the input embeddings where they are the head's weight too.
func tiedEmbedding(cfg *format.ModelConfig, shapes map[string][]int) string {
	tied, said := cfg.TiedEmbeddings()
	if shapes[tiedHead+".weight"] != nil || said && !tied {
		return ""
	}
	generates := slices.ContainsFunc(cfg.Architectures, func(class string) bool {
		return strings.HasSuffix(class, "ForCausalLM") || strings.HasSuffix(class, "LMHeadModel") || strings.HasSuffix(class, "ForConditionalGeneration")
	})
	if !generates {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		module, ok := strings.CutSuffix(name, ".weight")
		if ok && slices.Contains(inputEmbeddings, module[strings.LastIndexByte(module, '.')+1:]) {
			return name
		}
	}
	return ""
}

// kind tells what a module with a matrix for weight is.
func (h adapterHints) kind(modelType, module string, shape []int) Kind {
	if h.shapes[module+".lora_embedding_A"] != nil {
		return Embedding
	}
	if slices.Contains(conv1D[modelType], module[strings.LastIndexByte(module, '.')+1:]) {
		return Transposed
	}
	for _, suffix := range []string{"", ".weight"} {
		a, b := h.shapes[module+".lora_A"+suffix], h.shapes[module+".lora_B"+suffix]
		if len(a) != 2 || len(b) != 2 {
			continue
		}
		straight, across := b[0] == shape[0] && a[1] == shape[1], b[0] == shape[1] && a[1] == shape[0]
		if across && (!straight || h.transposed[module]) {
			return Transposed
		}
	}
	return Linear
}

// schemes tells how a base was quantised by the names of tensors that come with packed weights.
var schemes = []struct{ suffix, scheme string }{
	{".qweight", "GPTQ or AWQ"}, {".absmax", "bitsandbytes"}, {".quant_map", "bitsandbytes"}, {".SCB", "bitsandbytes (8 bit)"},
	{".weight_scale_inv", "FP8 in blocks"}, {".weight_packed", "compressed-tensors"}, {".weight_scale", "compressed-tensors or FP8"},
	{"_blocks", "MXFP4"},
}

// Quantised returns how the weights of a checkpoint are quantised, "" if they are not. Nothing can
// be merged into packed numbers.
func Quantised(cfg *format.ModelConfig, ck *format.Checkpoint) string {
	if method := cfg.Quantization(); method != "" {
		return method
	}
	for t := range ck.Tensors() {
		info := t.Info()
		for _, s := range schemes {
			if strings.HasSuffix(info.Name, s.suffix) {
				return s.scheme
			}
		}
		switch info.DType {
		case format.F4, format.F6_E2M3, format.F6_E3M2, format.F8_E4M3, format.F8_E5M2, format.F8_E8M0, format.F8_E4M3FNUZ, format.F8_E5M2FNUZ:
			return fmt.Sprintf("%s weights", info.DType)
		}
	}
	return ""
}
