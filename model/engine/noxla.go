//go:build !cgo || !linux

package engine

import "github.com/gomlx/compute"

const xlaLinked = false

func setTF32(compute.Backend, bool) {}
