package adapters

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"gonum.org/v1/gonum/mat"

	"github.com/hubtool/hubtool/format"
)

// A Reduction chooses the ranks of a new adapter. At most one field is set; with none nothing is
// lost.
type Reduction struct {
	Rank   int     // of every module
	Energy float64 // share of each update's sum of squares that has to stay, up to 1
	Size   int64   // bytes of the adapter's file; ranks go where they explain most
}

func (r Reduction) none() bool { return r == Reduction{} }

// Loss says how far a new adapter is from what it was made of.
type Loss struct {
	Modules    int     `json:"modules"`
	Ranks      [2]int  `json:"ranks"` // smallest and largest
	Parameters int     `json:"parameters"`
	Relative   float64 `json:"relative_error"` // size of the difference of all updates, as a share of their size
	Worst      float64 `json:"worst_error"`    // the same of the module where it is largest
	WorstIn    string  `json:"worst_module,omitempty"`
}

// ComposeOptions are the settings of [Compose].
type ComposeOptions struct {
	Weights []float64 // of the adapters; nil is 1 for each
	Linear  bool      // add the factors instead of the updates, as PEFT's combination_type "linear"
	Reduce  Reduction
	Names   format.Names // of modules in the new adapter's config

	// Weight returns a weight of the base as it is stored, for methods whose update depends on it. It
	// may be nil.
	Weight func(module string) ([]float32, error)
}

// Compose makes one LoRA adapter whose updates are the weighted sums of the updates of others. Without
// a reduction it has their factors side by side and is exact: PEFT's combination_type "cat". A single
// adapter of another method is converted.
func Compose(as []*Adapter, opts ComposeOptions) (*Adapter, *Loss, error) {
	if opts.Weights == nil {
		opts.Weights = slices.Repeat([]float64{1}, len(as))
	}
	full, err := composeFull(as)
	if err != nil {
		return nil, nil, err
	}
	var modules []composed
	for _, module := range as[0].base.Modules {
		c := composed{}
		for i, a := range as {
			at := slices.IndexFunc(a.Targets, func(t Target) bool { return t.Name == module.Name })
			if at < 0 {
				continue
			}
			part, err := a.part(a.Targets[at], opts)
			if err != nil {
				return nil, nil, fmt.Errorf("composing %q: %w", module.Name, err)
			}
			part.weight = opts.Weights[i]
			c.target, c.parts = a.Targets[at], append(c.parts, part)
		}
		if len(c.parts) > 0 {
			modules = append(modules, c)
		}
	}
	switch {
	case opts.Linear && !opts.Reduce.none():
		return nil, nil, fmt.Errorf("%w: a linear combination has the rank of its adapters", ErrMethod)
	case opts.Linear:
		err = linear(modules)
	case opts.Reduce.none():
		err = concatenate(modules)
	default:
		err = reduce(modules, opts.Reduce, full)
	}
	if err != nil {
		return nil, nil, err
	}
	a, err := assemble(as, modules, full, opts.Names)
	if err != nil {
		return nil, nil, err
	}
	return a, lossOf(modules, a), nil
}

// composed is one module of a new adapter.
type composed struct {
	target Target
	parts  []part

	b, a         []float32 // the new factors [out, rank] and [rank, in], scale 1
	rank         int
	lost, energy float64
}

// part is one adapter's update of a module.
type part struct {
	weight, scale float64
	values        Values     // LoRA's own factors, nil for other methods
	rank          int        // of these
	b, a          *mat.Dense // factors, scale included
	spectrum      *spectrum  // where there is no way by factors
}

