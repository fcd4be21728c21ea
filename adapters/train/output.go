package train

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

// Output is what a finished run leaves in its directory beside the checkpoints.
type Output struct {
	Job       Job
	Result    *Result
	BaseDir   string // whose preprocessor_config.json is copied
	BaseModel string // as the user named it
	Dataset   string
	EvalSplit string
	Software  []string // lines such as "hubtool 0.1.0"

	Settings   []byte      // the run's whole config, as text
	PeakMemory int64       // bytes; 0: not known
	Hashes     []NamedHash // of files the run depends on; Write adds the adapter's
}

// NamedHash is the SHA-256 of a file.
type NamedHash struct{ Name, SHA256 string }

// Write writes the adapter, the image processor's settings, class names, trainer_state.json,
// all_results.json, report.html and the model card.
func (o *Output) Write(ctx context.Context, dir string) error {
	if err := o.Job.Adapter.Save(ctx, dir, o.Job.Names); err != nil {
		return err
	}
	if text, err := os.ReadFile(filepath.Join(o.BaseDir, format.ImageConfigFile)); err == nil {
		if err := format.WriteFileAtomic(filepath.Join(dir, format.ImageConfigFile), text); err != nil {
			return err
		}
	}
	labels := map[int]string{}
	for i, label := range o.Job.Labels {
		labels[i] = label
	}
	state, err := o.Result.State.Text()
	if err != nil {
		return fmt.Errorf("writing %q: %w", dir, err)
	}
	for _, file := range []struct {
		name  string
		value any
	}{{LabelsFile, labels}, {"all_results.json", o.results()}} {
		text, err := json.MarshalIndent(file.value, "", "    ")
		if err != nil {
			return fmt.Errorf("writing %q: %w", file.name, err)
		}
		if err := format.WriteFileAtomic(filepath.Join(dir, file.name), append(text, '\n')); err != nil {
			return err
		}
	}
	if err := format.WriteFileAtomic(filepath.Join(dir, stateFile), state); err != nil {
		return err
	}
	weights, err := os.ReadFile(filepath.Join(dir, adapters.File))
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	o.Hashes = append(slices.Clip(o.Hashes), NamedHash{adapters.File, fmt.Sprintf("%x", sha256.Sum256(weights))})
	report, err := o.report(filepath.Base(dir))
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := format.WriteFileAtomic(filepath.Join(dir, "report.html"), report); err != nil {
		return err
	}
	path := filepath.Join(dir, "README.md")
	if old, err := os.ReadFile(path); err == nil && !bytes.Contains(old, []byte(CardMark)) {
		return nil // somebody has written it
	}
	card, err := o.card(filepath.Base(dir))
	if err != nil {
		return fmt.Errorf("writing the model card: %w", err)
	}
	return format.WriteFileAtomic(path, card)
}

// CardMark is in the cards that may be written again; a card without it is a person's.
const CardMark = "<!-- written by hubtool train, and again by the next run unless this line is removed -->"

// results are the keys that transformers writes into all_results.json.
func (o *Output) results() map[string]any {
	summary := o.Result.State.LogHistory[len(o.Result.State.LogHistory)-1]
	all := map[string]any{
		"epoch": o.Result.State.Epoch, "total_flos": summary.TotalFlos, "train_loss": summary.TrainLoss, "train_runtime": summary.TrainRuntime,
		"train_samples_per_second": summary.TrainSamplesPerSecond, "train_steps_per_second": summary.TrainStepsPerSecond,
	}
	if o.Job.Train.SkipBroken {
		all["broken_images"] = len(o.Result.Broken)
	}
	if e := o.Result.Evaluation; e != nil {
		all["eval_accuracy"], all["eval_loss"] = e.Accuracy, e.Loss
		for _, entry := range slices.Backward(o.Result.State.LogHistory) {
			if entry.EvalRuntime != nil {
				all["eval_runtime"], all["eval_samples_per_second"] = entry.EvalRuntime, entry.EvalSamplesPerSecond
				all["eval_steps_per_second"] = entry.EvalStepsPerSecond
				break
			}
		}
	}
	return all
}

