package format_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/format"
)

// Files that PEFT wrote come out byte for byte, and so do copies that went
// through Method and SetMethod.
func TestAdapterConfigIsByteIdenticalToPEFT(t *testing.T) {
	files, _ := filepath.Glob("testdata/configs/*.json")
	if len(files) < 15 {
		t.Fatalf("only %d golden files", len(files))
	}
	for _, file := range files {
		text := read(t, file)
		c, err := format.ParseAdapterConfig(text)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		var m loraMethod
		if err := c.Method(&m); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if strings.Contains(file, "lora") {
			if err := c.SetMethod(&m); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		got, err := c.MarshalJSON()
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s: %v, wrote\n%s", file, err, got)
		}
	}
}

// loraMethod has the fields of LoraConfig 0.21.2 that are no object.
type loraMethod struct {
	R           int           `json:"r"`
	Alpha       format.Number `json:"lora_alpha"`
	Dropout     float64       `json:"lora_dropout"`
	Bias        string        `json:"bias"`
	Init        any           `json:"init_lora_weights"`
	FanInFanOut bool          `json:"fan_in_fan_out"`
	UseDora     bool          `json:"use_dora"`
	UseRslora   bool          `json:"use_rslora"`
}

// A new configuration has the keys that PEFT's class has, in its text.
func TestNewAdapterConfig(t *testing.T) {
	class := `{"base_model_class": "ViTForImageClassification", "parent_library": "transformers.models.vit.modeling_vit"}`
	c := &format.AdapterConfig{PeftType: "LOHA", AutoMapping: []byte(class), InferenceMode: true, PeftVersion: "0.21.2",
		TargetModules: format.Targets{Names: []string{"q_proj", "v_proj"}}, ModulesToSave: []string{"classifier"}}
	err := c.SetMethod(&struct {
		R             int           `json:"r"`
		Alpha         format.Number `json:"alpha"`
		RankDropout   float64       `json:"rank_dropout"`
		ModuleDropout float64       `json:"module_dropout"`
		UseEffective  bool          `json:"use_effective_conv2d"`
		InitWeights   bool          `json:"init_weights"`
		NotWritten    int
	}{R: 16, Alpha: 16, ModuleDropout: 0.1, InitWeights: true})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := c.Write(dir); err != nil {
		t.Fatal(err)
	}
	got := string(read(t, filepath.Join(dir, format.AdapterConfigFile)))
	want := string(read(t, "testdata/configs/loha.json"))
	// PEFT keeps targets in a set: their order differs from run to run.
	want = strings.Replace(want, `    "v_proj",`+"\n"+`    "q_proj"`, `    "q_proj",`+"\n"+`    "v_proj"`, 1)
	if got != want {
		t.Errorf("wrote\n%s\nPEFT writes\n%s", got, want)
	}
}

// Methods whose class lacks a shared key do not get it, or PEFT would warn.
func TestNewAdapterConfigKeys(t *testing.T) {
	for _, peftType := range []string{"LOHA", "IA3", "LN_TUNING", "OFT", "HRA"} {
		golden, err := format.ReadAdapterConfig(goldenDir(t, strings.ToLower(peftType)))
		if err != nil {
			t.Fatal(err)
		}
		inFile, err := golden.Unknown(&struct{}{})
		if err != nil {
			t.Fatal(err)
		}
		text, _ := golden.MarshalJSON()
		fresh, err := (&format.AdapterConfig{PeftType: peftType, PeftVersion: "0.21.2"}).MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		// What is left of the golden keys without the method's own is what we write.
		var want []string
		for _, key := range keys(text) {
			if !slices.Contains(inFile, key) {
				want = append(want, key)
			}
		}
		if got := keys(fresh); !slices.Equal(got, want) {
			t.Errorf("%s: keys %v, PEFT's class has %v", peftType, got, want)
		}
	}
}

// keys lists the top-level keys of a text in PEFT's layout.
func keys(text []byte) []string {
	var list []string
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, `  "`); ok {
			key, _, _ := strings.Cut(rest, `"`)
			list = append(list, key)
		}
	}
	return list
}

