package format_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/format"
)

func TestInspectModel(t *testing.T) {
	r, err := format.Inspect("testdata/written/sharded")
	if err != nil {
		t.Fatal(err)
	}
	// 40 float32 tensors; the files are 8 + header + data.
	if r.Kind != "model" || r.AdapterReport != nil || len(r.Tensors) != 40 || r.Bytes != 4*r.Parameters || r.DTypes["F32"] != r.Parameters ||
		len(r.Shards) != 2 || r.Shards[0].Tensors != 21 || len(r.Warnings) != 0 || !slices.Equal(r.Architectures, []string{"ViTForImageClassification"}) {
		t.Errorf("%+v %+v", r, r.ModelReport)
	}
	for _, s := range r.Shards {
		if info, err := os.Stat("testdata/written/sharded/" + s.Name); err != nil || info.Size() != s.Size {
			t.Errorf("%s has %d bytes, not %d (%v)", s.Name, info.Size(), s.Size, err)
		}
	}
	wantKeys(t, r, "architectures bytes dtypes kind parameters shards tensors warnings")
	// A file without tensors still has lists, not null.
	r, err = format.Inspect("testdata/written/no-tensors.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(r); strings.Contains(string(text), "null") {
		t.Errorf("%s", text)
	}
}

func wantKeys(t *testing.T, r *format.Report, want string) {
	t.Helper()
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got := keys(text)
	slices.Sort(got)
	if strings.Join(got, " ") != want {
		t.Errorf("keys %v, want %s", got, want)
	}
}

// Adapters that PEFT wrote give no reason to warn, whatever their method.
func TestInspectAdaptersOfPEFT(t *testing.T) {
	files, _ := filepath.Glob("../testdata/golden/*/*/adapter_config.json")
	if len(files) < 30 {
		t.Fatalf("only %d golden adapters", len(files))
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		name, _ := filepath.Rel("../testdata/golden", dir)
		r, err := format.Inspect(dir)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.Kind != "adapter" || len(r.Modules) == 0 || r.Parameters == 0 {
			t.Errorf("%s: %+v", name, r)
		}
		method := strings.ToUpper(filepath.Dir(name))
		if method != "TRAINING" && method != "CONFIGS" && r.PeftType != strings.Replace(method, "DORA", "LORA", 1) {
			t.Errorf("%s: peft_type %s", name, r.PeftType)
		}
		for _, w := range r.Warnings {
			if !strings.Contains(w, "names of transformers 4") || !strings.Contains(name, "classic-names") && !strings.Contains(name, "old-config") {
				t.Errorf("%s: warning %s", name, w)
			}
		}
	}
}

func TestInspectAdapter(t *testing.T) {
	r, err := format.Inspect("../testdata/golden/adalora/pruned")
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, r, "alpha base_model kind modules modules_to_save parameters peft_type r target_modules tensors warnings")
	if r.PeftType != "ADALORA" || string(r.R) != string(field(t, "../testdata/golden/adalora/pruned", "init_r")) || r.ModelReport != nil {
		t.Errorf("%+v", r.AdapterReport)
	}
	// Without its configuration the tensors must tell.
	r, err = format.Inspect("../testdata/golden/adalora/pruned/adapter_model.safetensors")
	if err != nil || r.PeftType != "ADALORA" || r.R != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "the method is guessed") {
		t.Errorf("%+v, %v", r, err)
	}
	wantKeys(t, r, "alpha base_model kind modules modules_to_save parameters peft_type r target_modules tensors warnings")
}

func field(t *testing.T, dir, key string) json.RawMessage {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(read(t, filepath.Join(dir, format.AdapterConfigFile)), &fields); err != nil {
		t.Fatal(err)
	}
	return fields[key]
}

