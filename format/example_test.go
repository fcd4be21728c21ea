package format_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/hubtool/hubtool/format"
)

// Opening a checkpoint reads its headers; data is read tensor by tensor.
func ExampleOpen() {
	ck, err := format.Open("testdata/written/sharded") // a folder, an index or a file
	if err != nil {
		log.Fatal(err)
	}
	defer ck.Close()
	for _, s := range ck.Shards() {
		fmt.Println(s.Name, len(s.Header.Entries()), "tensors")
	}
	w, _ := ck.Tensor("classifier.bias")
	values, err := format.Floats(w)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(w.Info().DType, w.Info().Shape, len(values))
	// Output:
	// model-00001-of-00002.safetensors 21 tensors
	// model-00002-of-00002.safetensors 19 tensors
	// F32 [12] 12
}

// Tensors of an open checkpoint can be written without holding them in memory.
func ExampleWrite() {
	ck, err := format.Open("testdata/written/sharded")
	if err != nil {
		log.Fatal(err)
	}
	defer ck.Close()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	out := filepath.Join(dir, "model.safetensors")
	tensors := []format.Tensor{format.FloatTensor("scale", nil, []float32{0.5})}
	for t := range ck.Tensors() {
		if t.Info().Name != "classifier.weight" {
			tensors = append(tensors, t)
		}
	}
	if err := format.Write(context.Background(), out, tensors, map[string]string{"format": "pt"}); err != nil {
		log.Fatal(err)
	}
	info, _ := os.Stat(out)
	fmt.Println(len(tensors), "tensors in", info.Size(), "bytes")
	// Output: 40 tensors in 10732 bytes
}

// A method reads its own fields from the configuration it shares with others.
func ExampleAdapterConfig_Method() {
	c, err := format.ParseAdapterConfig([]byte(`{"peft_type": "LORA", "r": 16, "target_modules": ["query", "value"]}`))
	if err != nil {
		log.Fatal(err)
	}
	lora := struct {
		R     int           `json:"r"`
		Alpha format.Number `json:"lora_alpha"`
	}{R: 8, Alpha: 8} // PEFT's defaults
	if err := c.Method(&lora); err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.PeftType, c.TargetModules.Names, lora.R, lora.Alpha)

	c, err = format.ParseAdapterConfig([]byte(`{"peft_type": "LORA", "r": 16.0}`))
	fmt.Println(c.Method(&lora), err)
	// Output:
	// LORA [query value] 16 8
	// field "r": expected an integer, found 16.0 <nil>
}

// Every spelling of a module leads to one name, and back to each of them.
func ExampleCanonical() {
	name := format.Canonical("vit", "layers.0.attention.q_proj.lora_A.weight")
	fmt.Println(name)
	fmt.Println(format.Spell("vit", name, format.Transformers5))
	// Output:
	// vit.encoder.layer.0.attention.attention.query.lora_A.weight
	// vit.layers.0.attention.q_proj.lora_A.weight
}

// Kinds of failure are told apart with errors.Is.
func ExampleError() {
	_, err := format.Open("testdata/hostile/overlap.safetensors")
	fmt.Println(err)
	fmt.Println(errors.Is(err, format.ErrDamaged))
	// Output:
	// reading header of "testdata/hostile/overlap.safetensors": tensor "b": data at [1, 3) overlaps the tensor before it, which ends at 2
	// true
}