// part prepares what one adapter does to a module.
func (a *Adapter) part(t Target, opts ComposeOptions) (part, error) {
	values := a.TargetValues(t)
	switch m := a.method.(type) {
	case *lora:
		if m.LoraBias {
			return part{}, fmt.Errorf("%w: adapters with lora_bias", ErrMethod)
		}
		b, left := m.Factors(t, values)
		return part{values: values, rank: t.Rank, scale: m.scale(t), b: b, a: left}, nil
	case *dora:
		s, err := a.denseSpectrum(t, values, opts)
		return part{spectrum: s}, err
	case spectral:
		s, err := m.Spectrum(t, values)
		return part{spectrum: &s}, err
	case lowRank:
		b, left := m.Factors(t, values)
		return part{b: b, a: left}, nil
	}
	return part{}, fmt.Errorf("%w: %s is no sum of base and update", ErrMethod, a.describe())
}

// denseSpectrum decomposes the change of a weight by a method that depends on it.
func (a *Adapter) denseSpectrum(t Target, values Values, opts ComposeOptions) (*spectrum, error) {
	if opts.Weight == nil {
		return nil, fmt.Errorf("%w: what %s does depends on the base's weights", ErrMethod, a.describe())
	}
	w, err := opts.Weight(t.Name)
	if err != nil {
		return nil, err
	}
	if own, ok := a.FullValues()[t.Name+".weight"]; ok {
		w = own.Values
	}
	if t.Kind.transposed() {
		w = hostTranspose(w, t.In(), t.Out())
	}
	d := slices.Clone(w)
	a.method.(Merger).Merge(t, values, d, RoundPEFT, func(v float32) float32 { return v })
	for i, v := range w {
		d[i] -= v
	}
	s, err := spectrumFor(d, t.Out(), t.In(), opts.Reduce, 2*t.Rank)
	return &s, err
}

// spectrumFor decomposes a matrix as far as a reduction needs it.
func spectrumFor(d []float32, out, in int, r Reduction, usual int) (spectrum, error) {
	rank := cmp.Or(r.Rank, max(usual, 16))
	for {
		s, err := spectrumOfDense(d, out, in, rank, 1)
		if err != nil || r.Energy == 0 || rank >= min(out, in) || s.lost(rank) <= s.energy()*(1-r.Energy) {
			return s, err
		}
		rank = min(2*rank, out, in)
	}
}

// composeFull collects parameters that adapters replace: those of saved modules, biases, and embeddings that PEFT keeps
// beside their adapters. Two must not replace the same one differently; one that leaves it as it is in the base agrees
// with any other.
func composeFull(as []*Adapter) (map[string]Parameter, error) {
	full := map[string]Parameter{}
	different := map[string]bool{}
	for _, a := range as {
		for name, p := range a.FullValues() {
			if old, ok := full[name]; ok && !slices.Equal(old.Values, p.Values) {
				different[name] = true
			}
			full[name] = p
		}
	}
	if len(different) > 0 {
		return nil, fmt.Errorf("composing: %w: adapters replace these tensors with different values, of which one adapter can have only one:\n  %s",
			ErrMismatch, strings.Join(slices.Sorted(maps.Keys(different)), "\n  "))
	}
	return full, nil
}

// concatenate puts factors side by side.
func concatenate(modules []composed) error {
	for i := range modules {
		c := &modules[i]
		in, out := c.target.In(), c.target.Out()
		for _, p := range c.parts {
			c.rank += p.width()
			if p.spectrum != nil { // which may leave something out
				c.lost, c.energy = c.lost+p.spectrum.rest*p.weight*p.weight, c.energy+p.spectrum.energy()*p.weight*p.weight
			}
		}
		c.b, c.a = make([]float32, out*c.rank), make([]float32, 0, c.rank*in)
		at := 0
		for _, p := range c.parts {
			b, a := p.plain(c.target)
			k := p.width()
			for row := range out {
				copy(c.b[row*c.rank+at:], b[row*k:(row+1)*k])
			}
			c.a = append(c.a, a...)
			at += k
		}
	}
	return nil
}

// width is the rank of a part.
func (p part) width() int {
	if p.values != nil {
		return p.rank
	}
	if p.spectrum != nil {
		return len(p.spectrum.values)
	}
	_, k := p.b.Dims()
	return k
}

