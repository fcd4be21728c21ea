package format_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/format"
)

func TestModelConfigIsByteIdenticalToTransformers(t *testing.T) {
	c, err := format.ReadModelConfig("testdata/written/sharded")
	if err != nil {
		t.Fatal(err)
	}
	want := read(t, "testdata/written/sharded/config.json")
	// Once as it was read, once with its own labels set again: the integers
	// that are keys sort as numbers, the labels that are keys as text.
	for range 2 {
		dir := t.TempDir()
		if err := c.Write(dir); err != nil {
			t.Fatal(err)
		}
		if got := read(t, dir+"/config.json"); !bytes.Equal(got, want) {
			t.Errorf("wrote\n%s", got)
		}
		labels := c.Labels()
		if len(labels) != 12 || labels[2] != "two & <three>" || labels[11] != "m" {
			t.Errorf("labels %q", labels)
		}
		c.SetLabels(labels)
		c.SetArchitectures([]string{"ViTForImageClassification"})
	}
	if c.HiddenSize != 8 || c.NumHiddenLayers != 2 || c.NumAttentionHeads != 2 || c.IntermediateSize != 16 || c.ImageSize != [2]int{8, 8} ||
		c.PatchSize != [2]int{4, 4} || c.NumChannels != 3 || c.HiddenAct != "gelu" || c.LayerNormEps != 1e-12 || !c.QKVBias {
		t.Errorf("%+v", c)
	}
}

