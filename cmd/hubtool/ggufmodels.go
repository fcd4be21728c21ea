package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

// A ggufModel is how llama.cpp calls a model of transformers and its parts. test_gguf.py runs llama.cpp with an adapter of
// each; others are not known to be arranged as here.
type ggufModel struct {
	arch    string            // general.architecture of its files
	layers  string            // what names of modules of layers begin with, before the layer's number
	modules map[string]string // names of tensors by those of modules, within a layer
	ends    map[string]string // the same of the embeddings and the head
	tied    bool              // these are one tensor unless the config says otherwise
	pairs   bool              // llama.cpp rotates pairs of neighbours, see ggufHeads
}

// ggufModels are known by the class that config.json names.
var ggufModels = map[string]ggufModel{
	"LlamaForCausalLM":      {arch: "llama", layers: "model.layers.", modules: ggufGated, ends: ggufEnds, pairs: true},
	"MistralForCausalLM":    {arch: "llama", layers: "model.layers.", modules: ggufGated, ends: ggufEnds, pairs: true},
	"GraniteForCausalLM":    {arch: "granite", layers: "model.layers.", modules: ggufGated, ends: ggufEnds, pairs: true},
	"SmolLM3ForCausalLM":    {arch: "smollm3", layers: "model.layers.", modules: ggufGated, ends: ggufEnds, tied: true, pairs: true},
	"Qwen2ForCausalLM":      {arch: "qwen2", layers: "model.layers.", modules: ggufGated, ends: ggufEnds},
	"Qwen3ForCausalLM":      {arch: "qwen3", layers: "model.layers.", modules: ggufGated, ends: ggufEnds},
	"Olmo2ForCausalLM":      {arch: "olmo2", layers: "model.layers.", modules: ggufGated, ends: ggufEnds},
	"StableLmForCausalLM":   {arch: "stablelm", layers: "model.layers.", modules: ggufGated, ends: ggufEnds},
	"GemmaForCausalLM":      {arch: "gemma", layers: "model.layers.", modules: ggufGated, ends: ggufEnds, tied: true},
	"Gemma2ForCausalLM":     {arch: "gemma2", layers: "model.layers.", modules: ggufGated, ends: ggufEnds, tied: true},
	"Gemma3ForCausalLM":     {arch: "gemma3", layers: "model.layers.", modules: ggufGated, ends: ggufEnds, tied: true},
	"Starcoder2ForCausalLM": {arch: "starcoder2", layers: "model.layers.", modules: ggufStarcoder2, ends: ggufEnds, tied: true},
	"PhiForCausalLM":        {arch: "phi2", layers: "model.layers.", modules: ggufPhi, ends: ggufEnds},
	"Phi3ForCausalLM":       {arch: "phi3", layers: "model.layers.", modules: ggufPhi3, ends: ggufEnds},
	"GPT2LMHeadModel":       {arch: "gpt2", layers: "transformer.h.", modules: ggufGPT2, ends: ggufGPT2Ends, tied: true},
}

var (
	ggufGated = map[string]string{
		"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
		"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
	}
	ggufStarcoder2 = map[string]string{
		"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
		"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
	}
	ggufPhi = map[string]string{
		"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.dense": "attn_output",
		"mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
	}
	ggufPhi3 = map[string]string{
		"self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
	}
	ggufGPT2     = map[string]string{"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
	ggufEnds     = map[string]string{"model.embed_tokens": ggufEmbeddings, "lm_head": "output"}
	ggufGPT2Ends = map[string]string{"transformer.wte": ggufEmbeddings, "lm_head": "output"}
)

const ggufEmbeddings = "token_embd"

// ggufModelOf finds the model that a config is of.
func ggufModelOf(cfg *format.ModelConfig) (ggufModel, error) {
	for _, class := range cfg.Architectures {
		if m, ok := ggufModels[class]; ok {
			return m, nil
		}
	}
	return ggufModel{}, fmt.Errorf("%w: the base is %s, but its adapters are not known to be arranged as llama.cpp wants them: use its convert_lora_to_gguf.py, or a base that is one of %s",
		adapters.ErrMethod, strings.Join(append(slices.Clone(cfg.Architectures), cfg.ModelType), ", "), strings.Join(slices.Sorted(maps.Keys(ggufModels)), ", "))
}

// name is what llama.cpp calls the tensor of a module, without the ".weight" at the end.
func (m ggufModel) name(t adapters.Target, cfg *format.ModelConfig) (string, error) {
	number, part, _ := strings.Cut(strings.TrimPrefix(t.Name, m.layers), ".")
	layer, err := strconv.Atoi(number)
	name, isEnd := m.ends[t.Name]
	if !isEnd && err == nil {
		name = m.modules[part]
	}
	tied, said := cfg.TiedEmbeddings()
	switch {
	case name == "" || t.Kind == adapters.Convolution || (t.Kind == adapters.Embedding) != (name == ggufEmbeddings):
		return "", fmt.Errorf("%w: adapters for llama.cpp's %s have %s of layers, and %s", adapters.ErrMethod, m.arch,
			strings.Join(slices.Sorted(maps.Keys(m.modules)), ", "), strings.Join(slices.Sorted(maps.Keys(m.ends)), " and "))
	case isEnd && (tied || !said && m.tied):
		return "", fmt.Errorf("%w: llama.cpp has one tensor for the head and the embeddings: merge this adapter with --untie", adapters.ErrMethod)
	case isEnd:
		return name, nil
	case layer < 0 || layer >= cfg.NumHiddenLayers:
		return "", fmt.Errorf("%w: the base has %d layers", adapters.ErrMismatch, cfg.NumHiddenLayers)
	}
	return fmt.Sprintf("blk.%d.%s", layer, name), nil
}

// heads is how many heads the outputs of a tensor belong to whose rows are arranged otherwise in llama.cpp; 0 of all others.
func (m ggufModel) heads(name string, cfg *format.ModelConfig) int {
	switch {
	case m.pairs && strings.HasSuffix(name, ".attn_q"):
		return cfg.NumAttentionHeads
	case m.pairs && strings.HasSuffix(name, ".attn_k"):
		return cfg.NumKeyValueHeads
	}
	return 0
}

// ggufHeads arranges rows of queries or keys for llama.cpp, which rotates neighbours where transformers
// rotates rows that are half a head apart.
func ggufHeads(b []float32, heads, out, rank int) []float32 {
	arranged := make([]float32, 0, len(b))
	half := out / heads / 2
	for head := range heads {
		for i := range half {
			for _, row := range []int{head*2*half + i, head*2*half + half + i} {
				arranged = append(arranged, b[row*rank:(row+1)*rank]...)
			}
		}
	}
	return arranged
}

// ggufTransposed turns a matrix of so many rows and columns about.
func ggufTransposed(m []float32, rows, columns int) []float32 {
	turned := make([]float32, 0, len(m))
	for c := range columns {
		for r := range rows {
			turned = append(turned, m[r*columns+c])
		}
	}
	return turned
}
