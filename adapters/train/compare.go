package train

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/hubtool/hubtool/format"
)

//go:embed compare.html.tmpl
var compareText string

var compareTemplate = template.Must(template.Must(reportTemplate.Clone()).New("compare").Parse(compareText))

// Finished is what a run has left in its directory.
type Finished struct {
	Name     string             `json:"name"`
	Steps    int                `json:"steps"`
	Results  map[string]float64 `json:"results"`  // all_results.json
	Settings map[string]string  `json:"settings"` // run.yaml, by key, as in training.learning_rate
	log      []LogEntry
}

// Runs reads the directories of finished runs.
func Runs(dirs []string) ([]Finished, error) {
	var runs []Finished
	for _, dir := range dirs {
		r, err := readRun(dir)
		if err != nil {
			return nil, fmt.Errorf("reading the run %q: %w", dir, err)
		}
		runs = append(runs, r)
	}
	for i, name := range shortNames(dirs) {
		runs[i].Name = name
	}
	return runs, nil
}

func readRun(dir string) (r Finished, err error) {
	state := State{}
	settings := map[string]any{}
	for _, file := range []struct {
		name string
		into any
	}{{stateFile, &state}, {"all_results.json", &r.Results}, {"run.yaml", &settings}} {
		text, err := os.ReadFile(filepath.Join(dir, file.name))
		if errors.Is(err, fs.ErrNotExist) {
			return r, fmt.Errorf("it is not finished, or no run: %w", err)
		}
		if err != nil {
			return r, err
		}
		if filepath.Ext(file.name) == ".yaml" {
			err = yaml.Load(text, file.into)
		} else {
			err = json.Unmarshal(text, file.into)
		}
		if err != nil {
			return r, fmt.Errorf("%w: %s: %w", format.ErrConfig, file.name, err)
		}
	}
	r.Steps, r.log = state.GlobalStep, state.LogHistory
	r.Settings = map[string]string{}
	flatten(r.Settings, "", settings)
	return r, nil
}

// flatten writes nested settings as section.key.
func flatten(into map[string]string, prefix string, settings map[string]any) {
	for key, value := range settings {
		if section, ok := value.(map[string]any); ok {
			flatten(into, prefix+key+".", section)
			continue
		}
		text, err := json.Marshal(value)
		if err != nil { // a mapping with odd keys, in transforms
			text = fmt.Append(nil, value)
		}
		into[prefix+key] = strings.Trim(string(text), `"`)
	}
}

// shortNames are the last elements of paths, and more of them where those are the same.
func shortNames(dirs []string) []string {
	names := make([]string, len(dirs))
	for n := 1; n < 32; n++ {
		seen := map[string]bool{}
		for i, dir := range dirs {
			parts := strings.Split(filepath.ToSlash(filepath.Clean(dir)), "/")
			names[i] = strings.Join(parts[max(0, len(parts)-n):], "/")
			seen[names[i]] = true
		}
		if len(seen) == len(dirs) {
			break
		}
	}
	return names
}

// Differing lists the settings that are not the same in all runs, in order. Where a run is written to
// is its name, and no difference.
func Differing(runs []Finished) []string {
	keys := map[string]bool{}
	for _, r := range runs {
		for key := range r.Settings {
			keys[key] = true
		}
	}
	var list []string
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		for _, r := range runs[1:] {
			if key != "training.output_dir" && r.Settings[key] != runs[0].Settings[key] {
				list = append(list, key)
				break
			}
		}
	}
	return list
}

// Compare is a page about several runs, like report.html.
func Compare(runs []Finished) ([]byte, error) {
	type row struct {
		Finished
		Settings []string
		Best     bool
	}
	differing := Differing(runs)
	var rows []row
	best := -1
	var trained, losses, accuracies []curve
	for i, r := range runs {
		rows = append(rows, row{Finished: r})
		for _, key := range differing {
			rows[i].Settings = append(rows[i].Settings, r.Settings[key])
		}
		if a, ok := r.Results["eval_accuracy"]; ok && (best < 0 || a > runs[best].Results["eval_accuracy"]) {
			best = i
		}
		if i < maxCurves {
			l, e, a := logged(r.log)
			l.Name, e.Name, a.Name = r.Name, r.Name, r.Name
			trained, losses, accuracies = append(trained, l), append(losses, e), append(accuracies, a)
		}
	}
	if best >= 0 {
		rows[best].Best = true
	}
	var charts []*chart
	for _, c := range []*chart{
		newChart("Evaluation accuracy", "epoch", accuracies...), newChart("Evaluation loss", "epoch", losses...), newChart("Training loss", "epoch", trained...),
	} {
		if c != nil {
			charts = append(charts, c)
		}
	}
	var b bytes.Buffer
	err := compareTemplate.Execute(&b, map[string]any{"Rows": rows, "Differing": differing, "Charts": charts, "Undrawn": max(0, len(runs)-maxCurves)})
	return b.Bytes(), err
}

// maxCurves is the number of colours.
const maxCurves = 8
