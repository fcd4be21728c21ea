package main

import (
	"cmp"
	"os"

	"github.com/hubtool/hubtool/model/engine"
)

// openEngine opens the engine that --engine, $HUBTOOL_ENGINE or $GOMLX_BACKEND names, and says
// which one it is.
func (e *env) openEngine() (*engine.Engine, error) {
	eng, err := engine.Open(cmp.Or(e.engine, os.Getenv("HUBTOOL_ENGINE"), os.Getenv("GOMLX_BACKEND")))
	if err != nil {
		return nil, err
	}
	e.note("computing on %s: %s", eng, eng.Why)
	return eng, nil
}
