package model

import (
	"testing"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/engine"
)

// A load that shares has the other's tensors, not copies of them, and a head of its own.
func TestLoadShares(t *testing.T) {
	const dir = "../testdata/golden/bases/vit"
	e, err := engine.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	ck, err := format.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	cfg, err := format.ReadModelConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	load := func(labels int, share *Weights) *Weights {
		m, err := New(cfg, labels)
		if err != nil {
			t.Fatal(err)
		}
		w, _, err := Load(e.Backend, ck, m, LoadOptions{ReplaceHead: true, InitStd: 0.02, Share: share})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	first := load(5, nil)
	second := load(3, first)
	if len(second.names) != len(first.names) {
		t.Fatalf("%d tensors, want %d", len(second.names), len(first.names))
	}
	for _, name := range first.names {
		head := name == "classifier.weight" || name == "classifier.bias"
		if same := first.tensors[name] == second.tensors[name]; same == head {
			t.Errorf("%s is shared: %v", name, same)
		}
	}
}
