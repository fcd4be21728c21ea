//go:build cgo && linux

package engine

import _ "github.com/gomlx/go-xla/compute/xla" // without .../autoinstall: nothing is fetched

const xlaLinked = true
