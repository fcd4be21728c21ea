package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// AdapterConfigFile is the name under which PEFT keeps an adapter's settings.
const AdapterConfigFile = "adapter_config.json"

// An AdapterConfig is an adapter_config.json: the fields that adapters of all
// kinds share, and those of its method behind [AdapterConfig.Method]. Pointers
// and slices are nil where the file says null or nothing.
type AdapterConfig struct {
	PeftType    string          // such as "LORA"
	TaskType    *string         // null for image classification
	AutoMapping json.RawMessage // the class that was adapted, see PEFT

	BaseModel     *string // base_model_name_or_path: a repository or a local path
	Revision      *string // of the base model
	InferenceMode bool    // true in every file that PEFT saves with weights
	PeftVersion   string  // of the writer, since 0.18

	TargetModules     Targets
	ExcludeModules    Targets
	ModulesToSave     []string
	LayersToTransform *IntList
	LayersPattern     *StringList
	RankPattern       Pattern // positive integers; AdaLoRA's masks are left to Method
	AlphaPattern      Pattern

	raw map[string]json.RawMessage // the file; nil if the config was not read
}

// sharedFields connects keys to the fields that hold them.
var sharedFields = map[string]func(c *AdapterConfig) any{
	"peft_type":               func(c *AdapterConfig) any { return &c.PeftType },
	"task_type":               func(c *AdapterConfig) any { return &c.TaskType },
	"auto_mapping":            func(c *AdapterConfig) any { return &c.AutoMapping },
	"base_model_name_or_path": func(c *AdapterConfig) any { return &c.BaseModel },
	"revision":                func(c *AdapterConfig) any { return &c.Revision },
	"inference_mode":          func(c *AdapterConfig) any { return &c.InferenceMode },
	"peft_version":            func(c *AdapterConfig) any { return &c.PeftVersion },
	"target_modules":          func(c *AdapterConfig) any { return &c.TargetModules },
	"exclude_modules":         func(c *AdapterConfig) any { return &c.ExcludeModules },
	"modules_to_save":         func(c *AdapterConfig) any { return (*names)(&c.ModulesToSave) },
	"layers_to_transform":     func(c *AdapterConfig) any { return &c.LayersToTransform },
	"layers_pattern":          func(c *AdapterConfig) any { return &c.LayersPattern },
	"rank_pattern":            func(c *AdapterConfig) any { return (*ranks)(&c.RankPattern) },
	"alpha_pattern":           func(c *AdapterConfig) any { return &c.AlphaPattern },
}

// notShared lists, by peft_type, the shared keys that PEFT's class for the type
// does not have or gives another meaning. They are left to the method.
var notShared = map[string][]string{
	"ADALORA":   {"rank_pattern", "alpha_pattern"},
	"IA3":       {"layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"},
	"LN_TUNING": {"layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"},
	"BEFT":      {"exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"},
	"HIRA":      {"alpha_pattern"},
	"DELORA":    {"alpha_pattern"},
	"OFT":       {"rank_pattern", "alpha_pattern"},
	"BOFT":      {"rank_pattern", "alpha_pattern"},
	"HRA":       {"rank_pattern", "alpha_pattern"},
	"MISS":      {"rank_pattern", "alpha_pattern"},
	"FOURIERFT": {"rank_pattern", "alpha_pattern"},
	"VERA":      {"exclude_modules", "rank_pattern", "alpha_pattern"},
	"C3A":       {"exclude_modules", "rank_pattern", "alpha_pattern"},
	"RANDLORA":  {"exclude_modules", "rank_pattern", "alpha_pattern"},
	"ROAD":      {"exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"},
}

// SharedKeys lists the keys of an adapter_config.json that this package reads
// whatever the method, as far as PEFT's class for the type has them.
func SharedKeys(peftType string) []string {
	keys := slices.Sorted(maps.Keys(sharedFields))
	return slices.DeleteFunc(keys, func(key string) bool { return slices.Contains(notShared[peftType], key) })
}

// taskTypes are the values PEFT accepts besides null.
var taskTypes = []string{"SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"}

// ReadAdapterConfig reads [AdapterConfigFile] in dir. A malformed file is
// [ErrConfig] and names the field, a missing one is [os.ErrNotExist].
func ReadAdapterConfig(dir string) (*AdapterConfig, error) {
	path := filepath.Join(dir, AdapterConfigFile)
	text, err := readCapped(path, maxConfigBytes)
	if err != nil {
		return nil, notInFile(dir, err)
	}
	c, err := ParseAdapterConfig(text)
	return c, at("reading", path, err)
}

// ParseAdapterConfig reads the text of an adapter_config.json. Only peft_type
// is required; what is missing has PEFT's default. Unknown fields are kept.
func ParseAdapterConfig(text []byte) (*AdapterConfig, error) {
	raw, err := parseConfig(text)
	if err != nil {
		return nil, err
	}
	// PEFT does not write this one and ignores it where an old file has it.
	delete(raw, "runtime_config")
	c := &AdapterConfig{raw: raw}
	if err := decodeField("peft_type", orNull(raw["peft_type"]), &c.PeftType); err != nil {
		return nil, err
	}
	if c.PeftType == "" {
		return nil, fieldError("peft_type", errors.New("missing"))
	}
	for _, key := range slices.Sorted(maps.Keys(sharedFields)) {
		if err := c.decodeShared(key); err != nil {
			return nil, err
		}
	}
	if c.TaskType != nil && !slices.Contains(taskTypes, *c.TaskType) {
		return nil, fieldError("task_type", fmt.Errorf("%q is not null or one of %s", *c.TaskType, strings.Join(taskTypes, ", ")))
	}
	return c, nil
}

