package adapters

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/format"
)

// keyPrefix is what PEFT puts before the path of a module inside the wrapped model.
const keyPrefix = "base_model.model."

// Adapter is a method applied to the modules of a base: its settings and its parameters.
type Adapter struct {
	Config *format.AdapterConfig

	// Targets are the adapted modules in network order.
	Targets []Target

	// Full are the parameters of the base that the adapter replaces: those of modules_to_save, and
	// the biases that it trains.
	Full []string

	// Unused are tensors in the adapter's file for which the base has no place, by canonical key.
	Unused []string

	// Notes are remarks for the user about a loaded adapter.
	Notes []string

	base   Base
	method Method
	params []Parameter // of targets in their order, then those in Full; named by key
	first  []int       // of each target, then of Full, in params
	state  []Parameter // of an Allocator in training

	file   *format.Checkpoint       // that values are read from when they are needed; nil: they are in memory
	stored map[string]format.Tensor // there, by the key of the parameter
}

// key is the canonical name of a tensor in an adapter's file.
func key(module, param string) string { return keyPrefix + module + "." + param }

// New makes a fresh adapter for a base: it computes what the base computes. Its random numbers
// depend on the seed and the names of modules only.
func New(cfg *format.AdapterConfig, b Base, seed uint64) (*Adapter, error) {
	a, err := prepare(cfg, b)
	if err != nil {
		return nil, err
	}
	if m, ok := a.method.(Creator); ok {
		if err := m.Creates(); err != nil {
			return nil, err
		}
	}
	if err := cfg.SetMethod(a.method.Settings()); err != nil {
		return nil, err
	}
	for _, t := range a.Targets {
		byName := Values{}
		for _, p := range a.method.Params(t) {
			values := make([]float32, size(p.Shape))
			p.Init(stream(seed, key(t.Name, p.Name)), values)
			a.params = append(a.params, Parameter{key(t.Name, p.Name), p.Shape, values})
			byName[p.Name] = values
		}
		if m, ok := a.method.(Beginner); ok {
			weight := func() ([]float32, error) { return b.Values(t.Name + ".weight") }
			if err := m.Begin(stream(seed, key(t.Name, "")), t, weight, byName); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range a.Full {
		values, err := b.Values(name)
		if err != nil {
			return nil, err
		}
		a.params = append(a.params, Parameter{keyPrefix + name, a.shapeOf(name), values})
	}
	return a, nil
}

// prepare resolves a config on a base, without parameters.
func prepare(cfg *format.AdapterConfig, b Base) (*Adapter, error) {
	m, err := construct(cfg)
	if err != nil {
		return nil, err
	}
	targets, err := selectTargets(cfg, m, b.Modules, b.spellings)
	if err != nil {
		return nil, err
	}
	a := &Adapter{Config: cfg, Targets: targets, base: b, method: m, Full: savedParameters(cfg, b), first: []int{0}}
	for i, t := range targets {
		a.first = append(a.first, a.first[i]+len(m.Params(t)))
	}
	if trainer, ok := m.(BiasTrainer); ok {
		for _, name := range trainedBiases(trainer.TrainedBiases(), b, targets) {
			if !slices.Contains(a.Full, name) {
				a.Full = append(a.Full, name)
			}
		}
	}
	for _, entry := range cfg.ModulesToSave {
		if !slices.ContainsFunc(b.Parameters, func(p Parameter) bool {
			return slices.ContainsFunc(b.spellings(p.Name), func(n string) bool { return inModule(n, entry) })
		}) {
			return nil, fmt.Errorf("%w: modules_to_save names %q, but the base has no such module", ErrMismatch, entry)
		}
	}
	return a, nil
}

func (a *Adapter) shapeOf(parameter string) []int {
	for _, p := range a.base.Parameters {
		if p.Name == parameter {
			return p.Shape
		}
	}
	return nil
}

// Load reads an adapter that PEFT or hubtool wrote, for a base. Tensors may have the names of either
// generation of transformers. The error wraps [ErrMismatch] and lists all differences where the
// adapter does not fit.
func Load(dir string, b Base) (*Adapter, error) { return load(dir, b, false) }

// OpenToMerge is [Load] for adapters that are only merged or verified: the values of their targets stay
// in the file, so that memory does not grow with it. The adapter has to be closed.
func OpenToMerge(dir string, b Base) (*Adapter, error) { return load(dir, b, true) }

// Close closes the file of an adapter that was opened by [OpenToMerge].
func (a *Adapter) Close() error {
	if a.file == nil {
		return nil
	}
	return a.file.Close()
}

func load(dir string, b Base, lazily bool) (a *Adapter, err error) {
	cfg, err := format.ReadAdapterConfig(dir)
	if err != nil {
		return nil, err
	}
	a, err = prepare(cfg, b)
	if err != nil {
		return nil, fmt.Errorf("loading adapter %q: %w", dir, err)
	}
	if m, ok := a.method.(Loader); ok {
		if a.Notes, err = m.Loaded(a.Targets); err != nil {
			return nil, fmt.Errorf("loading adapter %q: %w", dir, err)
		}
	}
	unknown, err := cfg.Unknown(a.method)
	if err != nil {
		return nil, err
	}
	for _, name := range unknown {
		a.Notes = append(a.Notes, fmt.Sprintf("%s has %q, which is not known here and does nothing", format.AdapterConfigFile, name))
	}
	ck, err := format.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil || !lazily {
			ck.Close()
		}
	}()
	stored := a.readKeys(ck)
	if lazily {
		a.file, a.stored = ck, map[string]format.Tensor{}
	}

	var wrong []string
	take := func(name string, shape []int) error {
		var t format.Tensor
		for _, k := range keysOf(name) {
			if t = stored[k]; t != nil {
				delete(stored, k)
				break
			}
		}
		switch {
		case t == nil:
			wrong = append(wrong, "missing "+name)
			return nil
		case !slices.Equal(t.Info().Shape, shape):
			wrong = append(wrong, fmt.Sprintf("shape of %s: %v in the file, %v by its config and the base", name, t.Info().Shape, shape))
			return nil
		}
		if lazily && len(a.params) < a.first[len(a.Targets)] {
			a.stored[name] = t
			a.params = append(a.params, Parameter{name, shape, nil})
			return nil
		}
		values, err := format.Floats(t)
		if err != nil {
			return err
		}
		if err := finiteValues(t, 0, values); err != nil {
			return fmt.Errorf("loading adapter %q: %w", dir, err)
		}
		a.params = append(a.params, Parameter{name, shape, values})
		return nil
	}
	for _, t := range a.Targets {
		for _, p := range a.method.Params(t) {
			if err := take(key(t.Name, p.Name), p.Shape); err != nil {
				return nil, err
			}
		}
	}
	full := a.Full[:0:0]
	for _, name := range a.Full {
		if _, ok := stored[keyPrefix+name]; !ok && strings.HasSuffix(name, ".bias") && !slices.Contains(savedParameters(cfg, b), name) {
			// PEFT 0.7 to 0.20 lost the biases of bias="lora_only".
			a.Notes = append(a.Notes, fmt.Sprintf("the file has no %s, which bias=%q trains: the base's stays", name, a.method.(BiasTrainer).TrainedBiases()))
			continue
		}
		full = append(full, name)
		if err := take(keyPrefix+name, a.shapeOf(name)); err != nil {
			return nil, err
		}
	}
	a.Full = full
	// PEFT saves embeddings whole beside their adapters: they replace the base's.
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		if parameter := strings.TrimPrefix(name, keyPrefix); a.shapeOf(parameter) != nil {
			a.Full = append(a.Full, parameter)
			if err := take(name, a.shapeOf(parameter)); err != nil {
				return nil, err
			}
		}
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("loading adapter %q: %w:\n  %s", dir, ErrMismatch, strings.Join(wrong, "\n  "))
	}
	if err := a.checkStored(); err != nil {
		return nil, fmt.Errorf("loading adapter %q: %w", dir, err)
	}
	if b.added != "" || b.absent != "" {
		a.Notes = append(a.Notes, fmt.Sprintf("names of the base's tensors begin with %q instead of %q", b.absent, b.added))
	}
	a.Unused = slices.Sorted(maps.Keys(stored))
	for _, name := range a.Unused {
		a.Notes = append(a.Notes, fmt.Sprintf("%s is not used: no module of the adapter has it", name))
	}
	return a, nil
}

