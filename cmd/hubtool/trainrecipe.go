package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/internal/hashing"
	"github.com/hubtool/hubtool/model/engine"
)

// recipeKeys are the keys, beside those in train.Config, that a resumed run must have at the same
// values. Names of models, data sets and folders are not among them: their content is compared.
var recipeKeys = []string{
	"dataset.name", "dataset.train_split", "dataset.eval_split", "dataset.test_size", "dataset.image_column", "dataset.label_column", "dataset.classes",
	"training.tf32", "training.full_determinism", "training.init_adapter",
}

// recipe is what of a run's settings the trainer cannot know.
func (p *plan) recipe(trainRows, evalRows *dataset.Rows) ([]train.Setting, error) {
	var list []train.Setting
	for _, f := range p.config.fields() {
		if slices.Contains(recipeKeys, f.key) {
			list = append(list, train.Setting{Key: f.key, Value: fmt.Sprint(f.value)})
		}
	}
	weights, err := contentOf(p.classifier.Checkpoint)
	if err != nil {
		return nil, err
	}
	list = append(list, train.Setting{Key: "weights of the model", Value: weights, Name: p.config.Model}, train.Setting{Key: "engine", Value: engineKind(p.engine)})
	for _, rows := range []struct {
		key  string
		rows *dataset.Rows
	}{{"images to train on", trainRows}, {"images to evaluate on", evalRows}} {
		if rows.rows == nil {
			continue
		}
		images, err := rows.rows.Fingerprint()
		if errors.Is(err, dataset.ErrStreaming) { // before the files are here, their commit says what they are
			images, err = filepath.Base(p.dataset.Dir()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("looking at the data set: %w", err)
		}
		list = append(list, train.Setting{Key: rows.key, Value: short(images), Name: p.config.Dataset.Path})
	}
	return list, nil
}

// contentOf is the hash of a checkpoint's files.
func contentOf(ck *format.Checkpoint) (string, error) {
	var all []string
	for _, s := range ck.Shards() {
		f, err := os.Open(s.Path)
		if err != nil {
			return "", fmt.Errorf("looking at the base: %w", err)
		}
		content, err := hashing.Content(f)
		f.Close()
		if err != nil {
			return "", fmt.Errorf("looking at the base: %w", err)
		}
		all = append(all, short(content))
	}
	return strings.Join(all, " "), nil
}

// short is enough of a hash to tell two contents from each other.
func short(hash string) string { return hash[:min(16, len(hash))] }

// engineKind names the engines that compute the same bits, as far as can be told from outside: a
// plugin's place does not matter, but its options do.
func engineKind(eng *engine.Engine) string {
	if eng.IsGo() {
		return "go with " + engine.Arithmetic()
	}
	plugin, options, _ := strings.Cut(strings.TrimPrefix(eng.Spec, "xla:"), ",")
	return strings.TrimSpace("xla " + filepath.Base(plugin) + " " + options)
}
