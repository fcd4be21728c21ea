package vision

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Transform is one step on an image, a port of the torchvision class of the same name for PIL
// images. Apply never changes its argument; it may return it. String gives torchvision's repr.
type Transform interface {
	Apply(img *Image, rng *rand.Rand) *Image
	String() string
}

// RandomResizedCrop cuts a random box out of the image and resizes it to Height by Width.
type RandomResizedCrop struct {
	Height, Width int
	Scale         [2]float64 // share of the area, lowest and highest
	Ratio         [2]float64 // width / height, lowest and highest
	Filter        Filter
}

// Apply implements [Transform].
func (t RandomResizedCrop) Apply(img *Image, rng *rand.Rand) *Image {
	x, y, w, h := t.box(img.Width, img.Height, rng)
	return Resize(crop(img, x, y, w, h), t.Width, t.Height, t.Filter)
}

// box is RandomResizedCrop.get_params: ten tries, then the largest central box within Ratio.
func (t RandomResizedCrop) box(width, height int, rng *rand.Rand) (x, y, w, h int) {
	area := float64(width * height)
	low := float32(math.Log(float64(float32(t.Ratio[0]))))
	high := float32(math.Log(float64(float32(t.Ratio[1]))))
	for range 10 {
		target := area * float64(uniform(rng, float32(t.Scale[0]), float32(t.Scale[1])))
		ratio := float64(float32(math.Exp(float64(uniform(rng, low, high)))))
		w = int(math.RoundToEven(math.Sqrt(target * ratio)))
		h = int(math.RoundToEven(math.Sqrt(target / ratio)))
		if 0 < w && w <= width && 0 < h && h <= height {
			y = below(rng, height-h+1)
			x = below(rng, width-w+1)
			return x, y, w, h
		}
	}
	lowest, highest := min(t.Ratio[0], t.Ratio[1]), max(t.Ratio[0], t.Ratio[1])
	w, h = width, height
	if in := float64(width) / float64(height); in < lowest {
		h = int(math.RoundToEven(float64(w) / lowest))
	} else if in > highest {
		w = int(math.RoundToEven(float64(h) * highest))
	}
	return (width - w) / 2, (height - h) / 2, w, h
}

func (t RandomResizedCrop) String() string {
	return fmt.Sprintf("RandomResizedCrop(size=(%d, %d), scale=%s, ratio=%s, interpolation=%s, antialias=True)",
		t.Height, t.Width, pair(t.Scale), pair(t.Ratio), t.Filter)
}

// RandomHorizontalFlip mirrors left and right with probability P.
type RandomHorizontalFlip struct{ P float64 }

// Apply implements [Transform].
func (t RandomHorizontalFlip) Apply(img *Image, rng *rand.Rand) *Image {
	if float64(uniform(rng, 0, 1)) < t.P {
		return flipX(img)
	}
	return img
}

func (t RandomHorizontalFlip) String() string { return fmt.Sprintf("RandomHorizontalFlip(p=%v)", t.P) }

// RandomVerticalFlip mirrors top and bottom with probability P.
type RandomVerticalFlip struct{ P float64 }

// Apply implements [Transform].
func (t RandomVerticalFlip) Apply(img *Image, rng *rand.Rand) *Image {
	if float64(uniform(rng, 0, 1)) < t.P {
		return flipY(img)
	}
	return img
}

func (t RandomVerticalFlip) String() string { return fmt.Sprintf("RandomVerticalFlip(p=%v)", t.P) }

// ResizeTo resizes to Height by Width. With Width zero the shorter side becomes Height pixels and
// the longer one follows, truncated; MaxSize, unless zero, then bounds the longer one.
type ResizeTo struct {
	Height, Width int
	MaxSize       int
	Filter        Filter
}

// Apply implements [Transform].
func (t ResizeTo) Apply(img *Image, _ *rand.Rand) *Image {
	w, h := t.size(img.Width, img.Height)
	return Resize(img, w, h, t.Filter)
}

func (t ResizeTo) size(width, height int) (w, h int) {
	if t.Width > 0 {
		return t.Width, t.Height
	}
	short, long := min(width, height), max(width, height)
	if short <= 0 {
		return 0, 0
	}
	newShort, newLong := t.Height, t.Height*long/short
	if t.MaxSize > 0 && newLong > t.MaxSize {
		newShort, newLong = t.MaxSize*newShort/newLong, t.MaxSize
	}
	if width <= height {
		return newShort, newLong
	}
	return newLong, newShort
}

func (t ResizeTo) String() string {
	size, maxSize := fmt.Sprintf("(%d, %d)", t.Height, t.Width), "None"
	if t.Width == 0 {
		size = fmt.Sprint(t.Height)
	}
	if t.MaxSize > 0 {
		maxSize = fmt.Sprint(t.MaxSize)
	}
	return fmt.Sprintf("Resize(size=%s, interpolation=%s, max_size=%s, antialias=True)", size, t.Filter, maxSize)
}

// CenterCrop cuts Height by Width pixels out of the middle, after padding a smaller image with
// black.
type CenterCrop struct{ Height, Width int }

// Apply implements [Transform].
func (t CenterCrop) Apply(img *Image, _ *rand.Rand) *Image {
	return crop(img, centerOffset(img.Width, t.Width), centerOffset(img.Height, t.Height), t.Width, t.Height)
}

// centerOffset is where the crop begins. A side that is too short is padded by half the
// difference, rounded down, before it; the other side is then cut at the rounded (half to even)
// half of the difference.
func centerOffset(have, want int) int {
	if want > have {
		return -((want - have) / 2)
	}
	return int(math.RoundToEven(float64(have-want) / 2))
}

func (t CenterCrop) String() string {
	return fmt.Sprintf("CenterCrop(size=(%d, %d))", t.Height, t.Width)
}

// Pad adds a constant border.
type Pad struct {
	Left, Top, Right, Bottom int
	Fill                     [3]uint8
}

// Apply implements [Transform].
func (t Pad) Apply(img *Image, _ *rand.Rand) *Image {
	out := NewImage(img.Width+t.Left+t.Right, img.Height+t.Top+t.Bottom)
	for p := out.Pix; len(p) >= 3; p = p[3:] {
		copy(p, t.Fill[:])
	}
	for y := range img.Height {
		copy(out.row(y + t.Top)[3*t.Left:], img.row(y))
	}
	return out
}

func (t Pad) String() string {
	return fmt.Sprintf("Pad(padding=(%d, %d, %d, %d), fill=(%d, %d, %d), padding_mode=constant)",
		t.Left, t.Top, t.Right, t.Bottom, t.Fill[0], t.Fill[1], t.Fill[2])
}

func pair(v [2]float64) string {
	round := func(x float64) string {
		s := fmt.Sprint(math.RoundToEven(x*1e4) / 1e4)
		if x == math.Trunc(x) {
			s += ".0"
		}
		return s
	}
	return "(" + round(v[0]) + ", " + round(v[1]) + ")"
}
