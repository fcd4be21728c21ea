package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

func (e *env) convertCommand() *cli.Command {
	o := reduceOptions{}
	var to, base, prefix string
	return &cli.Command{
		Name:      "convert",
		Usage:     "write an adapter as another method, in other names, or for other programs",
		ArgsUsage: "ADAPTER",
		Description: "--to lora turns LoHa, LoKr, AdaLoRA and, with --base, DoRA into LoRA, and prints the error. Without --to\n" +
			"only --names changes. --to kohya writes one .safetensors file in the names of sd-scripts, --to gguf one .gguf\n" +
			"file for llama.cpp, of adapters of Llama, Mistral, Qwen, Gemma, Phi, GPT-2 and others.",
		Flags: append(o.flags(false),
			choice("to", "lora, kohya or gguf", &to, "lora", "kohya", "gguf"),
			&cli.StringFlag{Name: "base", Usage: "base model, which DoRA, IA3 for --names, and --to gguf need", Destination: &base},
			&cli.StringFlag{Name: "prefix", Usage: "what kohya's names begin with; default: lora_te for a text encoder of CLIP, else lora_unet (SDXL has lora_te1 and lora_te2)", Destination: &prefix}),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usage("reading the command line", "convert takes one ADAPTER")
			}
			switch {
			case to == "" && o.names == "":
				return usage("reading the command line", "--to or --names says what to convert to")
			case to != "kohya" && prefix != "":
				return usage("reading the command line", "--prefix goes with --to kohya")
			case to != "lora" && (o.rank != 0 || o.energy != 0):
				return usage("reading the command line", "--rank and --energy go with --to lora")
			case to == "kohya" && base != "":
				return usage("reading the command line", "--base goes with --to lora, --to gguf and --names")
			case to == "gguf" && base == "":
				return usage("reading the command line", "--to gguf needs --base, whose heads tell how weights are arranged")
			case to == "gguf" && o.names != "":
				return usage("reading the command line", "--names does nothing for --to gguf")
			case to == "lora":
				if o.rank == 0 && o.energy == 0 {
					o.rank = defaultRank
				}
				return e.recompose(c.Context, c.Args().Slice(), o, false, base)
			case to == "kohya":
				return e.convertKohya(c.Context, c.Args().First(), prefix, o)
			case to == "gguf":
				return e.convertGGUF(c.Context, c.Args().First(), base, o)
			}
			return e.rename(c.Context, c.Args().First(), o, base)
		},
	}
}

// defaultRank is enough for most adapters; those of lower rank keep theirs.
const defaultRank = 64

// rename writes an adapter with other names of modules.
func (e *env) rename(ctx context.Context, ref string, o reduceOptions, base string) error {
	if _, err := o.reduction(); err != nil {
		return err
	}
	as, _, names, err := e.loadAdapters(ctx, []string{ref}, base)
	if err != nil {
		return err
	}
	spelled, err := format.ParseNames(o.names)
	if err != nil {
		return err
	}
	a := as.list[0]
	loss := &adapters.Loss{Modules: len(a.Targets)}
	for i, t := range a.Targets {
		if i == 0 {
			loss.Ranks = [2]int{t.Rank, t.Rank}
		}
		loss.Ranks[0], loss.Ranks[1] = min(loss.Ranks[0], t.Rank), max(loss.Ranks[1], t.Rank)
	}
	for _, p := range a.Params() {
		loss.Parameters += len(p.Values)
	}
	return e.saveMade(ctx, a, loss, o, spelled, names, as.dirs[0])
}

// kohyaModule is what sd-scripts calls a module: with underscores for dots after a prefix by which it and ComfyUI tell a
// U-Net from a text encoder.
func kohyaModule(prefix, module string) string {
	// Since transformers 5, names in CLIPTextModel lack the text_model that they begin with everywhere else.
	if strings.HasPrefix(module, "encoder.layers.") {
		module = "text_model." + module
	}
	switch {
	case prefix != "":
	case strings.HasPrefix(module, "text_model."):
		prefix = "lora_te"
	default:
		prefix = "lora_unet"
	}
	return prefix + "_" + strings.ReplaceAll(module, ".", "_")
}

// convertKohya writes LoRA's factors as sd-scripts names them: modules with underscores for dots,
// lora_down and lora_up, and the alpha as a tensor.
func (e *env) convertKohya(ctx context.Context, ref, prefix string, o reduceOptions) error {
	if _, err := o.reduction(); err != nil {
		return err
	}
	as, _, names, err := e.loadAdapters(ctx, []string{ref}, "")
	if err != nil {
		return err
	}
	spelled, err := o.spelling(as.dirs[0])
	if err != nil {
		return err
	}
	made, loss, err := adapters.Compose(as.list, adapters.ComposeOptions{Names: spelled})
	if err != nil {
		return err
	}
	// diffusers mistakes the names of modules whose alpha is not that of most.
	alpha := float64(loss.Ranks[1])
	var tensors []format.Tensor
	for _, t := range made.Targets {
		values := made.TargetValues(t)
		if values["lora_A.weight"] == nil {
			return fmt.Errorf("converting %q: %w: kohya's format has no embeddings", t.Name, adapters.ErrMethod)
		}
		module := kohyaModule(prefix, format.Spell(modelTypeOf(t.Name), t.Name, spelled))
		down, up := append([]int{t.Rank}, t.Shape[1:]...), []int{t.Out(), t.Rank}
		for range t.Shape[2:] {
			up = append(up, 1)
		}
		tensors = append(tensors,
			format.FloatTensor(module+".lora_down.weight", down, values["lora_A.weight"]),
			format.FloatTensor(module+".lora_up.weight", up, forAlpha(alpha, t, values["lora_B.weight"])),
			format.FloatTensor(module+".alpha", nil, []float32{float32(alpha)}))
	}
	for name := range made.FullValues() {
		e.note("%s is left out: kohya's format has no whole parameters", name)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("converting: %w", err)
	}
	path := filepath.Join(o.out, "lora.safetensors")
	if err := format.Write(ctx, path, tensors, map[string]string{"format": "pt", "ss_network_module": "networks.lora"}); err != nil {
		return err
	}
	m := madeAdapter{Out: path, Adapters: names, Loss: loss}
	if info, err := os.Stat(path); err == nil {
		m.Bytes = info.Size()
	}
	return e.result(m.text, m)
}

// forAlpha returns a factor B that with another alpha makes the same update.
func forAlpha(alpha float64, t adapters.Target, b []float32) []float32 {
	if t.Alpha == alpha {
		return b
	}
	scaled := make([]float32, len(b))
	for i, v := range b {
		scaled[i] = v * float32(t.Alpha/alpha)
	}
	return scaled
}

// modelTypeOf is the model type whose names a module has, as far as that matters for spelling.
func modelTypeOf(module string) string {
	if strings.HasPrefix(module, "vit.") {
		return "vit"
	}
	return ""
}
