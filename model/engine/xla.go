//go:build cgo && linux

package engine

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/compute/xla" // without .../autoinstall: nothing is fetched
	"github.com/gomlx/go-xla/pjrt"
)

const xlaLinked = true

// setTF32 sets what the option tf32 of a plugin's name sets.
func setTF32(b compute.Backend, on bool) { b.(*xla.Backend).DotGeneralUseTF32 = on }

// newXLA opens a plugin. One for the processor has four devices by default and at least as many threads,
// of which products wait for the last: on two cores, four threads make training 3 % slower.
func newXLA(plugin string, processor bool, devices int) (compute.Backend, error) {
	if processor {
		b, err := xla.NewWithOptions(plugin, pjrt.NamedValuesMap{"cpu_device_count": int64(devices)})
		if err == nil {
			return b, nil
		}
		// It may have no such option.
	}
	return xla.New(plugin)
}