func TestInspectWarnings(t *testing.T) {
	a := func(name string, shape ...int) format.Tensor {
		n := 1
		for _, d := range shape {
			n *= d
		}
		return format.FloatTensor("base_model.model."+name, shape, slices.Repeat([]float32{1}, n))
	}
	q := "vit.layers.0.attention.q_proj"
	pair := []format.Tensor{a(q+".lora_A.weight", 4, 8), a(q+".lora_B.weight", 8, 4)}
	cases := map[string]struct {
		config  string
		tensors []format.Tensor
		want    []string
	}{
		"nothing wrong":        {`{"peft_type":"LORA","r":4}`, pair, nil},
		"rank by pattern":      {`{"peft_type":"LORA","r":8,"rank_pattern":{".*q_proj":4}}`, pair, nil},
		"rank by default":      {`{"peft_type":"LORA"}`, pair, nil},
		"rank disagrees":       {`{"peft_type":"LORA","r":8}`, pair, []string{`module "` + q + `" has rank 4, which adapter_config.json does not mention`}},
		"A without B":          {`{"peft_type":"LORA","r":4}`, pair[:1], []string{`module "` + q + `" has lora_A but no lora_B`}},
		"B without A":          {`{"peft_type":"LORA","r":4}`, pair[1:], []string{`module "` + q + `" has lora_B but no lora_A`}},
		"saved module missing": {`{"peft_type":"LORA","r":4,"modules_to_save":["classifier"]}`, pair, []string{`modules_to_save names "classifier", but no tensor belongs to it: PEFT cannot load this`}},
		"saved module there":   {`{"peft_type":"LORA","r":4,"modules_to_save":["fier"]}`, append(pair, a("classifier.weight", 2, 8)), nil},
		"other method":         {`{"peft_type":"LOHA"}`, pair, []string{"peft_type is LOHA, but the tensors are named like those of LORA"}},
		"text task":            {`{"peft_type":"LORA","r":4,"task_type":"SEQ_CLS"}`, pair, []string{"task_type is SEQ_CLS, but image classification has none: PEFT needs it to be null"}},
		"no adapter tensors":   {`{"peft_type":"LORA"}`, []format.Tensor{a("classifier.weight", 2)}, []string{"no tensor is named like an adapter's"}},
		"adapter name kept": {`{"peft_type":"LORA","r":4}`, []format.Tensor{a(q+".lora_A.default.weight", 4, 8), a(q+".lora_B.default.weight", 8, 4)},
			[]string{`tensor "base_model.model.` + q + `.lora_A.default.weight" contains the adapter's name, which PEFT removes when it saves: it will not find it`}},
		"mask disagrees": {`{"peft_type":"ADALORA","init_r":12,"rank_pattern":{"` + q + `.lora_E":[true,false,true]}}`,
			[]format.Tensor{a(q+".lora_A", 3, 8), a(q+".lora_B", 8, 3), a(q+".lora_E", 3, 1)},
			[]string{`module "` + q + `" has rank 3, but its mask in rank_pattern keeps 2`}},
		"mask agrees": {`{"peft_type":"ADALORA","init_r":12,"rank_pattern":{"` + q + `.lora_E":[true,false,true]}}`,
			[]format.Tensor{a(q+".lora_A", 2, 8), a(q+".lora_B", 8, 2), a(q+".lora_E", 2, 1)}, nil},
		"experts":    {`{"peft_type":"LORA","r":1,"target_parameters":["w"]}`, pair, nil},
		"both names": {`{"peft_type":"LORA","r":4}`, append([]format.Tensor{a("vit.encoder.layer.0.output.dense.lora_A.weight", 4, 8), a("vit.encoder.layer.0.output.dense.lora_B.weight", 8, 4)}, pair...), nil},
		"classic names of a bare model": {`{"peft_type":"LORA","r":4}`, []format.Tensor{a("encoder.layer.0.output.dense.lora_A.weight", 4, 8), a("encoder.layer.0.output.dense.lora_B.weight", 8, 4)},
			[]string{`modules have the names of transformers 4, which transformers 5 does not find; "hubtool convert --names" renames them`}},
		"classic names": {`{"peft_type":"LORA","r":4}`, []format.Tensor{a("vit.encoder.layer.0.output.dense.lora_A.weight", 4, 8), a("vit.encoder.layer.0.output.dense.lora_B.weight", 8, 4)},
			[]string{`modules have the names of transformers 4, which transformers 5 does not find; "hubtool convert --names" renames them`}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := format.Write(t.Context(), filepath.Join(dir, format.AdapterFile), c.tensors, nil); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, format.AdapterConfigFile), []byte(c.config), 0o666); err != nil {
				t.Fatal(err)
			}
			r, err := format.Inspect(dir)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(r.Warnings, append([]string{}, c.want...)) {
				t.Errorf("warnings %q, want %q", r.Warnings, c.want)
			}
		})
	}
}

func TestInspectErrors(t *testing.T) {
	if _, err := format.Inspect(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty folder: %v", err)
	}
	for _, name := range []string{format.AdapterConfigFile, format.ModelConfigFile} {
		dir := t.TempDir()
		if err := format.Write(t.Context(), filepath.Join(dir, format.ModelFile), nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := format.Inspect(dir); !errors.Is(err, format.ErrConfig) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckValues(t *testing.T) {
	check := func(tensors ...format.Tensor) []string {
		r := &format.Report{}
		if err := r.CheckValues(t.Context(), slices.Values(tensors)); err != nil {
			t.Error(err)
		}
		return r.Warnings
	}
	f := func(name string, values ...float32) format.Tensor {
		return format.FloatTensor(name, []int{len(values)}, values)
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	cases := []struct {
		got  []string
		want string
	}{
		{check(f("a.lora_A.weight", 0), f("a.lora_B.weight", 0, 1), f("b.hada_w2_b"), tensor("c", format.F8_E4M3, []int{1}, 0)), ""},
		{check(f("a", 1, nan)), `tensor "a" holds NaN at element 1`},
		{check(f("a", inf, nan)), `tensor "a" holds -Inf at element 0`},
		{check(tensor("h", format.F16, []int{1}, 0, 0x7c)), `tensor "h" holds +Inf at element 0`},
		{check(f("a.lora_B.weight", 0, 0), f("b.lora_B.weight", 0)), "every lora_B is zero: the adapter changes nothing"},
		{check(f("a.lora_E", 0, 0), f("b.lora_E", 2)), "1 of 2 lora_E are zero: these modules were not trained"},
	}
	for _, c := range cases {
		if got := strings.Join(c.got, "; "); got != c.want {
			t.Errorf("warnings %q, want %q", got, c.want)
		}
	}
	if err := new(format.Report).CheckValues(t.Context(), slices.Values([]format.Tensor{tensor("a", format.F32, []int{2}, 1)})); err == nil {
		t.Error("read a tensor that is too short")
	}
}
