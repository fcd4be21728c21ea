package vision

import (
	"bytes"
	"image"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/image/draw"
)

// scene returns a picture with smooth areas, edges and noise, like a photograph to a codec.
func scene(w, h int) *Image {
	rng := rand.New(rand.NewPCG(1, 2))
	m := NewImage(w, h)
	for y := range h {
		row := m.row(y)
		for x := range w {
			fx, fy := float64(x), float64(y)
			v := 120 + 60*math.Sin(fx/37+fy/61) + 40*math.Cos(fy/23-fx/71)
			if int(fx+2*fy)/90%2 == 0 {
				v += 45
			}
			v += rng.NormFloat64() * 9
			for c := range 3 {
				row[3*x+c] = uint8(min(max(v+30*math.Sin(float64(c)+fx/50), 0), 255))
			}
		}
	}
	return m
}

func sceneJPEG(t testing.TB, w, h, quality int) []byte {
	t.Helper()
	m := scene(w, h)
	rgba := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		copy(rgba.Pix[4*i:], m.Pix[3*i:3*i+3])
		rgba.Pix[4*i+3] = 255
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, rgba, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// compare runs own and baseline in turns and reports only how many times faster own is, because
// times from different machines, or from different hours, say nothing.
func compare(b *testing.B, name string, own, baseline func(i int)) {
	var ownTime, baselineTime time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		own(i)
		middle := time.Now()
		baseline(i)
		ownTime += middle.Sub(start)
		baselineTime += time.Since(middle)
	}
	b.ReportMetric(0, "ns/op") // leaves the time out
	b.ReportMetric(float64(baselineTime)/float64(ownTime), "x-"+name)
}

func must[T any](b *testing.B) func(T, error) T {
	return func(v T, err error) T {
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
}

// BenchmarkTrainSample decodes, crops at random, resizes and mirrors. The baseline does not round as
// Pillow does.
func BenchmarkTrainSample(b *testing.B) {
	data := sceneJPEG(b, 512, 384, 90)
	crop := RandomResizedCrop{224, 224, [2]float64{0.08, 1}, [2]float64{3. / 4, 4. / 3}, Bilinear}
	p := &Pipeline{Steps: []Transform{crop, RandomHorizontalFlip{0.5}}}
	compare(b, "image/jpeg+x/image/draw", func(i int) {
		must[*Image](b)(p.Load(data, Rand(1, 0, i)))
	}, func(i int) {
		m := must[image.Image](b)(jpeg.Decode(bytes.NewReader(data)))
		from, _, _, _ := crop.geometry(512, 384, Rand(1, 0, i))
		out := image.NewRGBA(image.Rect(0, 0, 224, 224))
		draw.BiLinear.Scale(out, out.Rect, m, from, draw.Src, nil)
	})
}

// BenchmarkEvalSample decodes, resizes and cuts the middle out.
func BenchmarkEvalSample(b *testing.B) {
	data := sceneJPEG(b, 512, 384, 90)
	p := &Pipeline{Steps: []Transform{ResizeTo{Height: 224, Filter: Bilinear}, CenterCrop{224, 224}}}
	compare(b, "image/jpeg+x/image/draw", func(int) {
		must[*Image](b)(p.Load(data, nil))
	}, func(int) {
		m := must[image.Image](b)(jpeg.Decode(bytes.NewReader(data)))
		out := image.NewRGBA(image.Rect(0, 0, 298, 224))
		draw.BiLinear.Scale(out, out.Rect, m, m.Bounds(), draw.Src, nil)
	})
}

func BenchmarkDecodeJPEG(b *testing.B) {
	data := sceneJPEG(b, 512, 384, 90)
	compare(b, "image/jpeg", func(int) {
		must[*Image](b)(Decode(data))
	}, func(int) {
		m := must[image.Image](b)(jpeg.Decode(bytes.NewReader(data)))
		out := image.NewRGBA(m.Bounds())
		draw.Draw(out, out.Rect, m, image.Point{}, draw.Src)
	})
}

func BenchmarkResize(b *testing.B) {
	m := scene(512, 384)
	rgba := image.NewRGBA(image.Rect(0, 0, 512, 384))
	for filter, baseline := range map[Filter]draw.Scaler{Bilinear: draw.BiLinear, Bicubic: draw.CatmullRom} {
		b.Run(filter.String(), func(b *testing.B) {
			compare(b, "x/image/draw", func(int) {
				Resize(m, 224, 224, filter)
			}, func(int) {
				out := image.NewRGBA(image.Rect(0, 0, 224, 224))
				baseline.Scale(out, out.Rect, rgba, rgba.Rect, draw.Src, nil)
			})
		})
	}
}