// savedCopy is what comes before the parameters of a saved module in a state_dict that was not saved
// by PEFT: they end with the adapter's name, or have it before their last part.
const savedCopy = ".modules_to_save.default."

// copied tells of the tensors that bias="all" leaves beside a saved module.
func copied(name string) bool {
	return strings.Contains(name, ".original_module.") || strings.Contains(name, ".modules_to_save.") && !strings.Contains(name, savedCopy)
}

// keysOf are the keys under which a tensor may be found: its own, and those of a state_dict, where a
// parameter can be a module too.
func keysOf(name string) []string {
	dot := strings.LastIndexByte(name, '.')
	return []string{name, name + ".weight", name + ".default", name + ".default.weight", name[:dot] + ".default" + name[dot:], name[:dot] + savedCopy + name[dot+1:]}
}

// readKeys returns an adapter's tensors by canonical key.
func (a *Adapter) readKeys(ck *format.Checkpoint) map[string]format.Tensor {
	stored := map[string]format.Tensor{}
	for t := range ck.Tensors() {
		name := t.Info().Name
		if copied(name) {
			continue
		}
		name = strings.TrimPrefix(name, keyPrefix)
		name = strings.Replace(name, ".base_layer.", ".", 1)
		stored[keyPrefix+format.Canonical(a.base.ModelType, name)] = t
	}
	return stored
}

