package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/hub"
)

func (e *env) inspectCommand() *cli.Command {
	return &cli.Command{
		Name:        "inspect",
		Usage:       "describe an adapter, a model or a .safetensors file",
		ArgsUsage:   "REF",
		Description: "Only headers and small JSON files are read, of a repository on the Hub as well.",
		Action: func(c *cli.Context) error {
			r, err := e.reference(c.Args().First(), hub.Model)
			if err != nil {
				return err
			}
			source, err := e.weights(c.Context, r)
			if err != nil {
				return err
			}
			defer source.Close()
			report, err := inspect(source)
			if err != nil {
				return err
			}
			return e.result(report.text, report)
		},
	}
}

// report is what inspect finds.
type report interface{ text(w io.Writer) }

type adapterReport struct {
	Kind          string          `json:"kind"` // "adapter"
	PeftType      string          `json:"peft_type"`
	R             json.RawMessage `json:"r"`
	Alpha         json.RawMessage `json:"alpha"`
	TargetModules format.Targets  `json:"target_modules"`
	ModulesToSave []string        `json:"modules_to_save"`
	Modules       []string        `json:"modules"` // that have adapter tensors
	Parameters    int64           `json:"parameters"`
	BaseModel     *string         `json:"base_model"`
	Tensors       []tensorReport  `json:"tensors"`
	Warnings      []string        `json:"warnings"`
}

type modelReport struct {
	Kind          string           `json:"kind"` // "model"
	Architectures []string         `json:"architectures"`
	Parameters    int64            `json:"parameters"`
	Bytes         int64            `json:"bytes"`  // of tensor data
	DTypes        map[string]int64 `json:"dtypes"` // parameters of each type
	Shards        []shardReport    `json:"shards"`
	Tensors       []tensorReport   `json:"tensors"`
	Warnings      []string         `json:"warnings"`
}

type shardReport struct {
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	Tensors int    `json:"tensors"`
}

type tensorReport struct {
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
}

// inspect describes a folder with an adapter_config.json as an adapter, and any other as a model.
// A single file is an adapter if its tensors are named like one's.
func inspect(s weightSource) (report, error) {
	shards, warnings, err := s.shards()
	if err != nil {
		return nil, err
	}
	model := modelReport{Kind: "model", Architectures: []string{}, DTypes: map[string]int64{}, Shards: []shardReport{}, Tensors: []tensorReport{}, Warnings: warnings}
	var modules []string
	for _, shard := range shards {
		entries := shard.header.Entries()
		model.Shards = append(model.Shards, shardReport{shard.name, shard.header.FileSize(), len(entries)})
		model.Bytes += shard.header.DataSize()
		for _, t := range entries {
			model.Parameters += t.Elements()
			model.DTypes[t.DType.String()] += t.Elements()
			model.Tensors = append(model.Tensors, tensorReport{t.Name, t.DType.String(), orEmpty(t.Shape)})
			if module, ok := adaptedModule(t.Name); ok && !slices.Contains(modules, module) {
				modules = append(modules, module)
			}
		}
	}
	slices.SortFunc(model.Tensors, func(a, b tensorReport) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(modules)

	text, err := s.readFile(format.AdapterConfigFile)
	if err != nil {
		return nil, err
	}
	if text != nil || len(modules) > 0 {
		a := &adapterReport{Kind: "adapter", Modules: orEmpty(modules), Parameters: model.Parameters, Tensors: model.Tensors, Warnings: warnings}
		if text == nil {
			a.PeftType = guessMethod(model.Tensors)
			a.warn("there is no adapter_config.json here; the method is guessed from the tensors' names")
			return a, nil
		}
		return a, a.readConfig(text)
	}
	text, err = s.readFile(format.ModelConfigFile)
	if err != nil || text == nil {
		return &model, err
	}
	config, err := format.ParseModelConfig(text)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", format.ModelConfigFile, err)
	}
	model.Architectures = orEmpty(config.Architectures)
	return &model, nil
}

func (a *adapterReport) warn(format string, args ...any) {
	a.Warnings = append(a.Warnings, fmt.Sprintf(format, args...))
}