// plain are factors in float32, weight and scale in A as PEFT has it.
func (p part) plain(t Target) (b, a []float32) {
	if p.values != nil {
		own, left := p.own()
		a = slices.Clone(left)
		for i, v := range a {
			a[i] = float32(float32(v*float32(p.weight)) * float32(p.scale))
		}
		return own, a
	}
	if p.spectrum != nil {
		b, a = p.spectrum.factors(p.width())
	} else {
		b, a = single32(p.b).Data, single32(p.a).Data
	}
	for i := range a {
		a[i] *= float32(p.weight)
	}
	return b, a
}

// own are LoRA's factors as they are stored.
func (p part) own() (b, a []float32) {
	if a := p.values["lora_embedding_A"]; a != nil {
		return p.values["lora_embedding_B"], a
	}
	return p.values["lora_B.weight"], p.values["lora_A.weight"]
}

// linear adds factors, each with the root of its weight.
func linear(modules []composed) error {
	for i := range modules {
		c := &modules[i]
		for _, p := range c.parts {
			if p.values == nil || c.rank > 0 && p.rank != c.rank {
				return fmt.Errorf("composing %q: %w: a linear combination needs LoRA adapters of the same rank", c.target.Name, ErrMethod)
			}
			b, a := p.own()
			if c.rank == 0 {
				c.rank, c.b, c.a = p.rank, make([]float32, len(b)), make([]float32, len(a))
			}
			root := float32(math.Sqrt(math.Abs(p.weight * p.scale)))
			sign := root
			if p.weight*p.scale < 0 {
				sign = -root
			}
			for j, v := range a {
				c.a[j] += float32(v * sign)
			}
			for j, v := range b {
				c.b[j] += float32(v * root)
			}
		}
		if err := c.crossTerms(); err != nil {
			return err
		}
	}
	return nil
}

// crossTerms notes how far the product of added factors is from the sum of products.
func (c *composed) crossTerms() error {
	exact, err := c.spectrum()
	if err != nil {
		return err
	}
	wrong := *c
	wrong.parts = append(slices.Clone(c.parts), part{weight: -1, b: matrix(c.b, c.target.Out(), c.rank), a: matrix(c.a, c.rank, c.target.In())})
	rest, err := wrong.spectrum()
	c.lost, c.energy = rest.energy(), exact.energy()
	return err
}

// reduce finds the best factors of lower rank.
func reduce(modules []composed, r Reduction, full map[string]Parameter) error {
	spectra := make([]spectrum, len(modules))
	for i := range modules {
		var err error
		if spectra[i], err = modules[i].spectrum(); err != nil {
			return fmt.Errorf("composing %q: %w", modules[i].target.Name, err)
		}
	}
	ranks, err := chooseRanks(modules, spectra, r, full)
	if err != nil {
		return err
	}
	for i, s := range spectra {
		c := &modules[i]
		c.rank = ranks[i]
		c.b, c.a = s.factors(c.rank)
		c.lost, c.energy = s.lost(c.rank), s.energy()
	}
	return nil
}

// spectrum decomposes the sum of all parts.
func (c *composed) spectrum() (spectrum, error) {
	if len(c.parts) == 1 && c.parts[0].spectrum != nil {
		s := *c.parts[0].spectrum
		s.values = slices.Clone(s.values)
		for i := range s.values {
			s.values[i] *= math.Abs(c.parts[0].weight)
		}
		if c.parts[0].weight < 0 {
			s.u = mat.DenseCopyOf(s.u)
			s.u.Scale(-1, s.u)
		}
		s.rest *= c.parts[0].weight * c.parts[0].weight
		return s, nil
	}
	var b, a *mat.Dense
	for _, p := range c.parts {
		pb, pa := p.b, p.a
		if p.spectrum != nil {
			fb, fa := p.spectrum.factors(p.width())
			pb, pa = matrix(fb, c.target.Out(), p.width()), matrix(fa, p.width(), c.target.In())
		}
		scaled := mat.DenseCopyOf(pb)
		scaled.Scale(p.weight, scaled)
		if b == nil {
			b, a = scaled, pa
			continue
		}
		var wide, tall mat.Dense
		wide.Augment(b, scaled)
		tall.Stack(a, pa)
		b, a = &wide, &tall
	}
	return spectrumOf(b, a)
}

