// Package testdata embeds the small model and data set that "hubtool quickstart" trains on: tiny-vit
// (MIT) and digits (CC BY 4.0, UCI). Their README.md files name sources and licences.
package testdata

import "embed"

// Quickstart holds the model repository tiny-vit and the data-set repository digits.
//
//go:embed tiny-vit/README.md tiny-vit/*.json tiny-vit/model.safetensors
//go:embed digits/README.md digits/data
var Quickstart embed.FS
