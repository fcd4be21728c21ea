package adapters

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/format"
)

// A MergePlan is a merge that can be done: everything that is known from headers and adapters has
// been checked, and nothing was written.
type MergePlan struct {
	base     *format.Checkpoint
	cfg      *format.ModelConfig // of the merged model
	adapters []*Adapter
	opts     MergeOptions

	full   map[string]Parameter   // parameters that adapters replace, by canonical name
	sites  map[string][]mergeSite // updates by module
	shards []plannedShard
	index  *format.Index // nil: there is one shard
	result MergeResult

	weights map[string][]mergeSite // of merged weights, by their names in the new files
}

type mergeSite struct {
	adapter *Adapter
	target  Target // alpha scaled by the adapter's weight
}

// A plannedShard is a file to be written.
type plannedShard struct {
	name   string
	like   *format.Header // of the base's file; nil if it has none of this name
	header *format.Header
	pieces map[string]format.Piece
	order  []format.TensorInfo
}

// PlanMerge checks that adapters fit a base and plans what [Merge] writes. The config is changed to
// that of the merged model.
func PlanMerge(base *format.Checkpoint, cfg *format.ModelConfig, as []*Adapter, opts MergeOptions) (*MergePlan, error) {
	p := &MergePlan{base: base, cfg: cfg, adapters: as, opts: opts, full: map[string]Parameter{},
		sites: map[string][]mergeSite{}, weights: map[string][]mergeSite{}}
	p.opts.Jobs = cmp.Or(opts.Jobs, 2)
	if opts.Weights == nil {
		p.opts.Weights = slices.Repeat([]float64{1}, len(as))
	}
	for i, a := range as {
		if err := p.take(a, p.opts.Weights[i]); err != nil {
			return nil, fmt.Errorf("merging: %w", err)
		}
	}
	for _, step := range []func() error{p.arrange, p.classifier, p.headers} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("merging: %w", err)
		}
	}
	return p, nil
}

// take notes what one adapter changes.
func (p *MergePlan) take(a *Adapter, weight float64) error {
	for _, param := range a.params {
		if j := slices.IndexFunc(param.Values, notFinite); j >= 0 {
			return fmt.Errorf("%w: element %d of the adapter's %q is %v", ErrNonFinite, j, param.Name, param.Values[j])
		}
	}
	if _, ok := a.method.(Merger); !ok {
		return fmt.Errorf("%w: %s cannot be merged", ErrMethod, a.Config.PeftType)
	}
	if len(a.Unused) > 0 && !p.opts.AllowMissing {
		return unusedError(a)
	}
	for name, param := range a.FullValues() {
		if old, ok := p.full[name]; ok && !slices.Equal(old.Values, param.Values) {
			return fmt.Errorf("%w: two adapters replace %q", ErrMismatch, name)
		}
		p.full[name] = param
	}
	if _, alpha := a.method.Scale(); alpha == 0 && weight != 1 {
		return fmt.Errorf("%w: %s has no scale, so its weight must be 1, not %v", ErrMethod, a.Config.PeftType, weight)
	}
	_, onBase := a.method.(BaseMerger)
	for _, t := range a.Targets {
		if onBase && len(p.sites[t.Name]) > 0 {
			return fmt.Errorf("%w: the adapter's update of %q depends on the base's weight: merge it before the others", ErrMethod, t.Name)
		}
		t.Alpha *= weight
		p.sites[t.Name] = append(p.sites[t.Name], mergeSite{a, t})
	}
	return nil
}

// unusedError names the modules of the base that tensors without a place may have been meant for.
func unusedError(a *Adapter) error {
	var lines []string
	for _, name := range a.Unused {
		lines = append(lines, fmt.Sprintf("%s%s", name, a.base.nearest(name)))
	}
	return fmt.Errorf("%w:\n  %s", ErrUnused, strings.Join(lines, "\n  "))
}

// canonical is the name by which adapters know a tensor of the base.
func (p *MergePlan) canonical(name string) string {
	if len(p.adapters) == 0 {
		return format.Canonical(p.cfg.ModelType, name)
	}
	return p.adapters[0].base.canonical(name)
}

