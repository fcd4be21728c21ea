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
	flags := os.Getenv("XLA_FLAGS")
	if strings.Contains(flags, deterministicFlag) {
		return nil
	}
	if err := os.Setenv("XLA_FLAGS", strings.TrimSpace(flags+" "+deterministicFlag)); err != nil {
		return fmt.Errorf("making XLA deterministic: %w", err)
	}
	return nil
}
