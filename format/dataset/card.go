package dataset

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"go.yaml.in/yaml/v4"
)

// card is what a repository says about itself: the front matter of README.md, amended by .huggingface.yaml, and the
// dataset_infos.json of older repositories.
type card struct {
	configs []config
	infos   map[string]info
}

// info is what the card declares about the contents of a configuration.
type info struct {
	features features       // nil where none are declared
	rows     map[string]int // by split; nil where not declared
}

// config is one entry of the card's "configs" list.
type config struct {
	name       string
	isDefault  bool
	dataDir    string
	patterns   []splitPatterns // nil: find the files by their names
	dropLabels *bool           // image folders: nil decides by the folders
	noMetadata bool            // image folders: ignore metadata files
	features   features        // nil where none are declared
}

// splitPatterns are the file patterns of one split.
type splitPatterns struct {
	split    string
	patterns []string
}

const (
	cardFile   = "README.md"
	yamlFile   = ".huggingface.yaml"
	legacyFile = "dataset_infos.json"
)

var frontMatter = regexp.MustCompile(`\A(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(\r\n|\n|$))`)

func readCard(dir string) (*card, error) {
	var raw struct {
		Configs yaml.Node `yaml:"configs"`
		Info    yaml.Node `yaml:"dataset_info"`
	}
	for _, name := range []string{cardFile, yamlFile} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if name == cardFile {
			m := frontMatter.FindSubmatch(text)
			if m == nil {
				continue
			}
			text = m[2]
		}
		if err := yaml.Load(text, &raw); err != nil {
			return nil, fileError(path, damaged("its metadata is not valid YAML: %w", err))
		}
	}
	c := &card{infos: map[string]info{}}
	if err := c.readLegacyInfos(filepath.Join(dir, legacyFile)); err != nil {
		return nil, err
	}
	if err := c.readInfos(&raw.Info); err != nil {
		return nil, fmt.Errorf("reading dataset_info in %q: %w", filepath.Join(dir, cardFile), err)
	}
	if err := c.readConfigs(&raw.Configs); err != nil {
		return nil, fmt.Errorf("reading configs in %q: %w", filepath.Join(dir, cardFile), err)
	}
	return c, nil
}

// readInfos reads dataset_info, which is one map or a list of them, one per configuration.
func (c *card) readInfos(node *yaml.Node) error {
	entries := []*yaml.Node{node}
	switch node.Kind {
	case yaml.SequenceNode:
		entries = node.Content
	case yaml.MappingNode:
	default:
		return nil
	}
	for _, entry := range entries {
		raw := struct {
			Config   string    `yaml:"config_name"`
			Features yaml.Node `yaml:"features"`
			Splits   []struct {
				Name string `yaml:"name"`
				Rows int    `yaml:"num_examples"`
			} `yaml:"splits"`
		}{Config: "default"}
		if err := entry.Load(&raw); err != nil {
			return err
		}
		fs, err := parseYAMLFeatures(&raw.Features)
		if err != nil {
			return err
		}
		in := info{features: fs}
		for _, s := range raw.Splits {
			in.declareRows(s.Name, s.Rows)
		}
		c.infos[raw.Config] = in
	}
	return nil
}

func (in *info) declareRows(split string, rows int) {
	if in.rows == nil {
		in.rows = map[string]int{}
	}
	in.rows[split] = rows
}

// readLegacyInfos reads dataset_infos.json. A single configuration there is the default one, whatever its name: old
// versions of push_to_hub called it "owner--name".
func (c *card) readLegacyInfos(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var infos map[string]struct {
		Features json.RawMessage `json:"features"`
		Splits   map[string]struct {
			Rows int `json:"num_examples"`
		} `json:"splits"`
	}
	if err := json.Unmarshal(text, &infos); err != nil {
		return fileError(path, damaged("%w", err))
	}
	for name, raw := range infos {
		fs, err := parseJSONFeatures(raw.Features)
		if err != nil {
			return fileError(path, err)
		}
		if len(infos) == 1 {
			name = "default"
		}
		in := info{features: fs}
		for split, s := range raw.Splits {
			in.declareRows(split, s.Rows)
		}
		c.infos[name] = in
	}
	return nil
}