// Method is what the adapter does to its targets; nil if it only replaces parameters.
func (a *Adapter) Method() Method { return a.method }

// Params are the adapter's tensors, named by their canonical keys. Their values may be changed.
func (a *Adapter) Params() []Parameter { return a.params }

// TargetValues returns the parameters of one target on the host.
func (a *Adapter) TargetValues(t Target) Values {
	values := Values{}
	for _, p := range a.targetParams(t) {
		values[strings.TrimPrefix(p.Name, keyPrefix+t.Name+".")] = p.Values
	}
	return values
}

func (a *Adapter) targetParams(t Target) []Parameter {
	i := slices.IndexFunc(a.Targets, func(own Target) bool { return own.Name == t.Name })
	return a.params[a.first[i]:a.first[i+1]]
}

// readTarget is TargetValues also where values are in the file.
func (a *Adapter) readTarget(t Target) (Values, error) {
	values := a.TargetValues(t)
	for _, p := range a.targetParams(t) {
		if stored, ok := a.stored[p.Name]; ok {
			read, err := format.Floats(stored)
			if err != nil {
				return nil, err
			}
			values[strings.TrimPrefix(p.Name, keyPrefix+t.Name+".")] = read
		}
	}
	return values, nil
}

// FullValues returns the parameters that replace the base's, by the base's name.
func (a *Adapter) FullValues() map[string]Parameter {
	full := map[string]Parameter{}
	for _, p := range a.params {
		if name := strings.TrimPrefix(p.Name, keyPrefix); slices.Contains(a.Full, name) {
			full[name] = Parameter{name, p.Shape, p.Values}
		}
	}
	return full
}

