package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// ErrOtherRun is a checkpoint of a run with other settings than those of the one that is to go on from it.
var ErrOtherRun = errors.New("it is of a run with other settings")

// Setting is something that decides which bytes a run ends with. Checkpoints hold all of a run's, and a
// run goes on only from one that has the same.
type Setting struct {
	Key   string `json:"key"` // in the config file, or in words where it is in none
	Value string `json:"value"`
	Name  string `json:"name,omitempty"` // of a value that says little to people
}

func (s Setting) String() string { return strings.Join(strings.Fields(s.Name+" "+s.Value), " ") }

// free are the keys of [Config] at which a resumed run may have other values: they decide what is
// written, or how fast it comes. When a run ends is looked at by [run.otherEnd].
var free = map[string]bool{
	"output_dir": true, "save_strategy": true, "save_steps": true, "save_total_limit": true, "load_best_model_at_end": true,
	"logging_steps": true, "dataloader_num_workers": true, "num_train_epochs": true, "max_steps": true,
}

// recipe lists the settings of a run that has not begun: those of its [Job], and the program's own.
func (r *run) recipe() ([]Setting, error) {
	var list []Setting
	add := func(key string, value any) {
		text := fmt.Sprint(value)
		list = append(list, Setting{Key: key, Value: text})
	}
	config := reflect.ValueOf(r.Config)
	for i := range config.NumField() {
		if key := config.Type().Field(i).Tag.Get("yaml"); !free[key] {
			add("training."+key, config.Field(i))
		}
	}
	add("training.orthogonality_penalty", r.Penalty)
	add("precision", r.Weights.Precision())

	text, err := r.Adapter.Config.MarshalJSON()
	if err != nil {
		return nil, err
	}
	keys := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &keys); err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if !about[key] {
			add("adapter."+key, strings.Join(strings.Fields(string(keys[key])), " "))
		}
	}

	add("transforms.train", r.Train.Pipeline)
	add("dataset.buffer_size", r.Train.Window)
	add("dataset.prepared", r.Train.preparedSide())
	add("number of images to train on", r.Train.Source.Len())
	if r.Eval != nil {
		add("transforms.eval", r.Eval.Pipeline)
		add("number of images to evaluate on", r.Eval.Source.Len())
	}
	// Features that are kept round differently from those of one graph.
	add("dataset.feature_cache", fmt.Sprintf("keeps those of training %v, of evaluation %v", r.keepableInTraining(), r.head != nil))
	add("names of the classes", strings.Join(r.Labels, ", "))
	return append(list, r.Recipe...), nil
}

// about are the keys of adapter_config.json that say something about the file. The base is compared by
// its content.
var about = map[string]bool{"auto_mapping": true, "base_model_name_or_path": true, "inference_mode": true, "peft_version": true, "revision": true, "task_type": true}

// checkSettings refuses the checkpoint of a run that would not have come to where this one would have,
// and names everything that differs.
func (r *run) checkSettings(c *cursor) error {
	was := map[string]Setting{}
	for _, s := range c.Settings {
		was[s.Key] = s
	}
	var changed []string
	differ := func(key string, there, here Setting) {
		if there.Value != here.Value {
			before, after := excerpts(there.String(), here.String())
			changed = append(changed, fmt.Sprintf("%s: %s there, %s here", key, before, after))
		}
	}
	for _, s := range r.settings {
		differ(s.Key, was[s.Key], s)
		delete(was, s.Key)
	}
	for _, key := range slices.Sorted(maps.Keys(was)) {
		differ(key, was[key], Setting{})
	}
	if why := r.otherEnd(c); why != "" {
		changed = append(changed, fmt.Sprintf("training.num_train_epochs and training.max_steps: %d steps there, %d here, and %s", c.Steps, r.steps, why))
	}
	if len(changed) > 0 {
		return fmt.Errorf("%w:\n  %s", ErrOtherRun, strings.Join(changed, "\n  "))
	}
	return nil
}

// otherEnd says why a run of another length would have come to another checkpoint, if it would. Where
// the rate falls to zero at the end, transformers goes on with another rate, and ends with an adapter
// that no single run gives.
func (r *run) otherEnd(c *cursor) string {
	evaluated := len(c.Epochs) > 0 && c.Epochs[len(c.Epochs)-1].Step == c.Steps
	switch {
	case c.Steps == r.steps:
		return ""
	case r.Config.endDecides():
		return "the learning rate depends on it"
	case c.Step > r.steps:
		return fmt.Sprintf("%d are done", c.Step)
	case evaluated && r.Config.EvalStrategy == "epoch" && c.Batch != r.Train.Batches():
		return "its end, where it evaluated, was in the middle of an epoch"
	case evaluated && r.Config.EvalStrategy == "steps" && c.Steps%int(r.Config.EvalSteps) != 0:
		return "its end, where it evaluated, was between two evaluations of this one"
	}
	return ""
}

// excerpts shows two texts, of long ones the stretch around the first difference.
func excerpts(a, b string) (string, string) {
	x, y := []rune(a), []rune(b)
	same := 0
	for same < len(x) && same < len(y) && x[same] == y[same] {
		same++
	}
	excerpt := func(text []rune) string {
		const before, most = 20, 100
		switch {
		case len(text) == 0:
			return "nothing"
		case len(text) <= most:
			return string(text)
		}
		from := max(0, min(same-before, len(text)-most))
		cut := string(text[from:min(len(text), from+most)])
		if from > 0 {
			cut = "…" + cut
		}
		if from+most < len(text) {
			cut += "…"
		}
		return cut
	}
	return excerpt(x), excerpt(y)
}
