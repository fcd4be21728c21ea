// Package model holds image classifiers as graphs: which parameters they have, how checkpoints load
// into them, and how logits follow from images.
//
// Parameters keep the names and the [out, in] layout of the Hub's checkpoints all the way through.
// Adapters take part through [Hook]; the package knows nothing else of them.
package model
