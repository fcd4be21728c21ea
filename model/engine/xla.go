//go:build cgo && linux

package engine

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/compute/xla" // without .../autoinstall: nothing is fetched
)

const xlaLinked = true

// setTF32 sets what the option tf32 of a plugin's name sets.
func setTF32(b compute.Backend, on bool) { b.(*xla.Backend).DotGeneralUseTF32 = on }
