package engine

import (
	"fmt"
	"os"
	"strings"
)

// SetTF32 decides whether products of float32 are rounded to the 10 bits of TF32, which tensor cores
// compute several times faster. Plugins for GPUs do unless told otherwise. Programs that are compiled
// already stay as they are.
func (e *Engine) SetTF32(on bool) error {
	if !e.Accelerated() {
		return fmt.Errorf("setting TF32: %w: %s computes on the processor, which has none", ErrUnavailable, e.Spec)
	}
	setTF32(e.Backend, on)
	return nil
}

// deterministicFlag makes XLA choose kernels whose sums have one order only. Plugins for the
// processor know the flag, and have no others.
const deterministicFlag = "--xla_gpu_deterministic_ops=true"

// Deterministic makes plugins for GPUs that are opened from now on compute the same bits every time.
// The other engines do anyway.
func Deterministic() error {
	if strings.Contains(os.Getenv("XLA_FLAGS"), deterministicFlag) {
		return nil
	}
	return addFlags(deterministicFlag)
}

// addFlags adds flags that XLA reads when a plugin is loaded, the first of the process.
func addFlags(flags ...string) error {
	all := strings.Join(append([]string{os.Getenv("XLA_FLAGS")}, flags...), " ")
	if err := os.Setenv("XLA_FLAGS", strings.TrimSpace(all)); err != nil {
		return fmt.Errorf("setting XLA's flags: %w", err)
	}
	return nil
}
