package vision

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// twister is the Mersenne Twister MT19937, torch's generator, as a source of 32-bit words.
type twister struct {
	state [624]uint32
	next  int
}

func newTwister(seed uint32) *twister {
	t := &twister{next: 624}
	t.state[0] = seed
	for i := 1; i < len(t.state); i++ {
		t.state[i] = 1812433253*(t.state[i-1]^t.state[i-1]>>30) + uint32(i)
	}
	return t
}

// Uint64 gives the next word to those who ask for 32 bits.
func (t *twister) Uint64() uint64 {
	if t.next == 624 {
		for i := range t.state {
			y := t.state[i]&0x80000000 | t.state[(i+1)%624]&0x7fffffff
			t.state[i] = t.state[(i+397)%624] ^ y>>1 ^ y&1*0x9908b0df
		}
		t.next = 0
	}
	y := t.state[t.next]
	t.next++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return uint64(y^y>>18) << 32
}

// manualSeed is torch.manual_seed.
func manualSeed(seed int) *rand.Rand { return rand.New(newTwister(uint32(seed))) }

type transformGolden struct {
	Boxes     [][]any
	Pipelines []struct {
		Spec []any
		Repr []string
		Runs [][4]any
	}
	Values []struct {
		Mean, Std [3]float32
		MD5       string
	}
	Magnitudes [4][][]float64 // of TrivialAugmentWide with 31 and 8 bins, of RandAugment likewise for 331 by 224 pixels
	Mixes      [][6]any       // name, width, height, images, λ, [share of the label, MD5]
	Processors [][4]any
}

func readTransforms(t *testing.T) (g transformGolden) {
	t.Helper()
	data, err := os.ReadFile("testdata/transforms.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Boxes) < 100 || len(g.Pipelines) < 20 || len(g.Values) == 0 {
		t.Fatal("transforms.json is not complete")
	}
	return g
}

// numbersOf flattens numbers out of decoded JSON.
func numbersOf(v any) (out []float64) {
	switch v := v.(type) {
	case float64:
		return []float64{v}
	case []any:
		for _, v := range v {
			out = append(out, numbersOf(v)...)
		}
	}
	return out
}

func TestCropBoxesAsTorchvision(t *testing.T) {
	for _, row := range readTransforms(t).Boxes {
		n := numbersOf(row[:5])
		crop := RandomResizedCrop{1, 1, [2]float64(n[3:5]), [2]float64(n[5:7]), Bilinear}
		rng := manualSeed(int(n[0]))
		for i, box := range row[5].([]any) {
			b := numbersOf(box)
			x, y := int(b[0]), int(b[1])
			want := image.Rect(x, y, x+int(b[2]), y+int(b[3]))
			if got, _, _, _ := crop.geometry(int(n[1]), int(n[2]), rng); got != want {
				t.Fatalf("%v: box %d is %v, want %v", row[:5], i, got, want)
			}
		}
	}
}

func TestPipelinesAsTorchvision(t *testing.T) {
	for _, c := range readTransforms(t).Pipelines {
		name, _ := json.Marshal(c.Spec)
		p, err := ParsePipeline(append(c.Spec, "ToTensor"), Defaults{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for i, step := range p.Steps {
			if step.String() != c.Repr[i] {
				t.Errorf("%s prints as %s, in Python as %s", name, step, c.Repr[i])
			}
		}
		for _, run := range c.Runs {
			seed, w, h := int(run[0].(float64)), int(run[1].(float64)), int(run[2].(float64))
			source := pattern(w, h)
			got, err := p.Apply(source, manualSeed(seed))
			if err != nil {
				if run[3] != "error" {
					t.Errorf("%s, %dx%d: %v", name, w, h, err)
				}
				continue
			}
			if digest(got) != run[3] {
				t.Errorf("%s, %dx%d, seed %d: got %s, want %s", name, w, h, seed, digest(got), run[3])
			}
			step := source
			rng := manualSeed(seed)
			for _, t := range p.Steps {
				step = t.Apply(step, rng)
			}
			if digest(step) != run[3] {
				t.Errorf("%s, %dx%d, seed %d: step by step %s, want %s", name, w, h, seed, digest(step), run[3])
			}
			if digest(source) != digest(pattern(w, h)) {
				t.Fatalf("%s changed its input", name)
			}
			if ow, oh, ok := p.OutputSize(); ok && (ow != got.Width || oh != got.Height) {
				t.Errorf("%s: output size %dx%d, but made %s", name, ow, oh, digest(got))
			}
		}
	}
}

// TestMagnitudesAsTorchvision compares every magnitude that an operation may be drawn with.
func TestMagnitudesAsTorchvision(t *testing.T) {
	for space, want := range readTransforms(t).Magnitudes {
		bins := []int{31, 8}[space%2]
		var got [][]float64
		for _, o := range operations {
			if o.wide == nil {
				continue
			}
			list := make([]float64, bins)
			for i := range list {
				if list[i] = o.wide(bins, i); space >= 2 {
					list[i] = o.random(bins, i, 331, 224)
				}
			}
			got = append(got, list)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d bins: %v, want %v", bins, got, want)
		}
	}
}

func TestValuesAsTorchvision(t *testing.T) {
	for _, v := range readTransforms(t).Values {
		p := Pipeline{Mean: v.Mean, Std: v.Std}
		var b bytes.Buffer
		if err := binary.Write(&b, binary.LittleEndian, p.Values()); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", md5.Sum(b.Bytes())); got != v.MD5 {
			t.Errorf("mean %v, std %v: got %s, want %s", v.Mean, v.Std, got, v.MD5)
		}
	}
}

func TestProcessorsAsTransformers(t *testing.T) {
	half := [3]float32{0.5, 0.5, 0.5}
	imagenet := &Pipeline{Mean: [3]float32{0.485, 0.456, 0.406}, Std: [3]float32{0.229, 0.224, 0.225}}
	pipelines := []*Pipeline{
		Processor(224, 224, Bilinear, half, half),
		Processor(25, 18, Bicubic, imagenet.Mean, imagenet.Std),
		{Steps: []Transform{ResizeTo{Height: 26, Filter: Bilinear}, ProcessorCrop{21, 24}}, Mean: half, Std: half},
		{Steps: []Transform{ResizeTo{Height: 20, Filter: Bilinear}, ProcessorCrop{31, 26}}, Mean: half, Std: half},
	}
	rows := readTransforms(t).Processors
	for i, row := range rows {
		p := pipelines[i*len(pipelines)/len(rows)]
		m, err := p.Apply(pattern(int(row[1].(float64)), int(row[2].(float64))), nil)
		if err != nil {
			t.Fatal(err)
		}
		values := p.Values()
		var b bytes.Buffer
		for c := range 3 {
			for j := c; j < len(m.Pix); j += 3 {
				if err := binary.Write(&b, binary.LittleEndian, values[c][m.Pix[j]]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := fmt.Sprintf("%dx%d %x", m.Width, m.Height, md5.Sum(b.Bytes())); got != row[3] {
			t.Errorf("%v of %vx%v: got %s, want %s", row[0], row[1], row[2], got, row[3])
		}
	}
}

// TestWorkers checks that samples do not depend on who prepares them, and in which order.
func TestWorkers(t *testing.T) {
	data := sceneJPEG(t, 120, 90, 85)
	p, err := ParsePipeline([]any{map[string]any{"RandomResizedCrop": 32}, "RandomHorizontalFlip",
		map[string]any{"ColorJitter": 0.3}, "ToTensor"}, Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	const samples = 40
	prepare := func(workers int) []string {
		out := make([]string, samples)
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := samples - 1 - w; i >= 0; i -= workers {
					if m, err := p.Load(data, Rand(7, 3, i)); err != nil {
						t.Error(err)
					} else {
						out[i] = digest(m)
					}
				}
			})
		}
		wg.Wait()
		return out
	}
	want := prepare(1)
	for _, workers := range []int{2, 7} {
		if got := prepare(workers); !slices.Equal(got, want) {
			t.Errorf("%d workers make other samples than one", workers)
		}
	}
}

// TestLoad checks that decoding only what the steps need changes nothing.
func TestLoad(t *testing.T) {
	files, _ := golden(t)
	pipelines := []*Pipeline{
		{},
		{Steps: []Transform{RandomHorizontalFlip{0.5}}},
		{Steps: []Transform{RandomResizedCrop{9, 12, [2]float64{0.08, 1}, [2]float64{3. / 4, 4. / 3}, Bicubic}, RandomHorizontalFlip{0.5}}},
		{Steps: []Transform{RandomResizedCrop{9, 12, [2]float64{0.01, 0.1}, [2]float64{3. / 4, 4. / 3}, Nearest}}},
		{Steps: []Transform{ResizeTo{Height: 14, Filter: Bilinear}, CenterCrop{10, 10}}},
		{Steps: []Transform{ResizeTo{Height: 15, Filter: Bilinear}, ProcessorCrop{12, 9}, RandomVerticalFlip{0.5}}},
		{Steps: []Transform{ResizeTo{Height: 40, Width: 40, Filter: Bilinear}, CenterCrop{8, 30}}},
	}
	for name, data := range files {
		if strings.HasPrefix(name, "png/zTXt-6") {
			continue // megabytes of text each time
		}
		for i, p := range pipelines {
			for seed := range 4 {
				got, loadErr := p.Load(data, Rand(1, i, seed))
				m, err := Decode(data)
				if err == nil {
					m, err = p.Apply(m, Rand(1, i, seed))
				}
				if (err == nil) != (loadErr == nil) {
					t.Fatalf("%s, pipeline %d: Load says %v, Decode and Apply %v", name, i, loadErr, err)
				}
				if err == nil && digest(got) != digest(m) {
					t.Fatalf("%s, pipeline %d, seed %d: Load gives %s, Decode and Apply %s", name, i, seed, digest(got), digest(m))
				}
			}
		}
	}
}

func TestRandDependsOnAll(t *testing.T) {
	first := Rand(1, 2, 3).Uint64()
	if Rand(1, 2, 3).Uint64() != first {
		t.Error("the same numbers give another generator")
	}
	for _, other := range []*rand.Rand{Rand(2, 2, 3), Rand(1, 3, 3), Rand(1, 2, 4), Rand(2, 1, 3), Rand(1<<40+1, 2, 3)} {
		if other.Uint64() == first {
			t.Error("other numbers give the same generator")
		}
	}
}

func TestParsePipelineErrors(t *testing.T) {
	for _, c := range []struct {
		step any
		want string
	}{
		{map[string]any{"RandomResizeCrop": 224}, `unknown name, did you mean "RandomResizedCrop"?`},
		{map[string]any{"Resize": map[string]any{"size": 8, "colour": 1}}, `unknown argument "colour"`},
		{map[string]any{"Resize": "big"}, "size is big"},
		{map[string]any{"Resize": 0}, "size is 0"},
		{map[string]any{"Resize": []any{1, 2, 3}}, "1 or 2 of them"},
		{map[string]any{"Resize": 1.5}, "size is 1.5"},
		{map[string]any{"Resize": map[string]any{"size": 8, "max_size": 8}}, "max_size is 8"},
		{map[string]any{"Resize": map[string]any{"size": 8, "interpolation": "blurry"}}, `unknown filter "blurry"`},
		{map[string]any{"Resize": map[string]any{"size": 8, "antialias": false}}, "antialias is false"},
		{"CenterCrop", "size is missing"},
		{map[string]any{"RandomHorizontalFlip": 2}, "p is 2"},
		{map[string]any{"RandomResizedCrop": map[string]any{"size": 8, "scale": []any{0.5, 0.1}}}, "scale is [0.5 0.1]"},
		{map[string]any{"ColorJitter": map[string]any{"hue": 0.6}}, "hue is 0.6"},
		{map[string]any{"ColorJitter": -1}, "brightness is -1"},
		{map[string]any{"Grayscale": 1}, "must be 3"},
		{"RandomRotation", "degrees is <nil>"},
		{map[string]any{"RandomRotation": map[string]any{"degrees": 5, "interpolation": "box"}}, "nearest, bilinear or bicubic"},
		{map[string]any{"RandomRotation": map[string]any{"degrees": 5, "center": 1}}, "center is 1"},
		{map[string]any{"RandomRotation": map[string]any{"degrees": 5, "expand": 1}}, "expand is 1"},
		{map[string]any{"TrivialAugmentWide": 1}, "num_magnitude_bins is 1"},
		{map[string]any{"TrivialAugmentWide": map[string]any{"interpolation": "lanczos"}}, "nearest, bilinear or bicubic"},
		{map[string]any{"RandAugment": map[string]any{"magnitude": 31}}, "magnitude is 31"},
		{map[string]any{"RandAugment": map[string]any{"num_ops": 1.5}}, "num_ops is 1.5"},
		{"Pad", "padding is missing"},
		{map[string]any{"Pad": []any{1, 2, 3}}, "padding is [1 2 3]"},
		{map[string]any{"Pad": map[string]any{"padding": 1, "fill": 300}}, "fill is 300"},
		{map[string]any{"Pad": map[string]any{"padding": 1, "padding_mode": "edge"}}, "only constant"},
		{map[string]any{"ToTensor": 1}, "takes no arguments"},
		{"Normalize", "put ToTensor in front"},
		{map[string]any{"MixUp": 0.2}, "move it behind ToTensor"},
		{7, "want a name"},
		{map[string]any{"Resize": 1, "Pad": 1}, "found 2"},
	} {
		if _, err := ParsePipeline([]any{c.step, "ToTensor"}, Defaults{Std: [3]float32{1, 1, 1}}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want %q", c.step, err, c.want)
		}
	}
	for _, spec := range []any{nil, "Resize", []any{}, []any{map[string]any{"Resize": 9}}} {
		if _, err := ParsePipeline(spec, Defaults{}); err == nil {
			t.Errorf("%v: no error", spec)
		}
	}
}

func TestParsePipelineReportsAll(t *testing.T) {
	normalize := map[string]any{"Normalize": map[string]any{"mean": []any{0.5, 0.4}, "std": []any{1, 0, 1}}}
	_, err := ParsePipeline([]any{"Rezise", 7, "ToTensor", "Grayscale", normalize, "Normalize"}, Defaults{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`reading transform 1, Rezise: unknown name, did you mean "Resize"?`, "transform 2: want a name",
		"transform 4, Grayscale: only Normalize, MixUp and CutMix may follow ToTensor", "mean is [0.5 0.4]", "must not contain 0", "there are two of it",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
}

func TestParseMixers(t *testing.T) {
	mix := map[string]any{"MixUp": map[string]any{"alpha": 0.2}}
	p, err := ParsePipeline([]any{map[string]any{"Resize": 8}, "ToTensor", "Normalize", mix, "CutMix"}, Defaults{Std: [3]float32{1, 1, 1}})
	if err != nil || !reflect.DeepEqual(p.Mixers, []Mixer{MixUp{0.2}, CutMix{1}}) {
		t.Errorf("%v, %v", p, err)
	}
	if text := p.String(); !strings.HasSuffix(text, ")\n    MixUp(alpha=0.2)\n    CutMix(alpha=1.0)\n)") {
		t.Error(text)
	}
	for _, c := range []struct {
		steps []any
		want  string
	}{
		{[]any{"ToTensor", mix, "Normalize"}, "only MixUp or CutMix may follow MixUp(alpha=0.2)"},
		{[]any{"ToTensor", map[string]any{"CutMix": 0}}, "alpha is 0, but must be a positive number"},
		{[]any{"ToTensor", map[string]any{"CutMix": map[string]any{"num_classes": 3}}}, `unknown argument "num_classes"`},
	} {
		if _, err := ParsePipeline(c.steps, Defaults{Std: [3]float32{1, 1, 1}}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want %q", c.steps, err, c.want)
		}
	}
}

func ExampleParsePipeline() {
	spec := []any{map[string]any{"RandomResizedCrop": 224}, "RandomHorizontalFlip", "ToTensor", "Normalize"}
	half := [3]float32{0.5, 0.5, 0.5}
	p, err := ParsePipeline(spec, Defaults{Mean: half, Std: half})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p)
	fmt.Println(p.OutputSize())
	// Output:
	// Compose(
	//     RandomResizedCrop(size=(224, 224), scale=(0.08, 1.0), ratio=(0.75, 1.3333), interpolation=bilinear, antialias=True)
	//     RandomHorizontalFlip(p=0.5)
	//     ToTensor()
	//     Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
	// )
	// 224 224 true
}

func TestParsePipelineDefaults(t *testing.T) {
	d := Defaults{Mean: [3]float32{.1, .2, .3}, Std: [3]float32{.4, .5, .6}, Size: 30}
	p, err := ParsePipeline([]any{"Resize", "CenterCrop", "ToTensor", "Normalize"}, d)
	if err != nil {
		t.Fatal(err)
	}
	want := &Pipeline{Steps: []Transform{ResizeTo{30, 0, 0, Bilinear}, CenterCrop{30, 30}}, Mean: d.Mean, Std: d.Std}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("got %v, want %v", p, want)
	}
	p, err = ParsePipeline([]any{"ToTensor"}, d)
	if err != nil || p.Std != [3]float32{1, 1, 1} || p.Mean != [3]float32{} {
		t.Errorf("without Normalize: %v, %v", p, err)
	}
}

func TestApplyRefuses(t *testing.T) {
	for _, c := range []struct {
		step Transform
		w, h int
		want string
	}{
		{RandomCrop{Height: 5, Width: 5}, 4, 9, "too few"},
		{ResizeTo{Height: 32768, Filter: Bilinear}, 1, 1000, "above the limit"},
		{ResizeTo{Height: 2, MaxSize: 2, Filter: Bilinear}, 1, 1000, "0 by"},
		{Pad{Left: 30000, Top: 30000}, 1, 1, "above the limit"},
	} {
		p := Pipeline{Steps: []Transform{RandomHorizontalFlip{}, c.step}}
		if _, err := p.Apply(NewImage(c.w, c.h), Rand(0, 0, 0)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v of %dx%d: %v", c.step, c.w, c.h, err)
		}
		p.Steps = p.Steps[1:]
		if _, err := p.Apply(NewImage(c.w, c.h), Rand(0, 0, 0)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v of %dx%d alone: %v", c.step, c.w, c.h, err)
		}
	}
	for _, m := range []*Image{nil, {}, {Width: 2, Height: 2, Pix: make([]uint8, 11)}} {
		if _, err := new(Pipeline).Apply(m, nil); err == nil {
			t.Errorf("%v was accepted", m)
		}
	}
}
