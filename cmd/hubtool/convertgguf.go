package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

// convertGGUF writes LoRA's factors for llama.cpp. Of the base only config.json is read.
func (e *env) convertGGUF(ctx context.Context, ref, base string, o reduceOptions) error {
	if _, err := o.reduction(); err != nil {
		return err
	}
	cfg, err := e.modelConfig(ctx, base)
	if err != nil {
		return err
	}
	model, err := ggufModelOf(cfg)
	if err != nil {
		return fmt.Errorf("converting to GGUF: %w", err)
	}
	if model.pairs && cfg.NumAttentionHeads == 0 {
		return fmt.Errorf("converting to GGUF: %w: the base's %s has no num_attention_heads, which tell how weights are arranged", format.ErrConfig, format.ModelConfigFile)
	}
	as, _, names, err := e.loadAdapters(ctx, []string{ref}, "")
	if err != nil {
		return err
	}
	made, loss, err := adapters.Compose(as.list, adapters.ComposeOptions{Names: format.Transformers5})
	if err != nil {
		return err
	}
	whole := made.FullValues()
	for _, name := range slices.Sorted(maps.Keys(whole)) {
		if module, ok := strings.CutSuffix(name, ".weight"); !ok || !slices.ContainsFunc(made.Targets, func(t adapters.Target) bool { return t.Name == module }) {
			return fmt.Errorf("converting %q: %w: llama.cpp's adapters have no whole parameters: merge this one", name, adapters.ErrMethod)
		}
		if words := whole[name].Shape[0]; cfg.VocabSize > 0 && words != cfg.VocabSize {
			return fmt.Errorf("converting %q: %w: it is of %d words, the base's of %d: merge this one", name, adapters.ErrMismatch, words, cfg.VocabSize)
		}
		e.note("%s is left out: llama.cpp has the base's, which PEFT saves beside an adapter of embeddings", name)
	}
	// llama.cpp knows one alpha, and divides it by the rank of each module. Compose has put scales into
	// factors, which leaves alphas as large as ranks.
	alpha := float64(loss.Ranks[1])
	var tensors []format.Tensor
	for _, t := range made.Targets {
		name, err := model.name(t, cfg)
		if err != nil {
			return fmt.Errorf("converting %q: %w", t.Name, err)
		}
		values := made.TargetValues(t)
		a, b := values["lora_A.weight"], values["lora_B.weight"]
		shapeA := []int{t.Rank, t.In()}
		if t.Kind == adapters.Embedding { // llama.cpp looks up rows of A, one a word
			a, b = ggufTransposed(values["lora_embedding_A"], t.Rank, t.In()), values["lora_embedding_B"]
			shapeA = []int{t.In(), t.Rank}
		}
		b = forAlpha(alpha, t, b)
		if heads := model.heads(name, cfg); heads > 0 {
			if t.Out()%(2*heads) != 0 {
				return fmt.Errorf("converting %q: %w: its %d outputs are not those of %d heads", t.Name, adapters.ErrMismatch, t.Out(), heads)
			}
			b = ggufHeads(b, heads, t.Out(), t.Rank)
		}
		tensors = append(tensors,
			format.FloatTensor(name+".weight.lora_a", shapeA, a),
			format.FloatTensor(name+".weight.lora_b", []int{t.Out(), t.Rank}, b))
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("converting: %w", err)
	}
	path := filepath.Join(o.out, "lora.gguf")
	fields := []format.GGUFField{{Key: "general.architecture", Value: model.arch}, {Key: "general.type", Value: "adapter"},
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
