// Package format reads and writes the files of a Hugging Face model repository
// and of a PEFT adapter: safetensors checkpoints (one file or many shards),
// adapter_config.json, config.json and preprocessor_config.json.
//
// It works on headers and bytes and knows no mathematics: which methods exist,
// and what a tensor means, is the business of the packages above it.
//
// # Safetensors
//
// [Open] reads headers only; the data of a tensor is read when [Tensor.Bytes]
// asks for it, so a checkpoint of any size costs a few hundred kilobytes to
// look at; [OpenFolder] does the same for files on a server. [Write] streams tensors into a file one at a time and lays the
// header out as the reference implementation in Rust does, so that a file with
// at most one metadata key is byte for byte what Python writes.
//
// Headers are refused when two readers could understand them differently:
// duplicate names or fields, invalid UTF-8, ranges that overlap or leave holes,
// sizes that disagree with shapes, anything before the opening brace or other
// than spaces after the closing one. [Limits] bound what a hostile header can
// cost.
//
// # Configurations
//
// The configuration types keep every field of the file they were read from,
// known or not, and write the text that PEFT and transformers would write.
//
// # Errors
//
// Errors about a file are of type [*Error] and match [ErrDamaged],
// [ErrUnsupported], [ErrConfig] or an error of package os with [errors.Is].
package format
