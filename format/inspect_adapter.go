package format

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// methodMarks says how the names of a method's tensors begin after the path of
// the module. The first mark that fits counts, so lora_E stands before lora_.
var methodMarks = []struct{ mark, method string }{
	{"lora_E", "ADALORA"}, {"lora_", "LORA"}, {"hada_", "LOHA"}, {"lokr_", "LOKR"}, {"ia3_", "IA3"},
	{"vera_lambda_", "VERA"}, {"oft_", "OFT"}, {"boft_", "BOFT"}, {"hra_", "HRA"}, {"randlora_", "RANDLORA"},
	{"fourierft_", "FOURIERFT"}, {"c3a_", "C3A"}, {"miss_", "MISS"}, {"bone_", "BONE"}, {"hira_", "HIRA"},
	{"delora_", "DELORA"}, {"road_", "ROAD"}, {"shira_", "SHIRA"}, {"ln_tuning_", "LN_TUNING"},
}

// pairs lists tensors that make no sense without each other.
var pairs = [][2]string{{"lora_A", "lora_B"}, {"hada_w1_a", "hada_w1_b"}, {"hada_w2_a", "hada_w2_b"}, {"hada_w1_a", "hada_w2_a"},
	{"lokr_w1_a", "lokr_w1_b"}, {"lokr_w2_a", "lokr_w2_b"}, {"lora_embedding_A", "lora_embedding_B"}}

// rankAxis is the axis of a tensor whose length is the rank, whatever the layer.
var rankAxis = map[string]int{"lora_A": 0, "hada_w1_b": 0, "lora_embedding_A": 0}

// startsAsZero names the tensor that makes a fresh adapter change nothing.
var startsAsZero = []string{"lora_E", "lora_B", "lora_embedding_A", "hada_w2_b"}

// An adapterPart is one tensor of an adapter: "lora_A" of a module. A weight
// that is saved whole, such as the classifier's, is none.
type adapterPart struct {
	module, part string
	tensor       TensorReport
}

func adapterParts(tensors []TensorReport) []adapterPart {
	var list []adapterPart
	for _, t := range tensors {
		if module, part, ok := SplitAdapterName(t.Name); ok {
			list = append(list, adapterPart{module, part, t})
		}
	}
	return list
}

// SplitAdapterName splits the name of an adapter's tensor,
// "base_model.model.<module>.<part>[.<rest>]". It is not ok for a weight that is
// saved whole.
func SplitAdapterName(name string) (module, part string, ok bool) {
	path := strings.Split(strings.TrimPrefix(name, "base_model.model."), ".")
	for i, p := range path {
		for _, m := range methodMarks {
			if i > 0 && strings.HasPrefix(p, m.mark) {
				return strings.Join(path[:i], "."), p, true
			}
		}
	}
	return "", "", false
}

func guessMethod(parts []adapterPart) string {
	for _, m := range methodMarks {
		for _, p := range parts {
			if strings.HasPrefix(p.part, m.mark) {
				return m.method
			}
		}
	}
	return ""
}

// checkAdapter warns about what headers and configuration show to be wrong.
func (r *Report) checkAdapter(c *AdapterConfig, parts []adapterPart) {
	if len(parts) == 0 {
		r.warn("no tensor is named like an adapter's")
	}
	r.checkPairs(parts)
	r.checkNames()
	if c == nil {
		r.warn("there is no %s here; the method is guessed from the names of the tensors", AdapterConfigFile)
		return
	}
	if guess := guessMethod(parts); guess != "" && guess != c.PeftType {
		r.warn("peft_type is %s, but the tensors are named like those of %s", c.PeftType, guess)
	}
	if c.TaskType != nil {
		r.warn("task_type is %s, but image classification has none: PEFT needs it to be null", *c.TaskType)
	}
	for _, saved := range c.ModulesToSave {
		if !slices.ContainsFunc(r.Tensors, func(t TensorReport) bool { return savedBy(saved, t.Name) }) {
			r.warn("modules_to_save names %q, but no tensor belongs to it: PEFT cannot load this", saved)
		}
	}
	r.checkRanks(c, parts)
}

// savedBy tells whether a tensor belongs to a module whose path ends in suffix;
// as in PEFT, the suffix need not begin at a dot.
func savedBy(suffix, tensor string) bool {
	for i, c := range tensor {
		if c == '.' && strings.HasSuffix(tensor[:i], suffix) {
			return true
		}
	}
	return false
}

