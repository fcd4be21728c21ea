package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// A Report describes an adapter or a model from its headers. As JSON it has
// the fields of one of the two embedded parts, the other being nil.
type Report struct {
	Kind string `json:"kind"` // "adapter" or "model"
	*AdapterReport
	*ModelReport
	Parameters int64          `json:"parameters"`
	Tensors    []TensorReport `json:"tensors"` // by name
	Warnings   []string       `json:"warnings"`
}

// An AdapterReport is what a [Report] says of adapters only.
type AdapterReport struct {
	PeftType      string          `json:"peft_type"`
	R             json.RawMessage `json:"r"`     // init_r for AdaLoRA; null if the method has none
	Alpha         json.RawMessage `json:"alpha"` // lora_alpha or alpha
	TargetModules Targets         `json:"target_modules"`
	ModulesToSave []string        `json:"modules_to_save"`
	Modules       []string        `json:"modules"` // that have adapter tensors
	BaseModel     *string         `json:"base_model"`
}

// A ModelReport is what a [Report] says of models only.
type ModelReport struct {
	Architectures []string         `json:"architectures"`
	Bytes         int64            `json:"bytes"`  // of tensor data
	DTypes        map[string]int64 `json:"dtypes"` // parameters of each type
	Shards        []ShardReport    `json:"shards"`
}

// A ShardReport is one file of a model; Size is that of the whole file in bytes.
type ShardReport struct {
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	Tensors int    `json:"tensors"`
}

// A TensorReport is one tensor.
type TensorReport struct {
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
}

// Inspect reads the headers and the configuration of what [Open] would open.
// For a check of the values as well see [Report.CheckValues].
func Inspect(path string) (*Report, error) {
	ck, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer ck.Close()
	dir := ""
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		dir = path
	}
	return InspectOpen(ck, dir)
}

// InspectOpen is [Inspect] for an open checkpoint, whose configuration is in dir; "" for none.
func InspectOpen(ck *Checkpoint, dir string) (*Report, error) {
	var adapter *AdapterConfig
	var model *ModelConfig
	if dir != "" {
		var err error
		if adapter, err = ReadAdapterConfig(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if model, err = ReadModelConfig(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	r := Describe(ck.Shards(), adapter, model)
	r.Warnings = append(r.Warnings, ck.Warnings()...)
	return r, nil
}

// Describe is [Inspect] for headers and configurations that the caller has
// read, from a remote repository for example. Either configuration may be nil;
// what has an adapter's configuration, or tensors named like one's, is an adapter.
func Describe(shards []Shard, adapter *AdapterConfig, model *ModelConfig) *Report {
	r := &Report{Kind: "model", Tensors: []TensorReport{}, Warnings: []string{}}
	m := &ModelReport{Architectures: []string{}, DTypes: map[string]int64{}, Shards: []ShardReport{}}
	for _, s := range shards {
		entries := s.Header.Entries()
		m.Shards = append(m.Shards, ShardReport{s.Name, s.Header.FileSize(), len(entries)})
		m.Bytes += s.Header.DataSize()
		for _, e := range entries {
			r.Parameters += e.Elements()
			m.DTypes[e.DType.String()] += e.Elements()
			r.Tensors = append(r.Tensors, TensorReport{e.Name, e.DType.String(), slices.Concat([]int{}, e.Shape)})
		}
	}
	slices.SortFunc(r.Tensors, func(a, b TensorReport) int { return strings.Compare(a.Name, b.Name) })
	parts := adapterParts(r.Tensors)
	if adapter == nil && len(parts) == 0 {
		if model != nil {
			m.Architectures = slices.Concat(m.Architectures, model.Architectures)
		}
		r.ModelReport = m
		return r
	}
	r.Kind = "adapter"
	r.AdapterReport = describeAdapter(adapter, parts)
	r.checkAdapter(adapter, parts)
	return r
}

func (r *Report) warn(msg string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(msg, args...))
}

func describeAdapter(c *AdapterConfig, parts []adapterPart) *AdapterReport {
	a := &AdapterReport{Modules: []string{}}
	for _, p := range parts {
		a.Modules = append(a.Modules, p.module)
	}
	slices.Sort(a.Modules)
	a.Modules = slices.Compact(a.Modules)
	if c == nil {
		a.PeftType = guessMethod(parts)
		return a
	}
	a.PeftType, a.TargetModules, a.ModulesToSave, a.BaseModel = c.PeftType, c.TargetModules, c.ModulesToSave, c.BaseModel
	a.R, a.Alpha = c.raw["r"], c.raw["lora_alpha"]
	if c.PeftType == "ADALORA" { // which ignores r
		a.R = c.raw["init_r"]
	}
	if a.Alpha == nil {
		a.Alpha = c.raw["alpha"]
	}
	return a
}
