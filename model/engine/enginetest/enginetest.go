// Package enginetest runs tests on every engine at hand.
package enginetest

import (
	"os"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/model/engine"
)

// Each runs a test on the Go engine, and on XLA where HUBTOOL_TEST_XLA names a plugin.
func Each(t *testing.T, test func(t *testing.T, e *engine.Engine)) {
	t.Helper()
	specs := []string{"go"}
	if plugin := os.Getenv("HUBTOOL_TEST_XLA"); plugin != "" {
		specs = append(specs, "xla:"+plugin)
	}
	for _, spec := range specs {
		e, err := engine.Open(spec)
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(spec, ":")
		t.Run(name, func(t *testing.T) { test(t, e) })
	}
}