// arrange decides for every tensor what is written, and into which file.
func (p *MergePlan) arrange() error {
	// A bare backbone has names without the prefix that the classifier gives them, and a pooler.
	prefix, bare, present := p.cfg.ModelType+".", false, map[string]bool{}
	counts := map[format.DType]int64{}
	for t := range p.base.Tensors() {
		info := t.Info()
		name := p.canonical(info.Name)
		present[name] = true
		counts[info.DType] += info.Elements()
		bare = bare || strings.HasPrefix(name, prefix) && !strings.HasPrefix(info.Name, prefix)
	}
	classifies := p.full["classifier.weight"].Values != nil
	for _, s := range p.base.Shards() {
		shard := plannedShard{name: s.Name, like: s.Header, pieces: map[string]format.Piece{}}
		for _, e := range s.Header.Entries() {
			t, _ := p.base.Tensor(e.Name)
			info := t.Info()
			name := p.canonical(info.Name)
			if classifies && bare && strings.Contains(name, "pooler.") {
				continue
			}
			if classifies && bare && strings.HasPrefix(name, prefix) {
				info.Name = prefix + strings.TrimPrefix(info.Name, prefix)
			}
			if err := p.add(&shard, t, info, name); err != nil {
				return err
			}
		}
		p.shards = append(p.shards, shard)
	}
	if err := p.untie(present); err != nil {
		return err
	}
	// What only an adapter has gets the type that most of the base has.
	dtype := format.F32
	for d := range kernelTypes {
		if counts[d] > counts[dtype] {
			dtype = d
		}
	}
	last := &p.shards[len(p.shards)-1]
	for _, name := range slices.Sorted(maps.Keys(p.full)) {
		if !present[name] {
			param := p.full[name]
			info := format.TensorInfo{Name: name, DType: dtype, Shape: param.Shape}
			last.put(info, format.Piece{From: narrowed(info, param.Values)})
			p.result.Added++
		}
	}
	if p.opts.ShardSize > 0 {
		p.reshard()
	}
	return nil
}

// add plans one tensor of the base: info is what it is in the new file, name its canonical name.
func (p *MergePlan) add(shard *plannedShard, t format.Tensor, info format.TensorInfo, name string) error {
	piece := format.Piece{From: t}
	param, replaced := p.full[name]
	if replaced {
		info.Shape = param.Shape
		piece.From = narrowed(info, param.Values)
	}
	dot := max(0, strings.LastIndexByte(name, '.'))
	module, part := name[:dot], name[min(dot+1, len(name)):]
	sites := p.sites[module]
	switch {
	case part == "weight" && len(sites) > 0:
		if _, ok := kernelTypes[info.DType]; !ok {
			return fmt.Errorf("%w: %q is %s: adapters are added to weights of type F32, F16 or BF16, so save the base in one of these", format.ErrUnsupported, info.Name, info.DType)
		}
		piece.Patch = p.weightPatch(info, t, sites)
		p.weights[info.Name] = sites
	case part == "bias":
		piece.Patch = p.biasPatch(info, sites)
	}
	if replaced || piece.Patch != nil {
		p.result.Merged++
		p.result.Changed = append(p.result.Changed, info.Name)
	} else {
		p.result.Copied++
	}
	shard.put(info, piece)
	return nil
}

// untie adds a head of its own to a model that has none, where an adapter changes the head or the
// embeddings that it shares.
func (p *MergePlan) untie(present map[string]bool) error {
	if len(p.adapters) == 0 {
		return nil
	}
	changed := func(name string) bool {
		_, replaced := p.full[name]
		return replaced || len(p.sites[strings.TrimSuffix(name, ".weight")]) > 0
	}
	for head, embedding := range p.adapters[0].base.tied {
		if !changed(head) && !changed(embedding) {
			continue
		}
		if !p.opts.Untie {
			return fmt.Errorf("%w: %q and %q", ErrTied, embedding, head)
		}
		for i := range p.shards {
			for _, e := range p.base.Shards()[i].Header.Entries() {
				if p.canonical(e.Name) != embedding {
					continue
				}
				t, _ := p.base.Tensor(e.Name)
				info := t.Info()
				info.Name = head
				before := p.result
				if err := p.add(&p.shards[i], t, info, head); err != nil {
					return err
				}
				p.result.Merged, p.result.Copied, p.result.Added = before.Merged, before.Copied, before.Added+1
			}
		}
		present[head] = true
		p.cfg.SetTiedEmbeddings(false)
	}
	return nil
}

func (s *plannedShard) put(info format.TensorInfo, piece format.Piece) {
	piece.TensorInfo = info
	s.pieces[info.Name] = piece
	s.order = append(s.order, info)
}

