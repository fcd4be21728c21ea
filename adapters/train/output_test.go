package train_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/model/engine"
)

// A run leaves everything that its readers look for; a card that somebody wrote stays.
func TestOutput(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	j := random(t, e, t.TempDir())
	j.Labels[0] = "a <b> & c" // goes into HTML
	broken := j.Train.Source.(rows)
	broken[17].Image, broken[17].Path, j.Train.SkipBroken = nil, "broken.jpg", true
	result := run(t, j)
	out := train.Output{Job: j, Result: result, BaseDir: filepath.Join(golden, "bases", "vit"), BaseModel: "acme/vit", Dataset: "acme/images",
		EvalSplit: "test", Software: []string{"hubtool test"}}
	dir := filepath.Join(t.TempDir(), "my-adapter")
	write := func() {
		t.Helper()
		if err := out.Write(context.Background(), dir); err != nil {
			t.Fatal(err)
		}
	}
	write()
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, name := range []string{"adapter_config.json", "adapter_model.safetensors", "preprocessor_config.json", "id2label.json", "trainer_state.json"} {
		read(name)
	}
	var results map[string]float64
	if err := json.Unmarshal([]byte(read("all_results.json")), &results); err != nil {
		t.Fatal(err)
	}
	if results["eval_accuracy"] != result.Evaluation.Accuracy || results["train_runtime"] <= 0 || results["broken_images"] != 1 {
		t.Errorf("all_results.json has %v", results)
	}

	report := read("report.html")
	for _, want := range []string{"<polyline", "a &lt;b&gt; &amp; c", "acme/vit", "broken.jpg", "</html>"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report has no %q", want)
		}
	}
	for _, never := range []string{"http://", "https://", "<script", "a <b>"} {
		if strings.Contains(report, never) {
			t.Errorf("the report has %q", never)
		}
	}

	parts := strings.SplitN(read("README.md"), "---\n", 3)
	var front struct {
		BaseModel string `yaml:"base_model"`
		Library   string `yaml:"library_name"`
		Index     []struct {
			Name    string
			Results []struct{ Metrics []struct{ Value float64 } }
		} `yaml:"model-index"`
	}
	if err := yaml.Load([]byte(parts[1]), &front); err != nil {
		t.Fatal(err)
	}
	if front.BaseModel != "acme/vit" || front.Library != "peft" || front.Index[0].Name != "my-adapter" ||
		front.Index[0].Results[0].Metrics[0].Value != result.Evaluation.Accuracy {
		t.Errorf("the card's front matter is %+v", front)
	}

	old := read("README.md")
	out.Dataset = "acme/others"
	write()
	if read("README.md") == old {
		t.Error("the next run did not write its card")
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	write()
	if read("README.md") != "mine" {
		t.Error("a card that somebody wrote is gone")
	}
}

// The card and the report say which ranks AdaLoRA has left: as many as its budget allows.
func TestOutputNamesRanks(t *testing.T) {
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	j := randomOf(t, e, "adalora/whole", t.TempDir())
	j.Eval, j.Config.EvalStrategy, j.Config.LoadBestModelAtEnd = nil, "no", false
	out := train.Output{Job: j, Result: run(t, j), BaseDir: filepath.Join(golden, "bases", "vit"), BaseModel: "acme/vit", Dataset: "acme/images"}
	dir := t.TempDir()
	if err := out.Write(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, r := range out.Ranks() {
		left += r.Left
		for name, row := range map[string]string{"README.md": fmt.Sprintf("| %s | %d | 6 |", r.Module, r.Left),
			"report.html": fmt.Sprintf("<td>%s</td><td>%d</td><td>6</td>", r.Module, r.Left)} {
			if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.Contains(string(text), row) {
				t.Errorf("%s has no %q (%v)", name, row, err)
			}
		}
	}
	if left != 3*len(out.Ranks()) {
		t.Errorf("%d ranks are left of %d modules, want target_r = 3 of each on average", left, len(out.Ranks()))
	}
}