// chooseRanks gives every module a rank of 1 or more.
func chooseRanks(modules []composed, spectra []spectrum, r Reduction, full map[string]Parameter) ([]int, error) {
	ranks := make([]int, len(modules))
	for i, s := range spectra {
		ranks[i] = max(1, len(s.values))
		switch {
		case r.Rank > 0:
			ranks[i] = min(r.Rank, ranks[i])
		case r.Energy > 0:
			ranks[i] = s.rankFor(r.Energy)
		case r.Size > 0:
			ranks[i] = 1
		}
	}
	if r.Size == 0 {
		return ranks, nil
	}
	// A rank costs as many numbers as the module has inputs and outputs, and explains its singular value.
	left := r.Size
	for _, p := range full {
		left -= 4 * int64(len(p.Values))
	}
	cost := func(i int) int64 { return 4 * int64(modules[i].target.In()+modules[i].target.Out()) }
	type step struct {
		module int
		worth  float64
	}
	var steps []step
	for i, s := range spectra {
		left -= cost(i) + 2*headerBytes
		for _, v := range s.values[min(1, len(s.values)):] {
			steps = append(steps, step{i, v * v / float64(cost(i))})
		}
	}
	if left < 0 {
		return nil, fmt.Errorf("%w: %d bytes are too few even for rank 1: %d more are needed", ErrMethod, r.Size, -left)
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(b.worth, a.worth) })
	for _, s := range steps {
		if s.worth > 0 && cost(s.module) <= left {
			left -= cost(s.module)
			ranks[s.module]++
		}
	}
	return ranks, nil
}

// headerBytes is about what the name and place of a tensor take in a file.
const headerBytes = 160

