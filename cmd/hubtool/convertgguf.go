package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

// ggufModules are llama.cpp's names of what a layer of Llama has.
var ggufModules = map[string]string{
	"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
	"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}

// convertGGUF writes LoRA's factors for llama.cpp. Of the base only config.json is read.
func (e *env) convertGGUF(ctx context.Context, ref, base string, o reduceOptions) error {
	if _, err := o.reduction(); err != nil {
		return err
	}
	dir, err := e.model(ctx, base)
	if err != nil {
		return err
	}
	cfg, err := format.ReadModelConfig(dir)
	if err != nil {
		return err
	}
	if !slices.Contains(cfg.Architectures, "LlamaForCausalLM") {
		return fmt.Errorf("converting to GGUF: %w: the base is %s, but only the weights of LlamaForCausalLM are known to be arranged for llama.cpp: use its convert_lora_to_gguf.py",
			adapters.ErrMethod, strings.Join(append(cfg.Architectures, cfg.ModelType), ", "))
	}
	if cfg.NumAttentionHeads == 0 {
		return fmt.Errorf("converting to GGUF: %w: %q has no num_attention_heads, which tell how weights are arranged", format.ErrConfig, filepath.Join(dir, format.ModelConfigFile))
	}
	as, _, names, err := e.loadAdapters(ctx, []string{ref}, "")
	if err != nil {
		return err
	}
	made, loss, err := adapters.Compose(as.list, adapters.ComposeOptions{Names: format.Transformers5})
	if err != nil {
		return err
	}
	if whole := slices.Sorted(maps.Keys(made.FullValues())); len(whole) > 0 {
		return fmt.Errorf("converting %q: %w: llama.cpp's adapters have no whole parameters: merge this one", whole[0], adapters.ErrMethod)
	}
	// llama.cpp knows one alpha, and divides it by the rank of each module. Compose has put scales into
	// factors, which leaves alphas as large as ranks.
	alpha := float64(loss.Ranks[1])
	var tensors []format.Tensor
	for _, t := range made.Targets {
		name, err := ggufName(t, cfg)
		if err != nil {
			return fmt.Errorf("converting %q: %w", t.Name, err)
		}
		values := made.TargetValues(t)
		b := slices.Clone(values["lora_B.weight"])
		if t.Alpha != alpha {
			for i := range b {
				b[i] *= float32(t.Alpha / alpha)
			}
		}
		heads := map[string]int{"attn_q": cfg.NumAttentionHeads, "attn_k": cfg.NumKeyValueHeads}[name[strings.LastIndexByte(name, '.')+1:]]
		if heads > 0 {
			if t.Out()%(2*heads) != 0 {
				return fmt.Errorf("converting %q: %w: its %d outputs are not those of %d heads", t.Name, adapters.ErrMismatch, t.Out(), heads)
			}
			b = ggufHeads(b, heads, t.Out(), t.Rank)
		}
		tensors = append(tensors,
			format.FloatTensor(name+".weight.lora_a", []int{t.Rank, t.In()}, values["lora_A.weight"]),
			format.FloatTensor(name+".weight.lora_b", []int{t.Out(), t.Rank}, b))
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("converting: %w", err)
	}
	path := filepath.Join(o.out, "lora.gguf")
	fields := []format.GGUFField{{Key: "general.architecture", Value: "llama"}, {Key: "general.type", Value: "adapter"},
		{Key: "adapter.type", Value: "lora"}, {Key: "adapter.lora.alpha", Value: float32(alpha)}}
	if err := format.WriteGGUF(ctx, path, fields, tensors); err != nil {
		return err
	}
	m := madeAdapter{Out: path, Adapters: names, Loss: loss}
	if info, err := os.Stat(path); err == nil {
		m.Bytes = info.Size()
	}
	return e.result(m.text, m)
}

// ggufName is llama.cpp's name of a module of Llama.
func ggufName(t adapters.Target, cfg *format.ModelConfig) (string, error) {
	if t.Name == "lm_head" && t.Kind == adapters.Linear {
		if tied, _ := cfg.TiedEmbeddings(); tied {
			return "", fmt.Errorf("%w: llama.cpp has one tensor for the head and the embeddings: merge this adapter with --untie", adapters.ErrMethod)
		}
		return "output", nil
	}
	number, part, _ := strings.Cut(strings.TrimPrefix(t.Name, "model.layers."), ".")
	layer, err := strconv.Atoi(number)
	module := ggufModules[part]
	switch {
	case err != nil || module == "" || t.Kind != adapters.Linear:
		return "", fmt.Errorf("%w: GGUF has the linear layers of Llama's blocks, and lm_head", adapters.ErrMethod)
	case layer < 0 || layer >= cfg.NumHiddenLayers:
		return "", fmt.Errorf("%w: the base has %d layers", adapters.ErrMismatch, cfg.NumHiddenLayers)
	}
	return fmt.Sprintf("blk.%d.%s", layer, module), nil
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
