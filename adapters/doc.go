// Package adapters reads, writes, trains and merges parameter-efficient adapters in PEFT's layout.
//
// A method (LoRA, LoHa, ...) is one file with one formula: [Method.Weight] maps a module's weight W
// [out, in] to the adapted weight of the same shape. Training, prediction and the check of merges
// all use it. With the scale s = alpha/r, or alpha/√r for rank-stabilised LoRA:
//
//	LoRA   W + s·B·A    A [r, in], B [out, r]    Hu et al. 2021, "LoRA: Low-Rank Adaptation of
//	                                             Large Language Models"
//
// An [Adapter] is a method applied to the modules that a config targets, with its parameters. The
// package does not know models: it is told a base's modules and tensors in [Base].
package adapters