func TestModelConfigDefaults(t *testing.T) {
	c, err := format.ParseModelConfig([]byte(`{"model_type":"vit","image_size":[384,192],"qkv_bias":false,"num_labels":2,"hidden_act":null}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.HiddenSize != 768 || c.NumHiddenLayers != 12 || c.PatchSize != [2]int{16, 16} || c.ImageSize != [2]int{384, 192} ||
		c.HiddenAct != "gelu" || c.InitializerRange != 0.02 || c.QKVBias || c.Labels() != nil {
		t.Errorf("%+v", c)
	}
	c.SetLabels([]string{"cat", "dog"})
	text, err := c.MarshalJSON()
	if err != nil || strings.Contains(string(text), "num_labels") || !strings.Contains(string(text), `"dog": 1`) {
		t.Errorf("%v: %s", err, text)
	}
	// Other model types use keys their own way; their files are no error.
	c, err = format.ParseModelConfig([]byte(`{"model_type":"segformer","num_attention_heads":[1,2,5,8],"hidden_size":32}`))
	if err != nil || c.NumAttentionHeads != 0 || c.HiddenSize != 32 || c.ImageSize != [2]int{} {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = format.ParseModelConfig([]byte(`{"model_type":"gpt2","n_layer":12}`))
	if err != nil || c.NumHiddenLayers != 12 {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = format.ParseModelConfig([]byte(`{"model_type":"vit","id2label":{"0":"a","2":"c"}}`))
	if err != nil || !slices.Equal(c.Labels(), []string{"a", "LABEL_1"}) {
		t.Errorf("%v, %v", c.Labels(), err)
	}
	fresh := &format.ModelConfig{ModelType: "vit"}
	fresh.SetArchitectures([]string{"ViTModel"})
	if text, _ := fresh.MarshalJSON(); string(text) != "{\n  \"architectures\": [\n    \"ViTModel\"\n  ],\n  \"model_type\": \"vit\"\n}" {
		t.Errorf("%s", text)
	}
}

func TestMalformedModelConfig(t *testing.T) {
	for field, want := range map[string]string{
		`"hidden_size":"768"`:        `field "hidden_size": expected an integer from 0 to 2147483647, found "768"`,
		`"hidden_size":768.0`:        `field "hidden_size": expected an integer`,
		`"hidden_size":-1`:           `field "hidden_size": expected an integer`,
		`"num_channels":9999999999`:  `field "num_channels": expected an integer`,
		`"image_size":[1,2,3]`:       `field "image_size": expected an integer or a list of two`,
		`"image_size":[1,-2]`:        `field "image_size": expected an integer`,
		`"patch_size":"16"`:          `field "patch_size": expected an integer`,
		`"layer_norm_eps":"1e-12"`:   `field "layer_norm_eps": expected a number`,
		`"hidden_act":5`:             `field "hidden_act": expected a string`,
		`"qkv_bias":1`:               `field "qkv_bias": expected true or false`,
		`"architectures":"ViTModel"`: `field "architectures": expected a list of strings`,
		`"id2label":["a"]`:           `field "id2label": expected an object of strings`,
		`"id2label":{"a":"b"}`:       `field "id2label": expected class numbers as keys, found "a"`,
		`"id2label":{"01":"b"}`:      `field "id2label": expected class numbers as keys, found "01"`,
		`"id2label":{"-1":"b"}`:      `field "id2label": expected class numbers as keys`,
		`"id2label":{"0":null}`:      `field "id2label": class 0: expected a string`,
		`"id2label":{"0":0}`:         `field "id2label": expected an object of strings`,
	} {
		if _, err := format.ParseModelConfig([]byte(`{"model_type":"vit",` + field + `}`)); err == nil || !errors.Is(err, format.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", field, err, want)
		}
	}
	for _, text := range []string{`{}`, `{"model_type":5}`, `[]`, `{"model_type":"vit"`} {
		if _, err := format.ParseModelConfig([]byte(text)); !errors.Is(err, format.ErrConfig) {
			t.Errorf("%s: error %v", text, err)
		}
	}
}

// TestImageConfigsOfTheHub reads what transformers' processors read out of files of many releases.
func TestImageConfigsOfTheHub(t *testing.T) {
	dirs, err := filepath.Glob("../testdata/golden/configs/preprocessor/*")
	if err != nil || len(dirs) < 9 {
		t.Fatalf("%d files, %v", len(dirs), err)
	}
	for _, dir := range dirs {
		want := struct {
			Size          format.ImageSize  `json:"size"`
			CropSize      *format.ImageSize `json:"crop_size"`
			Resample      int               `json:"resample"`
			DoResize      bool              `json:"do_resize"`
			DoCenterCrop  bool              `json:"do_center_crop"`
			DoRescale     bool              `json:"do_rescale"`
			DoNormalize   bool              `json:"do_normalize"`
			RescaleFactor float64           `json:"rescale_factor"`
			Mean          [3]float32        `json:"image_mean"`
			Std           [3]float32        `json:"image_std"`
		}{}
		if err := json.Unmarshal(read(t, filepath.Join(dir, "expected.json")), &want); err != nil {
			t.Fatal(err)
		}
		c, err := format.ReadImageConfig(dir)
		if err != nil {
			t.Error(err)
			continue
		}
		if want.CropSize == nil {
			want.CropSize = &format.ImageSize{}
		}
		got := want
		if c.CropSize != *want.CropSize {
			got.CropSize = &c.CropSize
		}
		got.Size, got.Resample, got.RescaleFactor, got.Mean, got.Std = c.Size, c.Resample, c.RescaleFactor, c.Mean, c.Std
		got.DoResize, got.DoCenterCrop, got.DoRescale, got.DoNormalize = c.DoResize, c.DoCenterCrop, c.DoRescale, c.DoNormalize
		if got != want {
			t.Errorf("%s: %+v, want %+v", dir, got, want)
		}
	}
	_, err = format.ParseImageConfig([]byte(`{"image_processor_type":"ConvNextImageProcessor"}`))
	if !errors.Is(err, format.ErrUnsupported) || !strings.Contains(err.Error(), "BitImageProcessor, ViTImageProcessor") {
		t.Errorf("another processor: %v", err)
	}
}

func TestImageConfigIsByteIdenticalToTransformers(t *testing.T) {
	c, err := format.ReadImageConfig("testdata/written/sharded")
	if err != nil {
		t.Fatal(err)
	}
	if c.Size != (format.ImageSize{Height: 8, Width: 8}) || c.Resample != 2 || !c.DoResize || !c.DoRescale || !c.DoNormalize || c.DoCenterCrop ||
		c.RescaleFactor != 1.0/255 || c.Mean != [3]float32{0.5, 0.25, 0.125} || c.Std != [3]float32{1. / 3, 0.1, 1e-5} {
		t.Errorf("%+v", c)
	}
	dir := t.TempDir()
	if err := c.Write(dir); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, dir+"/preprocessor_config.json"), read(t, "testdata/written/sharded/preprocessor_config.json"); !bytes.Equal(got, want) {
		t.Errorf("wrote\n%s", got)
	}
}

func TestImageConfigSpellings(t *testing.T) {
	half := [3]float32{0.5, 0.5, 0.5}
	cases := map[string]struct {
		text string
		want format.ImageConfig
	}{
		"google/vit-base-patch16-224-in21k as of 2021": {
			`{"do_normalize":true,"do_resize":true,"feature_extractor_type":"ViTFeatureExtractor","image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"resample":2,"size":224}`,
			format.ImageConfig{DoResize: true, DoRescale: true, DoNormalize: true, Size: format.ImageSize{Height: 224, Width: 224}, Resample: 2, RescaleFactor: 1.0 / 255, Mean: half, Std: half}},
		"nothing": {`{}`,
			format.ImageConfig{DoResize: true, DoRescale: true, DoNormalize: true, Size: format.ImageSize{Height: 224, Width: 224}, Resample: 2, RescaleFactor: 1.0 / 255, Mean: half, Std: half}},
		"centre crop": {`{"size":{"shortest_edge":256},"do_center_crop":true,"crop_size":{"height":224,"width":200},"resample":3,"do_rescale":false,"do_normalize":false,"image_std":[0]}`,
			format.ImageConfig{DoResize: true, DoCenterCrop: true, Size: format.ImageSize{ShortestEdge: 256}, CropSize: format.ImageSize{Height: 224, Width: 200}, Resample: 3, RescaleFactor: 1.0 / 255, Mean: half}},
		"list and single numbers": {`{"size":[32,48],"image_mean":0,"image_std":[0.25],"rescale_factor":1,"crop_size":null}`,
			format.ImageConfig{DoResize: true, DoRescale: true, DoNormalize: true, Size: format.ImageSize{Height: 32, Width: 48}, Resample: 2, RescaleFactor: 1, Std: [3]float32{0.25, 0.25, 0.25}}},
	}
	for name, c := range cases {
		got, err := format.ParseImageConfig([]byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		g := *got
		if g.Size != c.want.Size || g.CropSize != c.want.CropSize || g.Mean != c.want.Mean || g.Std != c.want.Std || g.Resample != c.want.Resample ||
			g.RescaleFactor != c.want.RescaleFactor || g.DoResize != c.want.DoResize || g.DoCenterCrop != c.want.DoCenterCrop ||
			g.DoRescale != c.want.DoRescale || g.DoNormalize != c.want.DoNormalize {
			t.Errorf("%s: %+v\nwant %+v", name, g, c.want)
		}
	}
	for field, want := range map[string]string{
		`"size":"224"`:                    `field "size": expected an integer`,
		`"size":{"height":224}`:           `field "size": expected height and width, or shortest_edge`,
		`"size":{"height":-1}`:            `field "size": height: expected an integer`,
		`"size":{"height":1,"width":2.5}`: `field "size": width: expected an integer`,
		`"size":[1]`:                      `field "size": expected an integer or a list of two`,
		`"resample":9`:                    `field "resample": 9 is none of PIL's filters`,
		`"resample":"bicubic"`:            `field "resample": expected an integer`,
		`"image_mean":[1,2]`:              `field "image_mean": expected three numbers`,
		`"image_mean":["a"]`:              `field "image_mean": expected three numbers`,
		`"image_std":[1,0,1]`:             `field "image_std": dividing by zero`,
		`"do_resize":"true"`:              `field "do_resize": expected true or false`,
		`"rescale_factor":"1/255"`:        `field "rescale_factor": expected a number`,
	} {
		if _, err := format.ParseImageConfig([]byte(`{` + field + `}`)); err == nil || !errors.Is(err, format.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", field, err, want)
		}
	}
}

func TestNames(t *testing.T) {
	cases := []struct{ classic, v5 string }{
		{"vit.encoder.layer.0.attention.attention.query", "vit.layers.0.attention.q_proj"},
		{"vit.encoder.layer.0.attention.attention.key.weight", "vit.layers.0.attention.k_proj.weight"},
		{"vit.encoder.layer.11.attention.attention.value.lora_A.weight", "vit.layers.11.attention.v_proj.lora_A.weight"},
		{"vit.encoder.layer.3.attention.output.dense.lora_E", "vit.layers.3.attention.o_proj.lora_E"},
		{"vit.encoder.layer.3.intermediate.dense.bias", "vit.layers.3.mlp.fc1.bias"},
		{"vit.encoder.layer.3.output.dense.ia3_l", "vit.layers.3.mlp.fc2.ia3_l"},
		{"vit.encoder.layer.3.layernorm_before.weight", "vit.layers.3.layernorm_before.weight"},
		{"vit.encoder.layer.3", "vit.layers.3"},
		{"vit.embeddings.patch_embeddings.projection.weight", "vit.embeddings.patch_embeddings.projection.weight"},
		{"vit.embeddings", "vit.embeddings"},
		{"vit.layernorm.bias", "vit.layernorm.bias"},
		{"vit.pooler.dense.weight", "vit.pooler.dense.weight"},
		{"classifier.weight", "classifier.weight"},
		{"something.else", "something.else"},
		// Near misses stay as they are.
		{"vit.encoder.layer.x.output.dense", "vit.encoder.layer.x.output.dense"},
		{"vit.encoder.layer.0.outputs.dense", "vit.layers.0.outputs.dense"},
		{"vit.encoder.layer.0.output.dense2", "vit.layers.0.output.dense2"},
		{"embeddings2.layers.0.mlp.fc1", "embeddings2.layers.0.mlp.fc1"},
	}
	for _, c := range cases {
		for _, name := range []string{c.classic, c.v5, strings.TrimPrefix(c.classic, "vit."), strings.TrimPrefix(c.v5, "vit.")} {
			if got := format.Canonical("vit", name); got != c.classic {
				t.Errorf("Canonical(%q) = %q, want %q", name, got, c.classic)
			}
		}
		if got := format.Spell("vit", c.classic, format.Transformers5); got != c.v5 {
			t.Errorf("Spell(%q) = %q, want %q", c.classic, got, c.v5)
		}
		if got := format.Spell("vit", c.classic, format.Transformers4); got != c.classic {
			t.Errorf("Spell(%q) in classic = %q", c.classic, got)
		}
		// Unknown model types have one name for everything.
		if got := format.Canonical("llama", c.v5); got != c.v5 {
			t.Errorf("llama: Canonical(%q) = %q", c.v5, got)
		}
		if got := format.Spellings("llama", c.classic); !slices.Equal(got, []string{c.classic}) {
			t.Errorf("llama: Spellings(%q) = %q", c.classic, got)
		}
	}
	got := format.Spellings("vit", "vit.encoder.layer.0.output.dense")
	want := []string{"vit.encoder.layer.0.output.dense", "vit.layers.0.mlp.fc2", "encoder.layer.0.output.dense", "layers.0.mlp.fc2"}
	if !slices.Equal(got, want) {
		t.Errorf("spellings %q, want %q", got, want)
	}
	if got := format.Spellings("vit", "classifier"); !slices.Equal(got, []string{"classifier"}) {
		t.Errorf("spellings of classifier %q", got)
	}
}

// Every tensor that transformers wrote is canonical already, and none of the
// new names of two tensors collide.
func TestNamesOfARealModel(t *testing.T) {
	ck, err := format.Open("testdata/written/sharded")
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	seen := map[string]string{}
	for tensor := range ck.Tensors() {
		name := tensor.Info().Name
		if got := format.Canonical("vit", name); got != name {
			t.Errorf("Canonical(%q) = %q", name, got)
		}
		for _, s := range format.Spellings("vit", name) {
			if other, dup := seen[s]; dup {
				t.Errorf("%q and %q are both spelled %q", name, other, s)
			}
			seen[s] = name
		}
	}
	v5 := slices.Sorted(maps.Keys(seen))
	if !slices.Contains(v5, "layers.1.attention.o_proj.weight") {
		t.Errorf("spellings %q", v5)
	}
}

func TestParseNames(t *testing.T) {
	for _, n := range []format.Names{format.Transformers4, format.Transformers5, format.BothNames} {
		if got, err := format.ParseNames(n.String()); err != nil || got != n {
			t.Errorf("%s: %v, %v", n, got, err)
		}
	}
	if _, err := format.ParseNames("v5"); err == nil || !strings.Contains(err.Error(), "transformers5, transformers4, both") {
		t.Errorf("error %v", err)
	}
	if !slices.Equal(format.BothNames.Each(), []format.Names{format.Transformers5, format.Transformers4}) || len(format.Transformers4.Each()) != 1 {
		t.Error("Each")
	}
}
