package format

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// ModelConfigFile is the name under which transformers keeps a model's settings.
const ModelConfigFile = "config.json"

// A ModelConfig is what hubtool needs of a config.json. The fields are a
// reading of the file; what the file does not say is zero, or for "vit" the
// default of transformers. Use the Set methods to change the file.
type ModelConfig struct {
	ModelType     string
	Architectures []string

	HiddenSize        int
	NumHiddenLayers   int
	NumAttentionHeads int
	NumKeyValueHeads  int // of language models; as many as there are attention heads unless the file says so
	VocabSize         int // of language models
	IntermediateSize  int
	ImageSize         [2]int // height, width; the file may have one number for both
	PatchSize         [2]int // height, width
	NumChannels       int
	HiddenAct         string
	LayerNormEps      float64
	InitializerRange  float64
	QKVBias           bool
	HiddenDropout     float64 // hidden_dropout_prob
	AttentionDropout  float64 // attention_probs_dropout_prob
	ID2Label          map[int]string

	raw map[string]json.RawMessage
}

// ReadModelConfig reads [ModelConfigFile] in dir. A malformed file is
// [ErrConfig] and names the field, a missing one is [os.ErrNotExist].
func ReadModelConfig(dir string) (*ModelConfig, error) {
	path := filepath.Join(dir, ModelConfigFile)
	raw, err := readConfig(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, adapter := os.Stat(filepath.Join(dir, AdapterConfigFile)); adapter == nil {
			return nil, at("reading", path, fmt.Errorf("%w; an adapter is there, not a whole model", fs.ErrNotExist))
		}
	}
	if err != nil {
		return nil, notInFile(dir, err)
	}
	c, err := newModelConfig(raw)
	return c, at("reading", path, err)
}

// notInFile says it where a configuration was looked for inside of a file.
func notInFile(dir string, err error) error {
	if info, statErr := os.Stat(dir); statErr == nil && !info.IsDir() {
		return &Error{Op: "opening", Path: dir, Kind: ErrUnsupported, Err: errors.New("this is a file, but models and adapters are folders with a configuration")}
	}
	return err
}

// ParseModelConfig reads the text of a config.json.
func ParseModelConfig(text []byte) (*ModelConfig, error) {
	raw, err := parseConfig(text)
	if err != nil {
		return nil, err
	}
	return newModelConfig(raw)
}

func newModelConfig(raw map[string]json.RawMessage) (*ModelConfig, error) {
	c := &ModelConfig{raw: raw}
	if err := decodeField("model_type", orNull(raw["model_type"]), &c.ModelType); err != nil {
		return nil, err
	}
	if c.ModelType == "" {
		return nil, fieldError("model_type", errors.New("missing"))
	}
	known := c.ModelType == "vit"
	if known { // the defaults of ViTConfig
		*c = ModelConfig{ModelType: "vit", HiddenSize: 768, NumHiddenLayers: 12, NumAttentionHeads: 12,
			IntermediateSize: 3072, ImageSize: [2]int{224, 224}, PatchSize: [2]int{16, 16}, NumChannels: 3,
			HiddenAct: "gelu", LayerNormEps: 1e-12, InitializerRange: 0.02, QKVBias: true, raw: raw}
	}
	fields := map[string]any{
		"architectures": (*names)(&c.Architectures), "id2label": (*labels)(&c.ID2Label),
		"hidden_size": (*size)(&c.HiddenSize), "num_hidden_layers": (*size)(&c.NumHiddenLayers), "n_layer": (*size)(&c.NumHiddenLayers), // GPT-2's
		"num_attention_heads": (*size)(&c.NumAttentionHeads), "num_key_value_heads": (*size)(&c.NumKeyValueHeads), "vocab_size": (*size)(&c.VocabSize), "intermediate_size": (*size)(&c.IntermediateSize),
		"image_size": (*pair)(&c.ImageSize), "patch_size": (*pair)(&c.PatchSize), "num_channels": (*size)(&c.NumChannels),
		"hidden_act": &c.HiddenAct, "layer_norm_eps": &c.LayerNormEps, "initializer_range": &c.InitializerRange,
		"qkv_bias": &c.QKVBias, "hidden_dropout_prob": &c.HiddenDropout, "attention_probs_dropout_prob": &c.AttentionDropout,
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		text, ok := raw[key]
		if !ok || string(text) == "null" {
			continue
		}
		// Other model types may use a key for something else: a list of heads,
		// one per stage, is no error there, just nothing we understand.
		if err := decodeField(key, text, fields[key]); err != nil && known {
			return nil, err
		}
	}
	if c.NumKeyValueHeads == 0 {
		c.NumKeyValueHeads = c.NumAttentionHeads
	}
	return c, nil
}

