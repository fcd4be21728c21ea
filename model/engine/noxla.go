//go:build !cgo || !linux

package engine

const xlaLinked = false