func (a *adapterReport) readConfig(text []byte) error {
	c, err := format.ParseAdapterConfig(text)
	if err != nil {
		return fmt.Errorf("reading %q: %w", format.AdapterConfigFile, err)
	}
	var method struct { // whatever the method calls its rank and scale
		R     json.RawMessage `json:"r"`
		InitR json.RawMessage `json:"init_r"`
		Alpha json.RawMessage `json:"alpha"`
		Lora  json.RawMessage `json:"lora_alpha"`
	}
	if err := c.Method(&method); err != nil {
		return fmt.Errorf("reading %q: %w", format.AdapterConfigFile, err)
	}
	a.PeftType, a.TargetModules, a.ModulesToSave, a.BaseModel = c.PeftType, c.TargetModules, c.ModulesToSave, c.BaseModel
	a.R, a.Alpha = method.R, method.Lora
	if c.PeftType == "ADALORA" {
		a.R = method.InitR
	}
	if a.Alpha == nil {
		a.Alpha = method.Alpha
	}
	if len(a.Modules) == 0 {
		a.warn("no tensor is named like an adapter's")
	}
	if slices.ContainsFunc(a.Modules, classicName) && !slices.ContainsFunc(a.Modules, func(m string) bool { return !classicName(m) }) {
		a.warn("modules have the names of transformers 4, which transformers 5 does not find; \"hubtool convert --names\" renames them")
	}
	if c.TaskType != nil {
		a.warn("task_type is %s, but image classification has none: PEFT needs it to be null", *c.TaskType)
	}
	return nil
}

// classicName tells module names that transformers 5 has changed.
func classicName(module string) bool {
	canonical := format.Canonical("vit", module)
	return module == canonical && format.Spell("vit", canonical, format.Transformers5) != module
}

// methodMarks are how the names of adapter tensors begin after the module's path, by method; the
// first that fits counts.
var methodMarks = []struct{ mark, method string }{
	{"lora_E", "ADALORA"}, {"lora_", "LORA"}, {"hada_", "LOHA"}, {"lokr_", "LOKR"}, {"ia3_", "IA3"}, {"vera_lambda_", "VERA"},
	{"oft_", "OFT"}, {"boft_", "BOFT"}, {"hra_", "HRA"}, {"randlora_", "RANDLORA"}, {"fourierft_", "FOURIERFT"}, {"c3a_", "C3A"},
	{"miss_", "MISS"}, {"bone_", "BONE"}, {"hira_", "HIRA"}, {"delora_", "DELORA"}, {"road_", "ROAD"}, {"shira_", "SHIRA"},
}

// adaptedModule splits the module's path off the name of an adapter's tensor.
func adaptedModule(tensor string) (string, bool) {
	parts := strings.Split(strings.TrimPrefix(tensor, "base_model.model."), ".")
	for i, part := range parts {
		for _, m := range methodMarks {
			if i > 0 && strings.HasPrefix(part, m.mark) {
				return strings.Join(parts[:i], "."), true
			}
		}
	}
	return "", false
}

func guessMethod(tensors []tensorReport) string {
	for _, m := range methodMarks {
		for _, t := range tensors {
			if strings.Contains(t.Name, "."+m.mark) {
				return m.method
			}
		}
	}
	return ""
}

func (a *adapterReport) text(w io.Writer) {
	base := "unknown"
	if a.BaseModel != nil {
		base = *a.BaseModel
	}
	fmt.Fprintf(w, "adapter     %s, r %s, alpha %s\nbase model  %s\n", oneLine(a.PeftType), orDash(a.R), orDash(a.Alpha), oneLine(base))
	fmt.Fprintf(w, "adapted     %d modules\nsaved whole %s\nparameters  %d in %d tensors\n\n", len(a.Modules), oneLine(strings.Join(a.ModulesToSave, ", ")), a.Parameters, len(a.Tensors))
	tensorTable(w, a.Tensors, a.Warnings)
}

func orDash(raw json.RawMessage) string {
	if raw == nil {
		return "-"
	}
	return oneLine(string(raw))
}

func (m *modelReport) text(w io.Writer) {
	fmt.Fprintf(w, "model       %s\nparameters  %d in %d tensors, %s\n", oneLine(strings.Join(m.Architectures, ", ")), m.Parameters, len(m.Tensors), byteSize(m.Bytes))
	for _, name := range slices.Sorted(maps.Keys(m.DTypes)) {
		fmt.Fprintf(w, "%-11s %d parameters\n", name, m.DTypes[name])
	}
	for _, s := range m.Shards {
		fmt.Fprintf(w, "file        %s, %s, %d tensors\n", oneLine(s.Name), byteSize(s.Size), s.Tensors)
	}
	fmt.Fprintln(w)
	tensorTable(w, m.Tensors, m.Warnings)
}

func tensorTable(w io.Writer, tensors []tensorReport, warnings []string) {
	for _, t := range tensors {
		fmt.Fprintf(w, "%-5s %-16s %s\n", t.DType, strings.ReplaceAll(fmt.Sprint(t.Shape), " ", ", "), oneLine(t.Name))
	}
	for _, warning := range warnings {
		fmt.Fprintf(w, "warning: %s\n", oneLine(warning))
	}
}
