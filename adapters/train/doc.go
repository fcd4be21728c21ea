// Package train trains an adapter on a frozen classifier.
//
// [Run] is the loop, top to bottom. The engine computes losses and gradients; the optimizer, whose
// work is small because adapters are small, runs on the host in plain Go. So a run's whole state is a
// few slices of float32, and the same seed gives the same bytes on any number of cores.
//
// While the engine computes, the images of the next batch travel to it, and the gradients of the batch
// before are summed, as far as no optimizer step lies between. docs/benchmarks.md says what else a step
// could save, and which calls of GoMLX forbid it.
package train