// assemble makes a LoRA adapter of new factors, with the settings that the first of its sources has
// beside its method.
func assemble(as []*Adapter, modules []composed, full map[string]Parameter, names format.Names) (*Adapter, error) {
	like := as[0].Config
	ranks := map[int]int{}
	for _, c := range modules {
		ranks[c.rank]++
	}
	usual := 1
	for rank, n := range ranks {
		if n > ranks[usual] || n == ranks[usual] && rank > usual {
			usual = rank
		}
	}
	pattern := map[string]int{}
	transposed := false
	for _, c := range modules {
		transposed = transposed || c.target.Kind == Transposed
		if c.rank != usual {
			for _, n := range names.Each() {
				pattern["^"+regexp.QuoteMeta(format.Spell(as[0].base.ModelType, c.target.Name, n))] = c.rank
			}
		}
	}
	bias := "none"
	for name := range full {
		if strings.HasSuffix(name, ".bias") && slices.ContainsFunc(modules, func(c composed) bool { return c.target.Name+".bias" == name }) {
			bias = "lora_only"
		}
	}
	for _, a := range as {
		if t, ok := a.method.(BiasTrainer); ok && t.TrainedBiases() == "all" {
			bias = "all"
		}
	}
	settings := map[string]any{
		"peft_type": "LORA", "r": usual, "lora_alpha": usual, "rank_pattern": pattern, "alpha_pattern": pattern,
		"bias": bias, "fan_in_fan_out": transposed, "init_lora_weights": true, "lora_dropout": 0, "inference_mode": true,
		"base_model_name_or_path": like.BaseModel, "revision": like.Revision, "task_type": like.TaskType, "auto_mapping": like.AutoMapping,
		"modules_to_save": savedModules(as), "target_modules": composedTargets(as, modules),
	}
	if sameSelection(as) {
		settings["exclude_modules"], settings["layers_to_transform"], settings["layers_pattern"] = like.ExcludeModules, like.LayersToTransform, like.LayersPattern
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	cfg, err := format.ParseAdapterConfig(text)
	if err != nil {
		return nil, err
	}
	base := as[0].base
	a, err := prepare(cfg, base)
	if err == nil {
		err = a.fill(modules, full)
	}
	return a, err
}

// fill takes over new factors and whole parameters.
func (a *Adapter) fill(modules []composed, full map[string]Parameter) error {
	for _, t := range a.Targets {
		i := slices.IndexFunc(modules, func(c composed) bool { return c.target.Name == t.Name })
		if i < 0 || modules[i].rank != t.Rank {
			return fmt.Errorf("%w: the new config selects %q with rank %d", ErrMismatch, t.Name, t.Rank)
		}
		for _, p := range a.method.Params(t) {
			values := modules[i].a
			if strings.Contains(p.Name, "_B") {
				values = modules[i].b
			}
			a.params = append(a.params, Parameter{key(t.Name, p.Name), p.Shape, values})
		}
	}
	// A bias that no source trains is not kept; an embedding that PEFT saved, of which no config tells, is.
	a.Full = slices.DeleteFunc(a.Full, func(name string) bool { _, ok := full[name]; return !ok })
	for _, name := range slices.Sorted(maps.Keys(full)) {
		if !slices.Contains(a.Full, name) {
			a.Full = append(a.Full, name)
		}
	}
	for _, name := range a.Full {
		a.params = append(a.params, Parameter{keyPrefix + name, full[name].Shape, full[name].Values})
	}
	return nil
}

func savedModules(as []*Adapter) []string {
	var list []string
	for _, a := range as {
		for _, m := range a.Config.ModulesToSave {
			if !slices.Contains(list, m) {
				list = append(list, m)
			}
		}
	}
	return list
}

// sameSelection tells whether all sources choose their modules in the same way.
func sameSelection(as []*Adapter) bool {
	for _, a := range as[1:] {
		if fmt.Sprint(a.Config.ExcludeModules, a.Config.LayersPattern, a.Config.LayersToTransform) !=
			fmt.Sprint(as[0].Config.ExcludeModules, as[0].Config.LayersPattern, as[0].Config.LayersToTransform) {
			return false
		}
	}
	return true
}

// composedTargets keeps the words of the sources where that is enough, else it names every module.
func composedTargets(as []*Adapter, modules []composed) any {
	if len(as) == 1 {
		return as[0].Config.TargetModules
	}
	var union []string
	lists := sameSelection(as)
	for _, a := range as {
		lists = lists && a.Config.TargetModules.Names != nil
		for _, n := range a.Config.TargetModules.Names {
			if !slices.Contains(union, n) {
				union = append(union, n)
			}
		}
	}
	if lists {
		return union
	}
	var whole []string
	for _, c := range modules {
		whole = append(whole, c.target.Names...)
	}
	slices.Sort(whole)
	return slices.Compact(whole)
}

func lossOf(modules []composed, a *Adapter) *Loss {
	l := &Loss{Modules: len(modules)}
	lost, energy := 0.0, 0.0
	for i, c := range modules {
		if i == 0 {
			l.Ranks = [2]int{c.rank, c.rank}
		}
		l.Ranks[0], l.Ranks[1] = min(l.Ranks[0], c.rank), max(l.Ranks[1], c.rank)
		lost, energy = lost+c.lost, energy+c.energy
		if e := relative(c.lost, c.energy); e > l.Worst {
			l.Worst, l.WorstIn = e, c.target.Name
		}
	}
	l.Relative = relative(lost, energy)
	for _, p := range a.params {
		l.Parameters += len(p.Values)
	}
	return l
}
