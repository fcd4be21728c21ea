package format

import (
	"fmt"
	"slices"
	"strings"
)

// Names is a generation of module names. Transformers renamed the modules of
// ViT in version 5, but still writes the old names into model files; adapters
// carry the names of the version that trained them.
type Names uint8

const (
	Transformers5 Names = iota // vit.layers.0.attention.q_proj
	Transformers4              // vit.encoder.layer.0.attention.attention.query
	BothNames                  // every tensor under both
)

var namesText = []string{"transformers5", "transformers4", "both"}

// ParseNames reads "transformers4", "transformers5" or "both".
func ParseNames(s string) (Names, error) {
	i := slices.Index(namesText, s)
	if i < 0 {
		return 0, fmt.Errorf("parsing names %q: expected one of %s", s, strings.Join(namesText, ", "))
	}
	return Names(i), nil
}

func (n Names) String() string {
	if int(n) >= len(namesText) {
		return fmt.Sprintf("Names(%d)", uint8(n))
	}
	return namesText[n]
}

// Each returns the generations that n stands for: itself, or two for [BothNames].
func (n Names) Each() []Names {
	if n == BothNames {
		return []Names{Transformers5, Transformers4}
	}
	return []Names{n}
}

// A spelling is how one model type's names differ between the generations.
type spelling struct {
	prefix string      // of the backbone inside the classifier
	roots  []string    // first parts of names inside the backbone, either generation
	layer  [2]string   // what stands before the number of a layer: classic, new
	parts  [][2]string // what follows it: classic, new
}

var spellings = map[string]spelling{
	"vit": {
		prefix: "vit.",
		roots:  []string{"embeddings", "encoder", "layers", "layernorm", "pooler"},
		layer:  [2]string{"encoder.layer.", "layers."},
		parts: [][2]string{
			{"attention.attention.query", "attention.q_proj"},
			{"attention.attention.key", "attention.k_proj"},
			{"attention.attention.value", "attention.v_proj"},
			{"attention.output.dense", "attention.o_proj"},
			{"intermediate.dense", "mlp.fc1"},
			{"output.dense", "mlp.fc2"},
		},
	},
}

// Canonical returns the one name this module uses for a module or tensor: the
// classic one, with the prefix of the backbone. It accepts both generations,
// with or without the prefix, and anything after the module's path, such as
// ".weight" or ".lora_A.weight". Names it does not know, and all names of other
// model types, are returned as they are. PEFT's "base_model.model." must have
// been removed.
func Canonical(modelType, name string) string {
	sp := spellings[modelType]
	rest, ok := sp.inside(name)
	if !ok {
		return name
	}
	return sp.prefix + sp.rename(rest, 0)
}

// inside cuts the prefix, if there is one, from a name of the backbone.
func (sp spelling) inside(name string) (rest string, ok bool) {
	rest = strings.TrimPrefix(name, sp.prefix)
	root, _, _ := strings.Cut(rest, ".")
	return rest, slices.Contains(sp.roots, root)
}

// Spell returns the name of generation n for a canonical name, with the prefix
// of the backbone. [BothNames] is taken for [Transformers5]; see [Names.Each].
func Spell(modelType, canonical string, n Names) string {
	sp := spellings[modelType]
	rest, ok := sp.inside(canonical)
	if !ok || n == Transformers4 {
		return canonical
	}
	return sp.prefix + sp.rename(rest, 1)
}

// Spellings returns every name under which a file may hold what canonical
// names, none twice: classic and new with the prefix, then the same without.
func Spellings(modelType, canonical string) []string {
	sp := spellings[modelType]
	rest, ok := sp.inside(canonical)
	if !ok {
		return []string{canonical}
	}
	names := []string{canonical, sp.prefix + sp.rename(rest, 1), rest, sp.rename(rest, 1)}
	if names[0] == names[1] {
		return []string{canonical, rest}
	}
	return names
}

// rename turns a name inside the backbone into generation to: 0 classic, 1 new.
func (sp spelling) rename(name string, to int) string {
	for _, before := range sp.layer {
		rest, ok := strings.CutPrefix(name, before)
		if !ok {
			continue
		}
		number, part, more := strings.Cut(rest, ".")
		if strings.Trim(number, "0123456789") != "" || number == "" {
			continue
		}
		if more {
			part = "." + sp.renamePart(part, to)
		}
		return sp.layer[to] + number + part
	}
	return name
}

func (sp spelling) renamePart(part string, to int) string {
	for _, p := range sp.parts {
		rest, ok := strings.CutPrefix(part, p[1-to])
		if ok && (rest == "" || rest[0] == '.') {
			return p[to] + rest
		}
	}
	return part
}
