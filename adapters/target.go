package adapters

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hubtool/hubtool/format"
)

// ErrMismatch is wrapped by errors about an adapter and a base that do not fit each other.
var ErrMismatch = errors.New("adapter and base do not fit")

// selector decides which modules a config names, by the rules of PEFT's inject_adapter: exclusions,
// then saved modules, then targets, then layers.
type selector struct {
	cfg        *format.AdapterConfig
	exclude    *regexp.Regexp
	target     *regexp.Regexp
	saved      []*regexp.Regexp
	layerIndex []*regexp.Regexp
}

func newSelector(cfg *format.AdapterConfig) (*selector, error) {
	s := &selector{cfg: cfg}
	var err error
	if p := cfg.ExcludeModules.Pattern; p != "" {
		if s.exclude, err = pythonRegexp("exclude_modules", "^(?:"+p+`)\z`); err != nil {
			return nil, err
		}
	}
	if p := cfg.TargetModules.Pattern; p != "" && !s.allLinear() {
		if s.target, err = pythonRegexp("target_modules", "^(?:"+p+`)\z`); err != nil {
			return nil, err
		}
		if cfg.LayersToTransform != nil {
			return nil, fmt.Errorf("%w: layers_to_transform needs target_modules to be a list, not a pattern", format.ErrConfig)
		}
	}
	if cfg.TargetModules.IsZero() {
		return nil, fmt.Errorf("%w: target_modules is missing", format.ErrConfig)
	}
	for _, m := range cfg.ModulesToSave {
		re, err := pythonRegexp("modules_to_save", `^(?:^|.*\.)(?:`+m+`)(?:$|\..*)`)
		if err != nil {
			return nil, err
		}
		s.saved = append(s.saved, re)
	}
	patterns := []string{`[^.]*`}
	if cfg.LayersPattern != nil {
		patterns = *cfg.LayersPattern
	}
	for _, p := range patterns {
		re, err := pythonRegexp("layers_pattern", `^.*?\.`+p+`\.(\d+)\.`)
		if err != nil {
			return nil, err
		}
		s.layerIndex = append(s.layerIndex, re)
	}
	return s, nil
}

// pythonRegexp compiles a pattern that was written for Python's re.
func pythonRegexp(field, pattern string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(strings.ReplaceAll(pattern, `\Z`, `\z`))
	if err != nil {
		return nil, fmt.Errorf("%w: %s has the pattern %q, which is not one for Go (lookaround and backreferences are not known here): %w",
			format.ErrConfig, field, pattern, err)
	}
	return re, nil
}

func (s *selector) allLinear() bool {
	return strings.EqualFold(s.cfg.TargetModules.Pattern, "all-linear")
}

// selects tells whether the module is a target under one of the spellings of its name, and excluded
// under none.
func (s *selector) selects(m Module, spellings []string) bool {
	if slices.ContainsFunc(spellings, s.excluded) {
		return false
	}
	return slices.ContainsFunc(spellings, func(name string) bool {
		switch {
		case s.allLinear():
			return m.Kind == Linear || m.Kind == Transposed
		case s.target != nil:
			return s.target.MatchString(name)
		default:
			return s.listed(name)
		}
	})
}

func (s *selector) excluded(name string) bool {
	if s.exclude != nil && s.exclude.MatchString(name) || slices.ContainsFunc(s.cfg.ExcludeModules.Names, suffixOf(name)) {
		return true
	}
	return slices.ContainsFunc(s.saved, func(re *regexp.Regexp) bool { return re.MatchString(name) })
}

func (s *selector) listed(name string) bool {
	names := s.cfg.TargetModules.Names
	if slices.Contains(names, name) {
		return true // an exact name is not asked for its layer
	}
	if !slices.ContainsFunc(names, suffixOf(name)) {
		return false
	}
	if s.cfg.LayersToTransform == nil || len(*s.cfg.LayersToTransform) == 0 {
		return true
	}
	for _, re := range s.layerIndex {
		if match := re.FindStringSubmatch(name); match != nil {
			i, err := strconv.Atoi(match[1])
			return err == nil && slices.Contains(*s.cfg.LayersToTransform, i)
		}
	}
	return false
}