// card is the model card, with the front matter that the Hub and PEFT read.
func (o *Output) card(name string) ([]byte, error) {
	type metric struct {
		Type  string  `yaml:"type"`
		Value float64 `yaml:"value"`
		Name  string  `yaml:"name"`
	}
	type named struct {
		Name string `yaml:"name"`
		Type string `yaml:"type"`
	}
	type dataset struct {
		Name  string `yaml:"name"`
		Type  string `yaml:"type"`
		Split string `yaml:"split,omitempty"`
	}
	type result struct {
		Task    named    `yaml:"task"`
		Dataset dataset  `yaml:"dataset"`
		Metrics []metric `yaml:"metrics"`
	}
	type model struct {
		Name    string   `yaml:"name"`
		Results []result `yaml:"results"`
	}
	tags := []string{"base_model:adapter:" + o.BaseModel, "image-classification"}
	if o.Job.Adapter.Config.PeftType == "LORA" {
		tags = append(tags, "lora")
	}
	front := struct {
		BaseModel string   `yaml:"base_model"`
		Library   string   `yaml:"library_name"`
		Pipeline  string   `yaml:"pipeline_tag"`
		Tags      []string `yaml:"tags"`
		Index     []model  `yaml:"model-index"`
	}{o.BaseModel, "peft", "image-classification", append(tags, "transformers"), []model{{name, []result{}}}}
	if e := o.Result.Evaluation; e != nil {
		front.Index[0].Results = append(front.Index[0].Results, result{
			named{"Image Classification", "image-classification"},
			dataset{o.Dataset, o.Dataset, o.EvalSplit},
			[]metric{{"accuracy", e.Accuracy, "Accuracy"}, {"loss", e.Loss, "Loss"}},
		})
	}
	head, err := yaml.Dump(front)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "---\n%s---\n\n# %s\n\n", head, name)
	fmt.Fprintf(&b, "A %s adapter for `%s`, trained on `%s`.\n\n", o.Job.Adapter.Config.PeftType, o.BaseModel, o.Dataset)
	if e := o.Result.Evaluation; e != nil {
		fmt.Fprintf(&b, "It classifies %.2f %% of %d images of the evaluation set correctly (loss %.4f).\n\n", 100*e.Accuracy, e.N, e.Loss)
	}
	trainable, all := o.Job.Adapter.Count()
	fmt.Fprintf(&b, "Trained parameters: %d of %d. Classes: %s.\n\n", trainable, all, classes(o.Job.Labels))
	o.hyperparameters(&b)
	o.table(&b)
	o.ranks(&b)
	fmt.Fprintf(&b, "### Framework versions\n\n")
	for _, line := range o.Software {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	fmt.Fprintf(&b, "\n%s\n", CardMark)
	return b.Bytes(), nil
}

func classes(labels []string) string {
	if len(labels) > 20 {
		return fmt.Sprintf("%d, from %s to %s", len(labels), labels[0], labels[len(labels)-1])
	}
	return strings.Join(labels, ", ")
}

func (o *Output) hyperparameters(b *bytes.Buffer) {
	c := o.Job.Config
	fmt.Fprintf(b, "### Training hyperparameters\n\n")
	for _, line := range []struct {
		name  string
		value any
	}{
		{"learning_rate", c.LearningRate}, {"train_batch_size", c.PerDeviceTrainBatchSize}, {"eval_batch_size", c.PerDeviceEvalBatchSize},
		{"seed", c.Seed}, {"gradient_accumulation_steps", c.GradientAccumulationSteps},
		{"total_train_batch_size", c.TrainBatch() * c.GradientAccumulationSteps},
		{"optimizer", fmt.Sprintf("AdamW with betas=(%v,%v), epsilon=%v, weight_decay=%v", c.AdamBeta1, c.AdamBeta2, c.AdamEpsilon, c.WeightDecay)},
		{"lr_scheduler_type", c.LRSchedulerType}, {"warmup_steps", c.WarmupSteps}, {"num_epochs", o.Result.State.Epoch},
	} {
		fmt.Fprintf(b, "- %s: %v\n", line.name, line.value)
	}
	b.WriteString("\n")
}

// Ranks are those that the method has left of each module's, under the names of the files.
func (o *Output) Ranks() []adapters.RanksLeft {
	list := o.Job.Adapter.RanksLeft()
	for i := range list {
		list[i].Module = format.Spell(o.Job.Model.Type(), list[i].Module, o.Job.Names.Each()[0])
	}
	return list
}

func (o *Output) ranks(b *bytes.Buffer) {
	list := o.Ranks()
	if list == nil {
		return
	}
	b.WriteString("### Ranks\n\n| Module | Left | Of |\n|---|---|---|\n")
	for _, r := range list {
		fmt.Fprintf(b, "| %s | %d | %d |\n", r.Module, r.Left, r.Of)
	}
	b.WriteString("\n")
}

func (o *Output) table(b *bytes.Buffer) {
	if len(o.Result.Epochs) == 0 {
		return
	}
	b.WriteString("### Training results\n\n| Training loss | Epoch | Step | Validation loss | Accuracy |\n|---|---|---|---|---|\n")
	for _, e := range o.Result.Epochs {
		fmt.Fprintf(b, "| %.4f | %s | %d | %.4f | %.4f |\n", e.TrainLoss, strconv.FormatFloat(e.Epoch, 'g', 4, 64), e.Step, e.EvalLoss, e.EvalAccuracy)
	}
	b.WriteString("\n")
}