func (r *Report) checkPairs(parts []adapterPart) {
	have := map[string]bool{}
	for _, p := range parts {
		have[p.module+"."+p.part] = true
	}
	for _, module := range r.Modules {
		for _, pair := range pairs {
			for i, part := range pair {
				if have[module+"."+part] && !have[module+"."+pair[1-i]] {
					r.warn("module %q has %s but no %s", module, part, pair[1-i])
				}
			}
		}
	}
}

func (r *Report) checkNames() {
	classic, current := 0, 0
	for _, module := range r.Modules {
		switch spelled := Spellings("vit", Canonical("vit", module)); {
		case len(spelled) < 4: // the same in both generations
		case slices.Index(spelled, module)%2 == 0:
			classic++
		default:
			current++
		}
	}
	if classic > 0 && current == 0 {
		r.warn(`modules have the names of transformers 4, which transformers 5 does not find; "hubtool convert --names" renames them`)
	}
	for _, t := range r.Tensors {
		if strings.Contains(t.Name, ".default.") || strings.HasSuffix(t.Name, ".default") {
			r.warn("tensor %q contains the adapter's name, which PEFT removes when it saves: it will not find it", t.Name)
			return
		}
	}
}

// checkRanks compares the ranks of tensors with those that the configuration
// allows. Which pattern applies to which module is not decided here.
func (r *Report) checkRanks(c *AdapterConfig, parts []adapterPart) {
	allowed := map[int]bool{}
	if rank, err := strconv.Atoi(string(r.R)); err == nil {
		allowed[rank] = true
	}
	for _, e := range c.RankPattern {
		allowed[int(e.Value)] = true
	}
	var masks map[string][]bool // AdaLoRA's
	if text, ok := c.raw["rank_pattern"]; ok && json.Unmarshal(text, &masks) != nil {
		masks = nil
	}
	perExpert := len(c.raw["target_parameters"]) > 0 && string(c.raw["target_parameters"]) != "null"
	if len(allowed) == 0 || perExpert {
		return
	}
	wrong := map[string]bool{}
	for _, p := range parts {
		axis, ok := rankAxis[p.part]
		if !ok || axis >= len(p.tensor.Shape) {
			continue
		}
		rank := p.tensor.Shape[axis]
		if mask, ok := masks[p.module+".lora_E"]; ok {
			if kept := count(mask); kept != rank {
				wrong[fmt.Sprintf("module %q has rank %d, but its mask in rank_pattern keeps %d", p.module, rank, kept)] = true
			}
		} else if !allowed[rank] {
			wrong[fmt.Sprintf("module %q has rank %d, which %s does not mention", p.module, rank, AdapterConfigFile)] = true
		}
	}
	r.Warnings = append(r.Warnings, slices.Sorted(maps.Keys(wrong))...)
}

func count(mask []bool) int {
	n := 0
	for _, kept := range mask {
		if kept {
			n++
		}
	}
	return n
}

// CheckValues reads tensors and warns about values that are not finite and
// about an adapter that was never trained. Tensors whose type is not known to
// [Floats] are passed over.
func (r *Report) CheckValues(ctx context.Context, tensors iter.Seq[Tensor]) error {
	start, zero := map[string]int{}, map[string]int{} // by part: how many there are, how many are zero
	for t := range tensors {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		info := t.Info()
		if _, ok := widenTo32[info.DType]; !ok {
			continue
		}
		values, err := Floats(t)
		if err != nil {
			return err
		}
		finite := func(v float32) bool { return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) }
		if i := slices.IndexFunc(values, func(v float32) bool { return !finite(v) }); i >= 0 {
			r.warn("tensor %q holds %v at element %d", info.Name, values[i], i)
		}
		if _, part, ok := SplitAdapterName(info.Name); ok && slices.Contains(startsAsZero, part) && len(values) > 0 {
			start[part]++
			if !slices.ContainsFunc(values, func(v float32) bool { return v != 0 }) {
				zero[part]++
			}
		}
	}
	for _, part := range startsAsZero {
		switch {
		case zero[part] == 0:
		case zero[part] == start[part]:
			r.warn("every %s is zero: the adapter changes nothing", part)
		default:
			r.warn("%d of %d %s are zero: these modules were not trained", zero[part], start[part], part)
		}
	}
	return nil
}
