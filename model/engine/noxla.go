//go:build !cgo || !linux

package engine

import (
	"errors"

	"github.com/gomlx/compute"
)

const xlaLinked = false

func setTF32(compute.Backend, bool) {}

func newXLA(string, bool, int) (compute.Backend, error) { return nil, errors.ErrUnsupported }
