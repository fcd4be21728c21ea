package dataset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// feature is the declared type of one column, as far as images and labels need it.
type feature struct {
	column string
	kind   string   // "Image", "ClassLabel", "Value" or another _type of datasets
	names  []string // of a ClassLabel
}

// numberNames are the names of classes that are only counted: "0", "1" and so on.
func numberNames(classes int) []string {
	if classes <= 0 || classes > maxPlainClasses {
		return nil
	}
	names := make([]string, classes)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	return names
}

// features holds the declared columns in file order where the source has one.
type features []feature

func (fs features) find(column string) (feature, bool) {
	for _, f := range fs {
		if f.column == column {
			return f, true
		}
	}
	return feature{}, false
}

// parseArrowMetadata reads the "huggingface" value that datasets writes into parquet files:
// {"info": {"features": {...}}}. A file without features gives none.
func parseArrowMetadata(text string) (features, error) {
	var meta struct {
		Info struct {
			Features json.RawMessage `json:"features"`
		} `json:"info"`
	}
	if err := json.Unmarshal([]byte(text), &meta); err != nil {
		return nil, damaged("parsing the huggingface metadata: %w", err)
	}
	return parseJSONFeatures(meta.Info.Features)
}

// parseJSONFeatures reads features as datasets dumps them to JSON: an object from column name to
// {"_type": "ClassLabel", "names": [...]}, {"_type": "Image"}, {"_type": "Value", …} and nested kinds.
func parseJSONFeatures(raw json.RawMessage) (features, error) {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil, nil
	}
	var columns map[string]json.RawMessage
	if err := json.Unmarshal(raw, &columns); err != nil {
		return nil, damaged("parsing features: %w", err)
	}
	var fs features
	for column, body := range columns {
		var one struct {
			Type    string   `json:"_type"`
			Names   []string `json:"names"`
			Classes int      `json:"num_classes"`
		}
		// Lists and nested objects do not fit the struct; they can be neither image nor label.
		if json.Unmarshal(body, &one) != nil {
			one.Type = "nested"
		}
		if one.Names == nil {
			one.Names = numberNames(one.Classes)
		}
		fs = append(fs, feature{column, one.Type, one.Names})
	}
	sort.Slice(fs, func(i, j int) bool { return fs[i].column < fs[j].column })
	return fs, nil
}

// parseYAMLFeatures reads features as dataset cards hold them: a list of {name, dtype}, where dtype is a plain type name
// or, for labels, {class_label: {names: {'0': cat, '1': dog}}}.
func parseYAMLFeatures(node *yaml.Node) (features, error) {
	if node.IsZero() || node.Tag == "!!null" {
		return nil, nil
	}
	var list []yaml.Node
	if err := node.Load(&list); err != nil {
		return nil, fmt.Errorf("features is not a list: %w", err)
	}
	var fs features
	for _, item := range list {
		var entry struct {
			Name  string    `yaml:"name"`
			Dtype yaml.Node `yaml:"dtype"`
		}
		if err := item.Load(&entry); err != nil {
			return nil, fmt.Errorf("reading a feature: %w", err)
		}
		f := feature{column: entry.Name, kind: "nested"}
		switch entry.Dtype.Kind {
		case yaml.ScalarNode:
			f.kind = "Value"
			if entry.Dtype.Value == "image" {
				f.kind = imageKind
			}
		case yaml.MappingNode:
			if err := f.fromYAML(&entry.Dtype); err != nil {
				return nil, fmt.Errorf("reading feature %q: %w", entry.Name, err)
			}
		}
		fs = append(fs, f)
	}
	return fs, nil
}

func (f *feature) fromYAML(dtype *yaml.Node) error {
	var parsed struct {
		Image      *yaml.Node `yaml:"image"`
		ClassLabel *struct {
			Names   yaml.Node `yaml:"names"`
			Classes int       `yaml:"num_classes"`
		} `yaml:"class_label"`
	}
	if err := dtype.Load(&parsed); err != nil {
		return err
	}
	switch {
	case parsed.ClassLabel != nil:
		f.kind, f.names = classLabelKind, numberNames(parsed.ClassLabel.Classes)
		if f.names != nil {
			return nil
		}
		var err error
		f.names, err = yamlNames(&parsed.ClassLabel.Names)
		return err
	case parsed.Image != nil:
		f.kind = imageKind
	}
	return nil
}

// yamlNames reads class names as a list, or as a map from label number to name. The keys of the map are sorted as
// numbers: '10' comes after '9'. Names are taken as written, so that a class called no stays "no".
func yamlNames(node *yaml.Node) ([]string, error) {
	switch node.Kind {
	case yaml.SequenceNode:
		names := make([]string, len(node.Content))
		for i, n := range node.Content {
			names[i] = n.Value
		}
		return names, nil
	case yaml.MappingNode:
		names := make([]string, len(node.Content)/2)
		seen := make([]bool, len(names))
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i].Value
			id, err := strconv.Atoi(key)
			if err != nil || id < 0 || id >= len(names) || seen[id] {
				return nil, fmt.Errorf("class_label names: the key %q is not one of 0 to %d, each once", key, len(names)-1)
			}
			names[id], seen[id] = node.Content[i+1].Value, true
		}
		return names, nil
	}
	return nil, fmt.Errorf("class_label has no names")
}