func orNull(raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return json.RawMessage("null")
	}
	return raw
}

// decodeShared fills the field of one shared key from the text in c.raw.
func (c *AdapterConfig) decodeShared(key string) error {
	text, ok := c.raw[key]
	if !ok || slices.Contains(notShared[c.PeftType], key) {
		return nil
	}
	field := sharedFields[key](c)
	if raw, ok := field.(*json.RawMessage); ok && string(text) == "null" {
		*raw = nil
		return nil
	}
	return decodeField(key, text, field)
}

// Method decodes the method's own fields into v, a pointer to a struct with
// json tags that holds the defaults. A field the file does not have, or has as
// null where the struct cannot hold null, is left as it is; one of the wrong
// JSON type is [ErrConfig].
func (c *AdapterConfig) Method(v any) error {
	return eachField(v, func(key string, field reflect.Value) error {
		text, ok := c.raw[key]
		if !ok {
			return nil
		}
		return decodeField(key, text, field.Addr().Interface())
	})
}

// SetMethod is the reverse of [AdapterConfig.Method]. Where the file already
// says the same in other words (16 for 16.0) its words are kept.
func (c *AdapterConfig) SetMethod(v any) error {
	raw := map[string]json.RawMessage{}
	err := eachField(v, func(key string, field reflect.Value) error {
		if old, ok := c.raw[key]; ok {
			same := reflect.New(field.Type())
			if json.Unmarshal(old, same.Interface()) == nil && reflect.DeepEqual(same.Elem().Interface(), field.Interface()) {
				return nil
			}
		}
		text, err := encodeField(field)
		if err != nil {
			return fieldError(key, err)
		}
		raw[key] = text
		return nil
	})
	if err != nil {
		return err
	}
	if c.raw == nil {
		c.raw = c.defaults()
	}
	maps.Copy(c.raw, raw)
	return nil
}

func encodeField(field reflect.Value) (json.RawMessage, error) {
	if _, custom := field.Interface().(json.Marshaler); !custom && field.CanFloat() {
		if f := field.Float(); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return json.RawMessage(pythonFloat(f)), nil
		}
	}
	return json.Marshal(field.Interface())
}

// Unknown lists the fields of the file that are neither shared nor in v, a
// struct as for [AdapterConfig.Method]. PEFT warns about them and goes on.
func (c *AdapterConfig) Unknown(v any) ([]string, error) {
	known := map[string]bool{}
	err := eachField(v, func(key string, _ reflect.Value) error { known[key] = true; return nil })
	var unknown []string
	for _, key := range slices.Sorted(maps.Keys(c.raw)) {
		if sharedFields[key] == nil && !known[key] {
			unknown = append(unknown, key)
		}
	}
	return unknown, err
}

// eachField visits the fields with a json tag, those of embedded structs too.
func eachField(v any, visit func(key string, field reflect.Value) error) error {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() || p.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("reading method fields: need a pointer to a struct, have %T", v)
	}
	for _, f := range reflect.VisibleFields(p.Elem().Type()) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "" || key == "-" || !f.IsExported() {
			continue
		}
		field, err := p.Elem().FieldByIndexErr(f.Index)
		if err != nil {
			return fmt.Errorf("reading method fields: %w", err)
		}
		if err := visit(key, field); err != nil {
			return err
		}
	}
	return nil
}

// defaults returns the shared keys that PEFT writes for a new adapter of this
// type, all of them, as null: MarshalJSON replaces those with a value.
func (c *AdapterConfig) defaults() map[string]json.RawMessage {
	raw := map[string]json.RawMessage{}
	for key := range sharedFields {
		if !slices.Contains(notShared[c.PeftType], key) {
			raw[key] = json.RawMessage("null")
		}
	}
	for _, key := range []string{"rank_pattern", "alpha_pattern"} {
		if _, ok := raw[key]; ok {
			raw[key] = json.RawMessage("{}")
		}
	}
	if c.PeftVersion == "" {
		delete(raw, "peft_version") // optional, and nothing to say
	}
	raw["inference_mode"] = json.RawMessage("false")
	return raw
}

// MarshalJSON returns the text that PEFT would write: all keys sorted, two
// spaces of indentation, no newline at the end. Call it directly, or use
// [AdapterConfig.Write]: json.Marshal compacts what it returns. A config that
// was read keeps its keys and, where nothing changed, the words of its values.
func (c *AdapterConfig) MarshalJSON() ([]byte, error) {
	raw := maps.Clone(c.raw)
	if raw == nil {
		raw = c.defaults()
	}
	was := &AdapterConfig{PeftType: c.PeftType, raw: raw}
	for key, field := range sharedFields {
		if slices.Contains(notShared[c.PeftType], key) {
			continue
		}
		if err := was.decodeShared(key); err != nil {
			return nil, err
		}
		now := field(c)
		if key == "peft_type" || !reflect.DeepEqual(now, field(was)) {
			text, err := json.Marshal(now)
			if err != nil {
				return nil, fieldError(key, err)
			}
			raw[key] = text
		}
	}
	text, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	return pythonJSON(text)
}

// Write writes [AdapterConfigFile] into dir, atomically.
func (c *AdapterConfig) Write(dir string) error {
	path := filepath.Join(dir, AdapterConfigFile)
	text, err := c.MarshalJSON()
	if err != nil {
		return at("writing", path, err)
	}
	return WriteFileAtomic(path, text)
}
