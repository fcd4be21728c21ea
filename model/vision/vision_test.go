package vision

import "testing"

func TestParsePipeline(t *testing.T) {
	spec := []any{map[string]any{"RandomResizedCrop": 224}, "RandomHorizontalFlip", "ToTensor", "Normalize"}
	p, err := ParsePipeline(spec, Defaults{Mean: [3]float32{.5, .5, .5}, Std: [3]float32{.5, .5, .5}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Apply(NewImage(300, 200), Rand(1, 2, 3))
	if err != nil || out.Width != 224 || out.Height != 224 {
		t.Fatal(out, err)
	}
}
