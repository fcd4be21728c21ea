package adapters

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hubtool/hubtool/format"
)

// Rounding says how an update is added to a weight of lower precision.
type Rounding int

// The ways of rounding. They differ for LoRA on half-precision bases only.
const (
	RoundPEFT Rounding = iota // as merge_and_unload(): the sum is rounded
	RoundSafe                 // as merge_and_unload(safe_merge=True): the update is rounded, then the sum
)

// ErrNonFinite is wrapped where an adapter or a merged weight has values that are not finite.
var ErrNonFinite = errors.New("not finite")

// MergeOptions are the settings of [Merge].
type MergeOptions struct {
	// Rounding is RoundPEFT by default.
	Rounding Rounding

	// Weights scale the adapters' updates; nil is 1 for each.
	Weights []float64

	// Labels are written to the config of a classifier that gets its head from an adapter. By default
	// the base's stay if their number fits, else they are called LABEL_0, LABEL_1, ...
	Labels []string

	// Progress is called after each tensor; nil is silent.
	Progress func(MergeEvent)
}

// MergeEvent says how far a merge is.
type MergeEvent struct {
	Tensor      string
	Done, Total int64 // bytes
}

// MergeResult says what a merge wrote.
type MergeResult struct {
	Merged, Copied, Added int // tensors
	Shards                []MergedShard
	SideFiles             []string
	LeftOut               []string // files of the base that were not copied
}