// Labels returns the class names in the order of the logits, nil if the file
// has none. As in transformers there are as many classes as entries in
// id2label; an id without an entry is called LABEL_<id>.
func (c *ModelConfig) Labels() []string {
	if len(c.ID2Label) == 0 {
		return nil
	}
	list := make([]string, len(c.ID2Label))
	for id := range list {
		label, ok := c.ID2Label[id]
		if !ok {
			label = "LABEL_" + strconv.Itoa(id)
		}
		list[id] = label
	}
	return list
}

// SetLabels replaces the class names, in the order of the logits. It sets
// id2label and label2id and drops num_labels, which follows from them.
func (c *ModelConfig) SetLabels(list []string) {
	c.ID2Label = make(map[int]string, len(list))
	label2id := make(map[string]int, len(list))
	for id, label := range list {
		c.ID2Label[id] = label
		label2id[label] = id
	}
	delete(c.raw, "num_labels")
	delete(c.raw, "_num_labels")
	c.set("id2label", c.ID2Label)
	c.set("label2id", label2id)
}

// SetArchitectures replaces the class names of the model, such as
// "ViTForImageClassification".
func (c *ModelConfig) SetArchitectures(list []string) {
	c.Architectures = slices.Clone(list)
	c.set("architectures", c.Architectures)
}

// TiedEmbeddings tells whether the output embeddings are the input embeddings, where the file says it.
// Many files do not, and mean the default of their class.
func (c *ModelConfig) TiedEmbeddings() (tied, said bool) {
	said = json.Unmarshal(orNull(c.raw["tie_word_embeddings"]), &tied) == nil && string(orNull(c.raw["tie_word_embeddings"])) != "null"
	return tied, said
}

// SetTiedEmbeddings says whether the output embeddings are the input embeddings.
func (c *ModelConfig) SetTiedEmbeddings(tied bool) { c.set("tie_word_embeddings", tied) }

// Quantization returns the quant_method of a quantization_config; "unknown" if it has none, "" if
// there is no such config.
func (c *ModelConfig) Quantization() string {
	raw := orNull(c.raw["quantization_config"])
	var q struct {
		Method string `json:"quant_method"`
	}
	if string(raw) == "null" {
		return ""
	}
	_ = json.Unmarshal(raw, &q) // whatever it is, the weights are not plain
	return cmp.Or(q.Method, "unknown")
}

func (c *ModelConfig) set(key string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and integers always marshal
	}
	if c.raw == nil {
		c.raw = map[string]json.RawMessage{"model_type": json.RawMessage(strconv.Quote(c.ModelType))}
	}
	c.raw[key] = text
}

// MarshalJSON returns the text that transformers would write, without the
// newline that ends its files. Call it directly, or use [ModelConfig.Write]:
// json.Marshal compacts what it returns.
func (c *ModelConfig) MarshalJSON() ([]byte, error) {
	raw := maps.Clone(c.raw)
	text, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	return pythonJSON(text, "id2label")
}

// Write writes [ModelConfigFile] into dir, atomically.
func (c *ModelConfig) Write(dir string) error {
	path := filepath.Join(dir, ModelConfigFile)
	text, err := c.MarshalJSON()
	if err != nil {
		return at("writing", path, err)
	}
	return WriteFileAtomic(path, append(text, '\n'))
}

// size is a count or a length, at most 2^31-1.
type size int

func (n *size) UnmarshalJSON(raw []byte) error {
	v, err := strconv.ParseInt(string(raw), 10, 32)
	if err != nil || v < 0 {
		return fmt.Errorf("expected an integer from 0 to %d, found %s", math.MaxInt32, clip(raw))
	}
	*n = size(v)
	return nil
}

// pair is a height and a width, or one number for both.
type pair [2]int

func (p *pair) UnmarshalJSON(raw []byte) error {
	var list []size
	if raw[0] == '[' {
		if err := json.Unmarshal(raw, &list); err != nil {
			return err
		}
		if len(list) != 2 {
			return fmt.Errorf("expected an integer or a list of two, found %s", clip(raw))
		}
	} else {
		list = make([]size, 2)
		if err := list[0].UnmarshalJSON(raw); err != nil {
			return err
		}
		list[1] = list[0]
	}
	*p = pair{int(list[0]), int(list[1])}
	return nil
}

// labels is id2label, whose keys are integers in quotes.
type labels map[int]string

func (l *labels) UnmarshalJSON(raw []byte) error {
	var texts map[string]*string
	if err := json.Unmarshal(raw, &texts); err != nil {
		return fmt.Errorf("expected an object of strings, found %s", clip(raw))
	}
	*l = make(labels, len(texts))
	for key, label := range texts {
		id, err := strconv.Atoi(key)
		if err != nil || id < 0 || strconv.Itoa(id) != key {
			return fmt.Errorf("expected class numbers as keys, found %q", key)
		}
		if label == nil {
			return fmt.Errorf("class %d: expected a string, found null", id)
		}
		(*l)[id] = *label
	}
	return nil
}