func suffixOf(name string) func(string) bool {
	return func(suffix string) bool { return name == suffix || strings.HasSuffix(name, "."+suffix) }
}

// lookup finds the value of rank_pattern or alpha_pattern for a module. The first key that matches
// wins, in the order of the file.
func lookup(field string, pattern format.Pattern, spellings []string) (value float64, ok bool, err error) {
	for _, entry := range pattern {
		re, err := pythonRegexp(field, `^(?:.*\.)?(?:`+entry.Key+`)$`)
		if err != nil {
			return 0, false, err
		}
		if slices.Contains(spellings, entry.Key) || slices.ContainsFunc(spellings, re.MatchString) {
			return entry.Value, true, nil
		}
	}
	return 0, false, nil
}

// NoTargets is PEFT's DUMMY_TARGET_MODULES: the adapter is on no module, and modules_to_save is all that
// it trains.
const NoTargets = "dummy-target-modules"

// selectTargets lists the targets of a config among the modules of a base, in network order. names
// gives the spellings of a module's name that count.
func selectTargets(cfg *format.AdapterConfig, m Method, modules []Module, names func(string) []string) ([]Target, error) {
	s, err := newSelector(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.TargetModules.Pattern == NoTargets {
		return nil, nil
	}
	var targets []Target
	for _, module := range modules {
		spellings := names(module.Name)
		if !s.selects(module, spellings) {
			continue
		}
		t := Target{Module: module, Names: spellings}
		t.Rank, t.Alpha = m.Scale()
		if rank, ok, err := lookup("rank_pattern", cfg.RankPattern, spellings); err != nil {
			return nil, err
		} else if ok {
			t.Rank = int(rank)
		}
		if alpha, ok, err := lookup("alpha_pattern", cfg.AlphaPattern, spellings); err != nil {
			return nil, err
		} else if ok {
			t.Alpha = alpha
		}
		if t.Rank < 1 {
			return nil, fmt.Errorf("%w: rank_pattern gives %q the rank %d, but it must be positive", format.ErrConfig, module.Name, t.Rank)
		}
		if err := m.Check(t); err != nil {
			return nil, fmt.Errorf("adapting %q: %w", module.Name, err)
		}
		targets = append(targets, t)
	}
	if len(targets) == 0 {
		return nil, fmt.Errorf("%w: target_modules %s names none of the base's modules, such as %s",
			ErrMismatch, describeTargets(cfg.TargetModules), someNames(modules))
	}
	return targets, nil
}

func describeTargets(t format.Targets) string {
	if t.Pattern != "" {
		return strconv.Quote(t.Pattern)
	}
	return fmt.Sprintf("%q", t.Names)
}

func someNames(modules []Module) string {
	var names []string
	for _, m := range modules {
		leaf := m.Name[strings.LastIndexByte(m.Name, '.')+1:]
		if !slices.Contains(names, leaf) {
			names = append(names, leaf)
		}
	}
	if len(names) > 8 {
		names = append(names[:8], "…")
	}
	return strings.Join(names, ", ")
}

// savedParameters lists the parameters of the base that modules_to_save names. PEFT asks whether a
// module's name ends in an entry, with no regard to dots.
func savedParameters(cfg *format.AdapterConfig, b Base) []string {
	var names []string
	for _, p := range b.Parameters {
		for _, spelled := range b.spellings(p.Name) {
			if slices.ContainsFunc(cfg.ModulesToSave, func(entry string) bool { return inModule(spelled, entry) }) {
				names = append(names, p.Name)
				break
			}
		}
	}
	return names
}

// inModule tells whether some module on the way to a parameter has a name that ends in entry.
func inModule(parameter, entry string) bool {
	for i, c := range parameter {
		if c == '.' && strings.HasSuffix(parameter[:i], entry) {
			return true
		}
	}
	return false
}

// trainedBiases lists the biases of the base that a bias setting trains.
func trainedBiases(setting string, b Base, targets []Target) []string {
	var names []string
	switch setting {
	case "all":
		for _, p := range b.Parameters {
			if strings.HasSuffix(p.Name, ".bias") {
				names = append(names, p.Name)
			}
		}
	case "lora_only":
		for _, t := range targets {
			if t.Bias {
				names = append(names, t.Name+".bias")
			}
		}
	}
	return names
}