func goldenDir(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, format.AdapterConfigFile), read(t, "testdata/configs/"+name+".json"), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAdapterConfigFields(t *testing.T) {
	c, err := format.ReadAdapterConfig(goldenDir(t, "lora-patterns"))
	if err != nil {
		t.Fatal(err)
	}
	// The order of the file decides which pattern wins.
	if want := (format.Pattern{{Key: "^vit.layers.0.mlp.fc1", Value: 8}, {Key: "q_proj", Value: 4}, {Key: "ünused", Value: 1}}); !slices.Equal(c.RankPattern, want) {
		t.Errorf("rank_pattern %v, want %v", c.RankPattern, want)
	}
	if want := (format.Pattern{{Key: "fc1", Value: 0.5}, {Key: "q_proj", Value: 16}}); !slices.Equal(c.AlphaPattern, want) {
		t.Errorf("alpha_pattern %v, want %v", c.AlphaPattern, want)
	}
	m := loraMethod{R: 99}
	if err := c.Method(&m); err != nil || m.R != 2 || m.Alpha != 8 || m.Dropout != 1e-5 || m.Init != true {
		t.Errorf("method %+v, %v", m, err)
	}

	c, _ = format.ReadAdapterConfig(goldenDir(t, "lora-regex"))
	if c.TargetModules.Pattern != `.*\.attention\.(q|v)_proj` || c.TargetModules.Names != nil || c.ExcludeModules.IsZero() {
		t.Errorf("targets %+v, excluded %+v", c.TargetModules, c.ExcludeModules)
	}
	c, _ = format.ReadAdapterConfig(goldenDir(t, "lora-layers"))
	if !reflect.DeepEqual(c.LayersToTransform, &format.IntList{1}) || !reflect.DeepEqual(c.LayersPattern, &format.StringList{"layers"}) {
		t.Errorf("layers %v, pattern %v", c.LayersToTransform, c.LayersPattern)
	}
	c, _ = format.ReadAdapterConfig(goldenDir(t, "dora"))
	if c.Revision == nil || *c.Revision != "v1.0" || c.BaseModel != nil || c.TaskType != nil || !c.InferenceMode {
		t.Errorf("%+v", c)
	}
	c, _ = format.ReadAdapterConfig(goldenDir(t, "adalora-masks"))
	var masks struct {
		RankPattern map[string][]bool `json:"rank_pattern"`
	}
	if err := c.Method(&masks); err != nil || len(masks.RankPattern["vit.layers.1.attention.v_proj.lora_E"]) != 3 || c.RankPattern != nil {
		t.Errorf("masks %v, %v; pattern %v", masks, err, c.RankPattern)
	}
}

func TestMinimalAdapterConfig(t *testing.T) {
	c, err := format.ParseAdapterConfig([]byte(`{"peft_type":"LORA","target_modules":["query"],"runtime_config":{"ephemeral":1},"foo":[1,1e-5]}`))
	if err != nil {
		t.Fatal(err)
	}
	m := loraMethod{R: 8, Alpha: 8, Bias: "none"}
	if err := c.Method(&m); err != nil || m != (loraMethod{R: 8, Alpha: 8, Bias: "none"}) {
		t.Errorf("defaults became %+v, %v", m, err)
	}
	if unknown, err := c.Unknown(&m); err != nil || !slices.Equal(unknown, []string{"foo"}) {
		t.Errorf("unknown fields %v, %v", unknown, err)
	}
	// No key is invented: PEFT before 0.14 stumbles over keys it does not know.
	want := "{\n  \"foo\": [\n    1,\n    1e-05\n  ],\n  \"peft_type\": \"LORA\",\n  \"target_modules\": [\n    \"query\"\n  ]\n}"
	if got, err := c.MarshalJSON(); err != nil || string(got) != want {
		t.Errorf("%v, wrote %s, want %s", err, got, want)
	}
	c.TargetModules = format.Targets{Pattern: "all-linear"}
	c.ModulesToSave = []string{"классификатор"}
	if got, _ := c.MarshalJSON(); !strings.Contains(string(got), `"target_modules": "all-linear"`) ||
		!strings.Contains(string(got), `"\u043a\u043b\u0430\u0441\u0441\u0438`) || strings.Contains(string(got), "runtime_config") {
		t.Errorf("wrote %s", got)
	}
}

