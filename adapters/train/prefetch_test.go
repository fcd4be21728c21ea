package train

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"
)

// numbers yields 0, 1, ... until the context ends, then its cause.
func numbers(ctx context.Context) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := 0; ; i++ {
			if !yield(i, context.Cause(ctx)) {
				return
			}
		}
	}
}

// While the loop has one value the next one is moved, and not the one after it; what was moved in vain is freed.
func TestPrefetch(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	moved := make(chan int, 10)
	move := func(i int) (int, error) { moved <- i; return 10 * i, nil }
	var freed []int
	next := 0
	for v, err := range prefetch(numbers(ctx), move, func(v int) { freed = append(freed, v) }, stop) {
		if err != nil || v != 10*next {
			t.Fatal(v, err)
		}
		if next == 0 {
			<-moved // the value at hand
		}
		select {
		case i := <-moved:
			if i != next+1 {
				t.Fatalf("%d was moved beside %d", i, next)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing was moved while the loop had %d", next)
		}
		if next++; next == 3 {
			break
		}
	}
	if len(moved) != 0 || len(freed) != 1 || freed[0] != 30 || ctx.Err() == nil {
		t.Errorf("%d more were moved, freed %d, stopped: %v", len(moved), freed, ctx.Err())
	}
}

// Errors of the sequence and of moving end the loop; a loop that ends does not wait for values that do not come.
func TestPrefetchEnds(t *testing.T) {
	broken := errors.New("broken")
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	fails := func(int) (int, error) { return 0, broken }
	works := func(i int) (int, error) { return i, nil }
	for name, values := range map[string]iter.Seq2[int, error]{
		"the sequence": prefetch(numbers(cancelled), works, func(int) {}, func() {}),
		"moving":       prefetch(numbers(t.Context()), fails, func(int) {}, func() {}),
	} {
		n := 0
		for _, err := range values {
			if n++; !errors.Is(err, broken) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d values", name, n)
		}
	}

	ctx, stop := context.WithCancel(t.Context())
	waits := func(yield func(int, error) bool) {
		if yield(1, nil) {
			<-ctx.Done()
		}
	}
	for range prefetch(waits, works, func(int) {}, stop) {
		break
	}
}
