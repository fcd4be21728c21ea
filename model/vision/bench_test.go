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

// BenchmarkTrainSample measures what a training sample costs, decoding, random crop, resizing and
// flip, against image/jpeg and x/image/draw doing the same (and less exactly) in the same run.
func BenchmarkTrainSample(b *testing.B) {
	data := sceneJPEG(b, 512, 384, 90)
	p := &Pipeline{Steps: []Transform{
		RandomResizedCrop{224, 224, [2]float64{0.08, 1}, [2]float64{3. / 4, 4. / 3}, Bilinear},
		RandomHorizontalFlip{0.5},
	}}
	baseline := func(rng *rand.Rand) {
		m, err := jpeg.Decode(bytes.NewReader(data))
		if err != nil {
			b.Fatal(err)
		}
		crop := p.Steps[0].(RandomResizedCrop)
		from, _, _, _ := crop.geometry(512, 384, rng)
		out := image.NewRGBA(image.Rect(0, 0, 224, 224))
		draw.BiLinear.Scale(out, out.Rect, m, from, draw.Src, nil)
	}
	var own, other time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		if _, err := p.Load(data, Rand(1, 0, i)); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		baseline(Rand(1, 0, i))
		own += middle.Sub(start)
		other += time.Since(middle)
	}
	b.ReportMetric(float64(other)/float64(own), "x-image/jpeg+x/image/draw")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkDecodeJPEG(b *testing.B) {
	data := sceneJPEG(b, 512, 384, 90)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResize(b *testing.B) {
	m := scene(512, 384)
	for _, f := range []Filter{Bilinear, Bicubic, Lanczos} {
		b.Run(f.String(), func(b *testing.B) {
			for b.Loop() {
				Resize(m, 224, 224, f)
			}
		})
	}
}