// biasPatch is what sites do to the bias of their module, nil if nothing.
func (p *MergePlan) biasPatch(info format.TensorInfo, sites []mergeSite) *format.Patch {
	sites = slices.DeleteFunc(slices.Clone(sites), func(s mergeSite) bool {
		m, ok := s.adapter.method.(BiasMerger)
		return !ok || !m.MergesBias()
	})
	if len(sites) == 0 {
		return nil
	}
	w := weightMerge{info: info, typ: kernelTypes[info.DType], rows: 1, cols: int(info.Elements()), group: 1, workers: 1}
	return &format.Patch{Block: info.Size(), Start: func() (func(int64, []byte) error, error) {
		started := w
		for _, s := range sites {
			values, err := s.values(info.DType)
			if err != nil {
				return nil, err
			}
			started.updates = append(started.updates, RowUpdate{Replace: func(_ int, bias []float32) {
				s.adapter.method.(BiasMerger).MergeBias(s.target, values, bias)
			}})
		}
		return started.apply, nil
	}}
}

// narrowed is a tensor with an adapter's values, rounded to its type when they are asked for.
func narrowed(info format.TensorInfo, values []float32) format.Tensor {
	return lazy{info, func() ([]byte, error) {
		for i, v := range values {
			if v = format.Round(info.DType, v); notFinite(v) {
				return nil, fmt.Errorf("%w: element %d is %v in %s", ErrNonFinite, i, v, info.DType)
			}
		}
		return format.Narrow(info.DType, values)
	}}
}

// lazy is a tensor whose bytes are computed on request.
type lazy struct {
	info  format.TensorInfo
	bytes func() ([]byte, error)
}

func (l lazy) Info() format.TensorInfo { return l.info }
func (l lazy) Bytes() ([]byte, error)  { return l.bytes() }

// reshard fills files with tensors, in their order, up to the largest size, as transformers does.
func (p *MergePlan) reshard() {
	var shards []plannedShard
	size := int64(0)
	for _, s := range p.shards {
		for _, info := range s.order {
			if len(shards) == 0 || size+info.Size() > p.opts.ShardSize && size > 0 {
				shards, size = append(shards, plannedShard{like: p.shards[0].like, pieces: map[string]format.Piece{}}), 0
			}
			shards[len(shards)-1].put(info, s.pieces[info.Name])
			size += info.Size()
		}
	}
	for i := range shards {
		shards[i].name = format.ModelFile
		if len(shards) > 1 {
			shards[i].name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		}
	}
	p.shards = shards
}

// headers lays the files out.
func (p *MergePlan) headers() error {
	index := &format.Index{WeightMap: map[string]string{}}
	for i := range p.shards {
		s := &p.shards[i]
		var err error
		if s.header, err = format.LikeHeader(s.like, s.order); err != nil {
			return err
		}
		p.result.Shards = append(p.result.Shards, MergedShard{Name: s.name, Size: s.header.FileSize()})
		for _, info := range s.order {
			index.WeightMap[info.Name] = s.name
			index.TotalSize += info.Size()
		}
	}
	if len(p.shards) > 1 {
		p.index = index
	}
	return nil
}

// classifier makes the config that of a classifier with the merged head.
func (p *MergePlan) classifier() error {
	head, ok := p.full["classifier.weight"]
	if !ok {
		return nil
	}
	labels := p.opts.Labels
	if labels == nil {
		labels = p.cfg.Labels()
	}
	if len(labels) != head.Shape[0] {
		if p.opts.Labels != nil {
			return fmt.Errorf("%w: the head has %d outputs, but there are %d labels", ErrMismatch, head.Shape[0], len(labels))
		}
		labels = nil
		for i := range head.Shape[0] {
			labels = append(labels, fmt.Sprintf("LABEL_%d", i))
		}
	}
	p.cfg.SetLabels(labels)
	if class, ok := classes[p.cfg.ModelType]; ok {
		p.cfg.SetArchitectures([]string{class.Class})
	}
	return nil
}

// Result is what will be written; the hashes of files are not known yet.
func (p *MergePlan) Result() MergeResult { return p.result }

// BaseBytes is how much of the base's weights will be read.
func (p *MergePlan) BaseBytes() int64 {
	total := int64(0)
	for _, s := range p.shards {
		for _, piece := range s.pieces {
			if _, made := piece.From.(lazy); !made {
				total += piece.From.Info().Size()
			}
		}
	}
	return total
}

// Bytes is the size of the files of weights that will be written.
func (p *MergePlan) Bytes() int64 {
	total := int64(0)
	for _, s := range p.result.Shards {
		total += s.Size
	}
	return total
}