// Every error of a hand-edited file names the field.
func TestMalformedAdapterConfig(t *testing.T) {
	cases := map[string]string{ // fields beside peft_type → error
		`"target_modules":5`:                        `field "target_modules": expected a list of names, a string or null, found 5`,
		`"target_modules":["q",null]`:               `field "target_modules": expected a list of strings or null, found ["q",null]`,
		`"target_modules":""`:                       `field "target_modules": the pattern is empty`,
		`"exclude_modules":{}`:                      `field "exclude_modules": expected a list of names`,
		`"modules_to_save":"classifier"`:            `field "modules_to_save": expected a list of strings or null, found "classifier"`,
		`"layers_to_transform":1.5`:                 `field "layers_to_transform": expected an integer, a list of integers or null, found 1.5`,
		`"layers_to_transform":[1,"2"]`:             `field "layers_to_transform": expected an integer, a list`,
		`"layers_to_transform":[null]`:              `field "layers_to_transform": expected an integer, a list`,
		`"layers_pattern":[1]`:                      `field "layers_pattern": expected a string, a list`,
		`"rank_pattern":[]`:                         `field "rank_pattern": expected an object or null, found []`,
		`"rank_pattern":{"q":16.0}`:                 `field "rank_pattern": key "q": expected a positive integer, found 16.0`,
		`"rank_pattern":{"q":0}`:                    `field "rank_pattern": key "q": expected a positive integer, found 0`,
		`"rank_pattern":{"q":[true]}`:               `field "rank_pattern": key "q": expected a number, found [true]`,
		`"rank_pattern":{"q":1,"q":2}`:              `field "rank_pattern": duplicate key "q"`,
		`"alpha_pattern":{"q":"8"}`:                 `field "alpha_pattern": key "q": expected a number, found "8"`,
		`"task_type":"IMAGE_CLASSIFICATION"`:        `field "task_type": "IMAGE_CLASSIFICATION" is not null or one of SEQ_CLS`,
		`"task_type":7`:                             `field "task_type": expected a string, found 7`,
		`"inference_mode":"yes"`:                    `field "inference_mode": expected true or false, found "yes"`,
		`"base_model_name_or_path":{"a":1}`:         `field "base_model_name_or_path": expected a string, found {"a":1}`,
		`"peft_version":21`:                         `field "peft_version": expected a string, found 21`,
		`"lora_alpha":NaN`:                          `field "lora_alpha": NaN is not a JSON value`,
		`"lora_alpha":-Infinity`:                    `field "lora_alpha": malformed number`,
		`"lora_alpha":1e999`:                        `field "lora_alpha": number 1e999 does not fit`,
		`"r":8,"r":16`:                              `field "r": given twice`,
		`"a":` + strings.Repeat("[", 100):           `field "a": nesting deeper than 64`,
		`"a":"\ud800"`:                              `field "a": lone surrogate`,
		`"a":tru`:                                   `field "a": expected a value, found "tru"`,
		`"a":}`:                                     `field "a": expected a value`,
		`"a":01`:                                    `field "a": malformed number`,
		`"a":1.`:                                    `field "a": malformed number`,
		`"a":1e+`:                                   `field "a": malformed number`,
		"\"a\":\"\xff\"":                            "not valid UTF-8",
		`"modules_to_save":["` + long(100) + `",1]`: `field "modules_to_save": expected a list of strings or null, found ["xxxxx`,
	}
	for fields, want := range cases {
		_, err := format.ParseAdapterConfig([]byte(`{"peft_type":"LORA",` + fields + `}`))
		if err == nil || !errors.Is(err, format.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", fields, err, want)
		} else if len(err.Error()) > 250 {
			t.Errorf("%s: the message has %d bytes", fields, len(err.Error()))
		}
	}
	for text, want := range map[string]string{
		``: "expected '{'", `[]`: "expected '{'", `null`: "expected '{'", `{} {}`: "unexpected text", `{}`: `field "peft_type": missing`,
		`{"peft_type":null}`: `field "peft_type": missing`, `{"peft_type":["LORA"]}`: `field "peft_type": expected a string`,
		"\ufeff{\"peft_type\":\"LORA\"}": "expected '{'",
	} {
		if _, err := format.ParseAdapterConfig([]byte(text)); err == nil || !errors.Is(err, format.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
	dir := t.TempDir()
	if _, err := format.ReadAdapterConfig(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	path := filepath.Join(dir, format.AdapterConfigFile)
	os.WriteFile(path, []byte(`{"peft_type":"LORA","target_modules":5}`), 0o666)
	if _, err := format.ReadAdapterConfig(dir); err == nil || !strings.Contains(err.Error(), "reading \""+path) {
		t.Errorf("the path is not named: %v", err)
	}
	os.WriteFile(path, bytes.Repeat([]byte(" "), 17<<20), 0o666)
	if _, err := format.ReadAdapterConfig(dir); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("huge file: %v", err)
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func TestMalformedMethodFields(t *testing.T) {
	cases := map[string]string{
		`"r":16.0`:                 `field "r": expected an integer, found 16.0`,
		`"r":"4"`:                  `field "r": expected an integer, found "4"`,
		`"r":1e2`:                  `field "r": expected an integer, found 1e2`,
		`"r":99999999999999999999`: `field "r": expected an integer, found 9999`,
		`"lora_alpha":"8"`:         `field "lora_alpha": expected a number, found "8"`,
		`"use_rslora":"yes"`:       `field "use_rslora": expected true or false, found "yes"`,
		`"bias":7`:                 `field "bias": expected a string, found 7`,
	}
	for field, want := range cases {
		c, err := format.ParseAdapterConfig([]byte(`{"peft_type":"LORA",` + field + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Method(&loraMethod{}); err == nil || !errors.Is(err, format.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", field, err, want)
		}
	}
	c, _ := format.ParseAdapterConfig([]byte(`{"peft_type":"LORA","R":4,"lora_dropout":null}`))
	m := loraMethod{R: 8, Dropout: 0.5}
	if err := c.Method(&m); err != nil || m.R != 8 || m.Dropout != 0.5 {
		t.Errorf("keys are not matched exactly, or null is no default: %+v, %v", m, err)
	}
	if err := c.Method(m); err == nil {
		t.Error("decoded into a struct by value")
	}
	for _, f := range []float64{math.NaN(), math.Inf(1)} {
		if err := c.SetMethod(&loraMethod{Dropout: f}); err == nil || !errors.Is(err, format.ErrConfig) || !strings.Contains(err.Error(), "lora_dropout") {
			t.Errorf("wrote %v: %v", f, err)
		}
		if err := c.SetMethod(&loraMethod{Alpha: format.Number(f)}); err == nil {
			t.Errorf("wrote %v", f)
		}
	}
}

// Python's repr for floats, including where it changes to exponents.
func TestPythonNumbers(t *testing.T) {
	for in, want := range map[string]string{
		"1": "1", "-0": "0", "-0.0": "-0.0", "0.10": "0.1", "1e0": "1.0", "1E2": "100.0", "0.0001": "0.0001", "0.00001": "1e-05",
		"1.5e-7": "1.5e-07", "1e15": "1000000000000000.0", "9999999999999998.0": "9999999999999998.0", "1e16": "1e+16", "1.25e100": "1.25e+100",
		"12345678901234567890": "12345678901234567890", "0.30000000000000004": "0.30000000000000004", "5e-324": "5e-324", "1e-400": "0.0",
	} {
		c, err := format.ParseAdapterConfig([]byte(`{"peft_type":"X","n":` + in + `}`))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if text, _ := c.MarshalJSON(); !strings.Contains(string(text), `"n": `+want+",\n") {
			t.Errorf("%s became %s, want %s", in, text, want)
		}
	}
}

// What json.dumps escapes: everything but printable ASCII, and no slash.
func TestPythonStrings(t *testing.T) {
	in := `"\"\\/\b\f\n\r\t\u0000\u001f\u007f <&>é\u2028\uD83D\uDE00"`
	want := `"n": "\"\\/\b\f\n\r\t\u0000\u001f\u007f <&>\u00e9\u2028\ud83d\ude00"`
	c, err := format.ParseAdapterConfig([]byte(`{"peft_type":"X","n":` + in + `}`))
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := c.MarshalJSON(); !strings.Contains(string(text), want+",\n") {
		t.Errorf("wrote %s, want %s", text, want)
	}
}
