// Package train trains an adapter on a frozen classifier.
//
// [Run] is the loop, top to bottom. The engine computes losses and gradients; the optimizer, whose
// work is small because adapters are small, runs on the host in plain Go. So a run's whole state is a
// few slices of float32, and the same seed gives the same bytes on any number of cores.
package train