// MergedShard is a file of the merged checkpoint.
type MergedShard struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Merge writes base with the adapters' updates added, in their order, into the directory out, which
// must not exist. Shards and tensors keep the base's names and types; a bare ViTModel becomes the
// classifier that the adapters were made for. out appears when everything is written.
func Merge(ctx context.Context, base *format.Checkpoint, cfg *format.ModelConfig, as []*Adapter, out string, opts MergeOptions) (*MergeResult, error) {
	m, err := plan(base, cfg, as, opts)
	if err != nil {
		return nil, err
	}
	tmp := filepath.Clean(out) + ".partial"
	if err := os.RemoveAll(tmp); err != nil {
		return nil, fmt.Errorf("merging: %w", err)
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return nil, fmt.Errorf("merging: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := m.write(ctx, tmp); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, out); err != nil {
		return nil, fmt.Errorf("merging: %w", err)
	}
	return m.result, nil
}

// merger is a planned merge.
type merger struct {
	base     *format.Checkpoint
	cfg      *format.ModelConfig
	adapters []*Adapter
	opts     MergeOptions

	full  map[string]Parameter   // parameters that adapters replace, by canonical name
	sites map[string][]mergeSite // updates by module

	done, total int64
	result      *MergeResult
}

type mergeSite struct {
	adapter *Adapter
	target  Target // alpha scaled by the adapter's weight
}

func plan(base *format.Checkpoint, cfg *format.ModelConfig, as []*Adapter, opts MergeOptions) (*merger, error) {
	m := &merger{base: base, cfg: cfg, adapters: as, opts: opts, full: map[string]Parameter{},
		sites: map[string][]mergeSite{}, result: &MergeResult{}}
	if opts.Weights == nil {
		m.opts.Weights = slices.Repeat([]float64{1}, len(as))
	}
	for i, a := range as {
		for _, p := range a.params {
			if j := slices.IndexFunc(p.Values, notFinite); j >= 0 {
				return nil, fmt.Errorf("merging: %w: element %d of the adapter's %q is %v", ErrNonFinite, j, p.Name, p.Values[j])
			}
		}
		if _, ok := a.method.(Merger); !ok {
			return nil, fmt.Errorf("merging: %w: %s cannot be merged", ErrMethod, a.Config.PeftType)
		}
		for name, p := range a.FullValues() {
			if old, ok := m.full[name]; ok && !slices.Equal(old.Values, p.Values) {
				return nil, fmt.Errorf("merging: %w: two adapters replace %q", ErrMismatch, name)
			}
			m.full[name] = p
		}
		for _, t := range a.Targets {
			t.Alpha *= m.opts.Weights[i]
			m.sites[t.Name] = append(m.sites[t.Name], mergeSite{a, t})
		}
	}
	for t := range base.Tensors() {
		m.total += t.Info().Size()
	}
	return m, nil
}

func notFinite(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }

func (m *merger) write(ctx context.Context, dir string) error {
	canonical := func(t format.Tensor) string { return format.Canonical(m.cfg.ModelType, t.Info().Name) }
	// A bare backbone has names without the prefix that the classifier gives them, and a pooler.
	prefix, bare, present := m.cfg.ModelType+".", false, map[string]bool{}
	for t := range m.base.Tensors() {
		name := canonical(t)
		present[name] = true
		bare = bare || strings.HasPrefix(name, prefix) && !strings.HasPrefix(t.Info().Name, prefix)
	}
	classifies := m.full["classifier.weight"].Values != nil
	index := &format.Index{WeightMap: map[string]string{}}

	shards := m.base.Shards()
	for i, shard := range shards {
		var tensors []format.Tensor
		for t := range m.base.Tensors() {
			if shardOf(m.base, t) != shard.Name {
				continue
			}
			name := canonical(t)
			if classifies && bare && strings.Contains(name, "pooler.") {
				continue
			}
			info := t.Info()
			if classifies && bare && strings.HasPrefix(name, prefix) {
				info.Name = prefix + strings.TrimPrefix(info.Name, prefix)
			}
			tensors = append(tensors, m.tensor(t, info, name))
		}
		if i == len(shards)-1 {
			for _, name := range slices.Sorted(maps.Keys(m.full)) {
				if p := m.full[name]; !present[name] {
					tensors = append(tensors, format.FloatTensor(name, p.Shape, p.Values))
					m.result.Added++
				}
			}
		}
		path := filepath.Join(dir, shard.Name)
		if err := format.Write(ctx, path, tensors, metadata(shard)); err != nil {
			return err
		}
		merged, err := describe(path)
		if err != nil {
			return err
		}
		m.result.Shards = append(m.result.Shards, merged)
		for _, t := range tensors {
			index.WeightMap[t.Info().Name] = shard.Name
			index.TotalSize += t.Info().Size()
		}
	}
	if len(shards) > 1 {
		if err := index.Write(filepath.Join(dir, "model.safetensors.index.json")); err != nil {
			return err
		}
	}
	if classifies {
		if err := m.classifier(); err != nil {
			return err
		}
	}
	if err := m.cfg.Write(dir); err != nil {
		return err
	}
	return m.sideFiles(dir)
}

// metadata is the shard's own; transformers wants a format, which some writers leave out.
func metadata(shard format.Shard) map[string]string {
	meta := maps.Clone(shard.Header.Metadata())
	if meta == nil {
		meta = map[string]string{"format": "pt"}
	}
	return meta
}

func shardOf(ck *format.Checkpoint, t format.Tensor) string {
	for _, s := range ck.Shards() {
		if _, ok := s.Header.Lookup(t.Info().Name); ok {
			return s.Name
		}
	}
	return ""
}

// classifier makes the config that of a classifier with the merged head.
func (m *merger) classifier() error {
	head, ok := m.full["classifier.weight"]
	if !ok {
		return nil
	}
	labels := m.opts.Labels
	if labels == nil {
		labels = m.cfg.Labels()
	}
	if len(labels) != head.Shape[0] {
		if m.opts.Labels != nil {
			return fmt.Errorf("merging: %w: the head has %d outputs, but there are %d labels", ErrMismatch, head.Shape[0], len(labels))
		}
		labels = nil
		for i := range head.Shape[0] {
			labels = append(labels, fmt.Sprintf("LABEL_%d", i))
		}
	}
	m.cfg.SetLabels(labels)
	if class, ok := classes[m.cfg.ModelType]; ok {
		m.cfg.SetArchitectures([]string{class.Class})
	}
	return nil
}

// tensor returns what the merged checkpoint has for a tensor of the base. Its bytes are computed
// when they are written.
func (m *merger) tensor(t format.Tensor, info format.TensorInfo, name string) format.Tensor {
	p, replaced := m.full[name]
	if replaced {
		info.Shape = p.Shape
	}
	updates := m.updates(name)
	if !replaced && len(updates) == 0 {
		m.result.Copied++
	} else {
		m.result.Merged++
	}
	return lazy{info, func() ([]byte, error) {
		defer m.progress(t.Info())
		if !replaced && len(updates) == 0 {
			return t.Bytes()
		}
		values := slices.Clone(p.Values)
		if !replaced {
			var err error
			if values, err = format.Floats(t); err != nil {
				return nil, err
			}
		}
		round := func(v float32) float32 { return format.Round(info.DType, v) }
		for _, update := range updates {
			update(values, round)
			for i, v := range values {
				values[i] = round(v) // the next adapter adds to a stored weight
			}
		}
		if i := slices.IndexFunc(values, notFinite); i >= 0 {
			return nil, fmt.Errorf("merging %q: %w: element %d is %v in %s", info.Name, ErrNonFinite, i, values[i], info.DType)
		}
		return format.Narrow(info.DType, values)
	}}
}

type update func(values []float32, round func(float32) float32)

// updates are what the adapters do to a tensor of the base, in their order.
func (m *merger) updates(name string) []update {
	dot := max(0, strings.LastIndexByte(name, '.'))
	module, part := name[:dot], name[min(dot+1, len(name)):]
	var all []update
	for _, s := range m.sites[module] {
		params, method := s.adapter.TargetValues(s.target), s.adapter.method
		switch b, ok := method.(BiasMerger); {
		case part == "weight":
			all = append(all, func(w []float32, round func(float32) float32) {
				method.(Merger).Merge(s.target, params, w, m.opts.Rounding, round)
			})
		case part == "bias" && ok && b.MergesBias():
			all = append(all, func(bias []float32, _ func(float32) float32) { b.MergeBias(s.target, params, bias) })
		}
	}
	return all
}

func (m *merger) progress(t format.TensorInfo) {
	m.done += t.Size()
	if m.opts.Progress != nil {
		m.opts.Progress(MergeEvent{t.Name, m.done, m.total})
	}
}

// lazy is a tensor whose bytes are computed on request.
type lazy struct {
	info  format.TensorInfo
	bytes func() ([]byte, error)
}

func (l lazy) Info() format.TensorInfo { return l.info }
func (l lazy) Bytes() ([]byte, error)  { return l.bytes() }

func describe(path string) (MergedShard, error) {
	f, err := os.Open(path)
	if err != nil {
		return MergedShard{}, fmt.Errorf("hashing: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return MergedShard{}, fmt.Errorf("hashing %q: %w", path, err)
	}
	return MergedShard{filepath.Base(path), n, hex.EncodeToString(h.Sum(nil))}, nil
}

// sideFiles copies what lies beside the base's tensors: processor and generation settings,
// tokenizers, licences. Weights in other formats and code are left out.
func (m *merger) sideFiles(dir string) error {
	from := m.base.Path()
	if info, err := os.Stat(from); err != nil || !info.IsDir() {
		from = filepath.Dir(from)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("copying side files: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(from, name)
		info, err := os.Stat(path) // a snapshot in the cache holds links
		switch {
		case err != nil || !info.Mode().IsRegular() || strings.HasPrefix(name, "."):
			continue
		case name == format.ModelConfigFile || strings.HasSuffix(name, ".safetensors") || strings.HasSuffix(name, ".index.json"):
			continue // written by the merge
		case !slices.Contains([]string{".json", ".txt", ".model", ".md", ".jinja", ""}, filepath.Ext(name)) || name == "README.md":
			m.result.LeftOut = append(m.result.LeftOut, name)
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("copying side files: %w", err)
		}
		if err := format.WriteFileAtomic(filepath.Join(dir, name), data); err != nil {
			return err
		}
		m.result.SideFiles = append(m.result.SideFiles, name)
	}
	return nil
}
