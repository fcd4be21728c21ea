package train

import (
	"iter"
	"sync"
)

// prefetch moves each value of a sequence while the loop is busy with the one before it. free gets what
// was moved and did not come to the loop, and stop is called when that needs no more values.
func prefetch[T, M any](values iter.Seq2[T, error], move func(T) (M, error), free func(M), stop func()) iter.Seq2[M, error] {
	type result struct {
		value M
		err   error
	}
	return func(yield func(M, error) bool) {
		coming, over := make(chan result), make(chan struct{})
		var moving sync.WaitGroup
		moving.Go(func() {
			defer close(coming)
			for v, err := range values {
				var r result
				if r.err = err; err == nil {
					r.value, r.err = move(v)
				}
				select {
				case coming <- r:
				case <-over:
					if r.err == nil {
						free(r.value)
					}
					return
				}
				if r.err != nil {
					return
				}
			}
		})
		defer moving.Wait() // nobody asks for values after the loop
		defer stop()
		defer close(over)
		for r := range coming {
			if !yield(r.value, r.err) {
				return
			}
		}
	}
}
