package adapters

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/hubtool/hubtool/format"
)

// Rounding says how an update is added to a weight of lower precision.
type Rounding int

// The ways of rounding. For one adapter on a float32 base they are the same.
const (
	RoundPEFT Rounding = iota // as merge_and_unload(): the sum is rounded, after each adapter
	RoundSafe                 // as merge_and_unload(safe_merge=True): LoRA's update is rounded, then the sum
	RoundOnce                 // all updates are added in float32, and the sum is rounded once
)

// ErrNonFinite is wrapped where an adapter or a merged weight has values that are not finite.
var ErrNonFinite = errors.New("not finite")

// ErrBaseNonFinite is an [ErrNonFinite] about weights that were not finite before the merge.
var ErrBaseNonFinite = fmt.Errorf("%w in the base", ErrNonFinite)

// ErrUnused is an [ErrMismatch] about tensors of an adapter for which the base has no place.
var ErrUnused = fmt.Errorf("%w: the base has no module for tensors of the adapter", ErrMismatch)

// ErrTied is an [ErrMismatch] about adapters that change one of two parameters that a model shares.
var ErrTied = fmt.Errorf("%w: the model has one tensor for two parameters, which would differ after the merge", ErrMismatch)

// MergeOptions are the settings of a merge.
type MergeOptions struct {
	// Rounding is RoundPEFT by default.
	Rounding Rounding

	// Weights scale the adapters' updates; nil is 1 for each.
	Weights []float64

	// Labels are written to the config of a classifier that gets its head from an adapter. By default
	// the base's stay if their number fits, else they are called LABEL_0, LABEL_1, ...
	Labels []string

	// ShardSize is the largest size of a file in bytes of tensors; 0 keeps the base's files.
	ShardSize int64

	// AllowMissing leaves out tensors of adapters for which the base has no place. By default they
	// are an error.
	AllowMissing bool

	// AllowNonFinite merges into weights some of whose elements are not finite, which stay so. By
	// default that is an error.
	AllowNonFinite bool

	// Untie gives a model whose output embeddings are its input embeddings a copy of its own, where
	// an adapter changes one of them. By default that is an error.
	Untie bool

	// Jobs is how many files are written at the same time, 2 by default.
	Jobs int

	// Readers is how many ranges of the base are read at the same time for each file, 1 by default.
	Readers int

	// SideFiles is the directory of the base's config, index and tokenizer; by default the one that
	// its weights are in.
	SideFiles string

	// Keep leaves finished files to the next merge if this one fails or is cancelled, not only if it
	// is killed, unless the base turns out to be damaged. It is for bases that were read from afar.
	Keep bool

	// Check is called with the directory of the merged files before they get their final name. Its
	// error is the merge's.
	Check func(dir string) error

	// Progress is called, from one goroutine at a time; nil is silent.
	Progress func(MergeEvent)
}

// MergeEvent says how far a merge is.
type MergeEvent struct {
	Shard       string
	Done, Total int64 // bytes of all shards
}

// MergeResult says what a merge wrote, or what it will write.
type MergeResult struct {
	Merged, Copied, Added int // tensors
	Changed               []string
	Shards                []MergedShard
	SideFiles             []string
	LeftOut               []string // files of the base that were not copied
	Resumed               int      // shards that an interrupted merge had finished
	Unchecked             []string // files of the base that could not be compared with their hashes
}

// MergedShard is a file of the merged checkpoint.
type MergedShard struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
}

// Merge writes base with the adapters' updates added, in their order, into the directory out, which
// must not exist. Shards and tensors keep the base's names and types; a bare ViTModel becomes the
// classifier that the adapters were made for.
//
// Memory does not grow with the base. out appears when everything in it is on disk. A merge that was
// killed leaves its finished shards in out with ".partial" added; the next one with the same inputs
// goes on from there. One that fails or is cancelled leaves nothing, unless opts.Keep.
func Merge(ctx context.Context, base *format.Checkpoint, cfg *format.ModelConfig, as []*Adapter, out string, opts MergeOptions) (MergeResult, error) {
	p, err := PlanMerge(base, cfg, as, opts)
	if err != nil {
		return MergeResult{}, err
	}
	return p.Write(ctx, out)
}

func notFinite(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }
