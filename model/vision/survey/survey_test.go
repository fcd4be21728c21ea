package survey_test

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model/vision"
	"github.com/hubtool/hubtool/model/vision/survey"
)

func flat(t *testing.T, w, h int, c color.NRGBA) []byte {
	t.Helper()
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		m.SetNRGBA(i%w, i/w, c)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// folder is two classes of five images; one image is damaged.
func folder(t *testing.T) *dataset.Dataset {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"train/cat/0.png": flat(t, 10, 20, color.NRGBA{255, 0, 0, 255}),
		"train/cat/1.png": flat(t, 30, 20, color.NRGBA{0, 0, 255, 255}),
		"train/cat/2.png": []byte("\x89PNG\r\n\x1a\nno more"),
		"train/dog/3.png": flat(t, 20, 10, color.NRGBA{255, 0, 0, 255}),
		"test/dog/4.png":  flat(t, 20, 10, color.NRGBA{0, 255, 0, 255}),
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d, err := dataset.Open(dir, dataset.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func rows(t *testing.T, d *dataset.Dataset, split string) *dataset.Rows {
	t.Helper()
	r, err := d.Select(split)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestList(t *testing.T) {
	o, err := survey.List(folder(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Splits) != 2 || o.Splits[0].Name != "train" || o.Splits[0].Rows != 4 || o.Splits[0].Bytes < 200 || o.Bytes != o.Splits[0].Bytes+o.Splits[1].Bytes {
		t.Errorf("splits %+v, %d bytes", o.Splits, o.Bytes)
	}
	if !slices.Equal(o.Classes, []string{"cat", "dog"}) || !slices.Equal(o.Configs, []string{"default"}) {
		t.Errorf("classes %q, configurations %q", o.Classes, o.Configs)
	}
	// Rows of one Parquet file count its bytes once.
	d, err := dataset.Open("../../../format/dataset/testdata/old", dataset.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	o, err = survey.List(d)
	info, statErr := os.Stat("../../../format/dataset/testdata/old/data/test-00000-of-00001.parquet")
	if err != nil || statErr != nil || o.Splits[len(o.Splits)-1].Bytes != info.Size() {
		t.Errorf("%+v, %v, %v", o, err, statErr)
	}
}

func TestMeasure(t *testing.T) {
	selected := rows(t, folder(t), "train")
	var want *survey.Stats
	for _, workers := range []int{0, 1, 3} {
		calls := 0
		s, err := survey.Measure(context.Background(), selected, survey.Options{Workers: workers, Progress: func(int, int) { calls++ }})
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = s
		}
		if !reflect.DeepEqual(s, want) || calls != 4 {
			t.Errorf("%d workers: %+v after %d calls, want %+v", workers, s, calls, want)
		}
	}
	if !slices.Equal(want.Classes, []survey.ClassCount{{Class: "cat", Rows: 3}, {Class: "dog", Rows: 1}}) || !slices.Equal(want.Formats, []survey.FormatCount{{Format: "PNG", Images: 3}}) {
		t.Errorf("classes %+v, formats %+v", want.Classes, want.Formats)
	}
	if want.Width != (survey.Range{Min: 10, Median: 20, Max: 30, Mean: 20}) || want.Height.Median != 20 {
		t.Errorf("width %+v, height %+v", want.Width, want.Height)
	}
	// 400 red and 600 blue pixels.
	for c, m := range [3]float64{0.4, 0, 0.6} {
		if math.Abs(want.Mean[c]-m) > 1e-12 || math.Abs(want.Std[c]-math.Sqrt(m*(1-m))) > 1e-12 {
			t.Errorf("channel %d: mean %v, deviation %v", c, want.Mean[c], want.Std[c])
		}
	}
	if len(want.Broken) != 1 || want.Broken[0].Image != "train/cat/2.png" || want.Broken[0].Row != 2 || !strings.Contains(want.Broken[0].Why, "PNG") {
		t.Errorf("broken %+v", want.Broken)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := survey.Measure(ctx, selected, survey.Options{}); err == nil {
		t.Error("a cancelled run gave statistics")
	}
}

func TestSheets(t *testing.T) {
	p, err := vision.ParsePipeline([]any{map[string]any{"RandomResizedCrop": 16}, "RandomHorizontalFlip", "ToTensor", "Normalize"}, vision.Defaults{Std: [3]float32{1, 1, 1}, Size: 16})
	if err != nil {
		t.Fatal(err)
	}
	selected := rows(t, folder(t), "train+test")
	samples, err := survey.Draw(context.Background(), selected, p, 7, survey.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(samples) != 5 || samples[2].Image != nil || samples[2].Broken == nil || samples[4].Class != "dog" {
		t.Fatalf("samples %+v", samples)
	}
	row, err := selected.At(3)
	if err != nil {
		t.Fatal(err)
	}
	want, err := p.Load(row.Image, vision.Rand(7, 0, 3))
	if err != nil || !bytes.Equal(want.Pix, samples[3].Image.Pix) {
		t.Errorf("sample 3 is not what training makes of it (%v)", err)
	}

	var sheet bytes.Buffer
	if err := survey.WritePNG(&sheet, samples); err != nil {
		t.Fatal(err)
	}
	m, err := png.Decode(&sheet)
	if err != nil {
		t.Fatal(err)
	}
	// Three columns of the narrowest tiles; the first sample is red, the third grey.
	if m.Bounds().Dx() != 8+3*(96+8) {
		t.Errorf("the sheet is %v", m.Bounds())
	}
	for x, c := range map[int]color.RGBA{8 + 3: {255, 0, 0, 255}, 8 + 2*104 + 3: {200, 200, 200, 255}} {
		if got := color.RGBAModel.Convert(m.At(x, 11)); got != c {
			t.Errorf("at %d the sheet is %v, want %v", x, got, c)
		}
	}
	if err := survey.WritePNG(&sheet, make([]survey.Sample, survey.MaxSheet+1)); err == nil {
		t.Error("a sheet of any size was drawn")
	}

	var page strings.Builder
	samples[0].Class = "<cat>"
	if err := survey.WriteHTML(&page, "a & b", samples); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a &amp; b", "&lt;cat&gt;", "damaged: ", "data:image/png;base64,", "row 2 of "} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Count(page.String(), "<img") != 4 {
		t.Error("the page has not four images")
	}
}