func (c *card) readConfigs(node *yaml.Node) error {
	if node.IsZero() || node.Tag == "!!null" {
		return nil
	}
	if node.Kind != yaml.SequenceNode {
		return fmt.Errorf("not a list")
	}
	for _, item := range node.Content {
		var entry struct {
			Name         string    `yaml:"config_name"`
			Files        yaml.Node `yaml:"data_files"`
			Dir          string    `yaml:"data_dir"`
			Default      bool      `yaml:"default"`
			DropLabels   *bool     `yaml:"drop_labels"`
			DropMetadata bool      `yaml:"drop_metadata"`
			Features     yaml.Node `yaml:"features"`
		}
		if err := item.Load(&entry); err != nil {
			return err
		}
		if entry.Name == "" {
			return fmt.Errorf("an entry has no config_name")
		}
		patterns, err := parseDataFiles(&entry.Files)
		if err != nil {
			return fmt.Errorf("configuration %q: %w", entry.Name, err)
		}
		fs, err := parseYAMLFeatures(&entry.Features)
		if err != nil {
			return fmt.Errorf("configuration %q: %w", entry.Name, err)
		}
		c.configs = append(c.configs, config{
			name: entry.Name, isDefault: entry.Default, dataDir: entry.Dir, patterns: patterns,
			dropLabels: entry.DropLabels, noMetadata: entry.DropMetadata, features: fs,
		})
	}
	return nil
}

// parseDataFiles reads data_files: one pattern, a list of patterns (both mean the split train), or a list of
// {split, path} where path is again one pattern or a list.
func parseDataFiles(node *yaml.Node) ([]splitPatterns, error) {
	if node.IsZero() || node.Tag == "!!null" {
		return nil, nil
	}
	if node.Kind == yaml.ScalarNode {
		return []splitPatterns{{"train", []string{node.Value}}}, nil
	}
	const form = "data_files is neither a pattern, a list of patterns, nor a list of {split, path}"
	if node.Kind != yaml.SequenceNode {
		return nil, errors.New(form)
	}
	var plain []string
	var splits []splitPatterns
	for _, item := range node.Content {
		if item.Kind == yaml.ScalarNode {
			plain = append(plain, item.Value)
			continue
		}
		var entry struct {
			Split string    `yaml:"split"`
			Path  yaml.Node `yaml:"path"`
		}
		if err := item.Load(&entry, yaml.WithKnownFields()); err != nil {
			return nil, fmt.Errorf("%s: %w", form, err)
		}
		if !isSplit.MatchString(entry.Split) {
			return nil, fmt.Errorf("%q is not a split name; use letters, digits, _ and single dots", entry.Split)
		}
		for _, s := range splits {
			if s.split == entry.Split {
				return nil, fmt.Errorf("the split %q occurs twice in data_files", entry.Split)
			}
		}
		var paths []string
		switch entry.Path.Kind {
		case yaml.ScalarNode:
			paths = []string{entry.Path.Value}
		case yaml.SequenceNode:
			if err := entry.Path.Load(&paths); err != nil {
				return nil, fmt.Errorf("%s: %w", form, err)
			}
		default:
			return nil, errors.New(form)
		}
		splits = append(splits, splitPatterns{entry.Split, paths})
	}
	if len(plain) > 0 && len(splits) > 0 {
		return nil, errors.New(form)
	}
	if len(plain) > 0 {
		splits = []splitPatterns{{"train", plain}}
	}
	return splits, nil
}

// all returns the configurations; a repository without any has one called default.
func (c *card) all() []config {
	if len(c.configs) == 0 {
		return []config{{name: "default"}}
	}
	return c.configs
}

func (c *card) configNames() []string {
	var names []string
	for _, cfg := range c.all() {
		names = append(names, cfg.name)
	}
	return names
}

// choose picks the configuration to read: the one asked for, else the only one, the one called default or the one
// marked default.
func (c *card) choose(asked string) (config, error) {
	configs, names := c.all(), c.configNames()
	var defaults []config
	for _, cfg := range configs {
		if cfg.name == asked {
			return cfg, nil
		}
		if len(configs) == 1 || cfg.name == "default" || cfg.isDefault {
			defaults = append(defaults, cfg)
		}
	}
	switch {
	case asked != "":
		return config{}, notFound(ErrConfigName, asked, names)
	case len(defaults) == 1:
		return defaults[0], nil
	case len(defaults) > 1:
		return config{}, fmt.Errorf("%w: %q and %q are both marked as the default", ErrConfigName, defaults[0].name, defaults[1].name)
	}
	return config{}, fmt.Errorf("%w: the data set has several and no default; choose one of %q", ErrConfigName, names)
}

// info returns what the card declares about a chosen configuration. A card with several dataset_info entries and no
// configs does not say which of them is meant, unless it is asked for by name.
func (c *card) info(cfg config, asked string) info {
	var in info
	if len(c.configs) > 0 || asked != "" || len(c.infos) == 1 {
		in = c.infos[cfg.name]
	}
	if in.features == nil {
		in.features = cfg.features
	}
	return in
}