// Count returns the parameters that training changes and all parameters as PEFT counts them: the
// frozen original of a saved module counts beside its copy, a bias that is trained in place does not.
func (a *Adapter) Count() (trainable, all int) {
	for _, p := range a.base.Parameters {
		all += size(p.Shape)
	}
	if m, ok := a.method.(Constant); ok {
		all += m.Constants() * len(a.Targets)
	}
	saved := savedParameters(a.Config, a.base)
	for _, p := range a.params {
		trainable += size(p.Shape)
		if name := strings.TrimPrefix(p.Name, keyPrefix); !slices.Contains(a.Full, name) || slices.Contains(saved, name) {
			all += size(p.Shape)
		}
	}
	return trainable, all
}

// Dir returns the directory of an adapter inside path: path itself, or the only one that [Named] finds
// in it where it holds none itself.
func Dir(path string) string {
	if names := Named(path); len(names) == 1 {
		if _, err := os.Stat(filepath.Join(path, format.AdapterConfigFile)); err != nil {
			return filepath.Join(path, names[0])
		}
	}
	return path
}

// Named lists the subdirectories of path that hold adapters: PEFT saves an adapter that is not called
// "default" into one of its name.
func Named(path string) []string {
	found, _ := filepath.Glob(filepath.Join(path, "*", format.AdapterConfigFile))
	var names []string
	for _, config := range found {
		if name := filepath.Base(filepath.Dir(config)); !strings.HasPrefix(name, "checkpoint-") {
			names = append(names, name)
		}
	}
	return names
}

func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// stream is a generator of its own for each tensor, so that adding a target changes no other.
func stream(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// HeadRows returns the number of labels of the classifier in an adapter, and whether it has one.
func HeadRows(dir, modelType, head string) (rows int, ok bool, err error) {
	ck, err := format.Open(dir)
	if err != nil {
		return 0, false, err
	}
	defer ck.Close()
	for t := range ck.Tensors() {
		name := strings.TrimPrefix(t.Info().Name, keyPrefix)
		if format.Canonical(modelType, name) == head+".weight" && len(t.Info().Shape) == 2 {
			return t.Info().Shape[0], true, nil
		}
	}
	return 0, false, nil
}

// NewHead makes an adapter without a method that trains parameters of the base in full: a linear
// probe, where they are the head's. It cannot be saved.
func NewHead(b Base, parameters ...string) (*Adapter, error) {
	a := &Adapter{Config: &format.AdapterConfig{}, base: b, Full: parameters, first: []int{0}}
	for _, name := range parameters {
		values, err := b.Values(name)
		if err != nil {
			return nil, err
		}
		a.params = append(a.params, Parameter{keyPrefix + name, a.shapeOf(name), values})
	}
	return a, nil
}

// CopyFrom takes over the parameters of another adapter on the same base, which must have been made
// with the same targets, ranks and scales.
func (a *Adapter) CopyFrom(other *Adapter) error {
	var wrong []string
	for i, t := range a.Targets {
		if i < len(other.Targets) && t.Name == other.Targets[i].Name && t.Rank == other.Targets[i].Rank && t.Alpha == other.Targets[i].Alpha {
			continue
		}
		wrong = append(wrong, fmt.Sprintf("%s has rank %d and alpha %v here", t.Name, t.Rank, t.Alpha))
	}
	if len(other.Targets) > len(a.Targets) {
		wrong = append(wrong, fmt.Sprintf("it has %d targets, and %d here", len(other.Targets), len(a.Targets)))
	}
	if a.Config.PeftType != other.Config.PeftType {
		wrong = append(wrong, fmt.Sprintf("it is %s, and %s here", other.Config.PeftType, a.Config.PeftType))
	}
	for i, p := range a.params {
		if len(wrong) == 0 && (i >= len(other.params) || other.params[i].Name != p.Name || !slices.Equal(other.params[i].Shape, p.Shape)) {
			wrong = append(wrong, fmt.Sprintf("it lacks %s of shape %v", p.Name, p.Shape))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%w:\n  %s", ErrMismatch, strings.Join(wrong, "\n  "))
	}
	for i, p := range a.params {
		copy(p.Values, other.params[i].Values)
	}
	return nil
}
