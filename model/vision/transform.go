package vision

import (
	"fmt"
	"image"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
)

// Transform is one step on an image, a port of the torchvision class of the same name for PIL
// images. Apply never changes its argument, but may return it. String is torchvision's repr.
type Transform interface {
	Apply(img *Image, rng *rand.Rand) *Image
	String() string
}

// A sizer knows the size it makes of an image; zeros stand for "depends on what is not known".
type sizer interface {
	outputSize(width, height int) (w, h int)
}

// A checker refuses images that it cannot transform.
type checker interface {
	check(width, height int) error
}

// A resizer cuts a box out of an image and resizes it, which a [Pipeline] can do together with
// decoding and with a crop that follows.
type resizer interface {
	geometry(width, height int, rng *rand.Rand) (from image.Rectangle, w, h int, f Filter)
}

// An inPlacer can also change the image itself, which a [Pipeline] allows once it has made its own.
type inPlacer interface {
	applyInPlace(img *Image, rng *rand.Rand)
}

// A cutter cuts a box of its output size out of the image, at an offset that is negative where it
// pads.
type cutter interface {
	sizer
	offset(width, height int) (x, y int)
}

// RandomResizedCrop cuts a random box out of the image and resizes it to Height by Width.
type RandomResizedCrop struct {
	Height, Width int
	Scale         [2]float64 // share of the area, lowest and highest
	Ratio         [2]float64 // width / height, lowest and highest
	Filter        Filter
}

// Apply implements [Transform].
func (t RandomResizedCrop) Apply(img *Image, rng *rand.Rand) *Image { return applyResizer(t, img, rng) }

func (t RandomResizedCrop) outputSize(int, int) (w, h int) { return t.Width, t.Height }

// geometry is RandomResizedCrop.get_params: ten tries, then the largest central box within Ratio.
func (t RandomResizedCrop) geometry(width, height int, rng *rand.Rand) (from image.Rectangle, w, h int, f Filter) {
	area := float64(width * height)
	low, high := logarithm(t.Ratio[0]), logarithm(t.Ratio[1])
	for range 10 {
		target := area * float64(uniform(rng, float32(t.Scale[0]), float32(t.Scale[1])))
		ratio := float64(float32(math.Exp(float64(uniform(rng, low, high)))))
		w, h := round(math.Sqrt(target*ratio)), round(math.Sqrt(target/ratio))
		if 0 < w && w <= width && 0 < h && h <= height {
			y := below(rng, height-h+1)
			x := below(rng, width-w+1)
			return image.Rect(x, y, x+w, y+h), t.Width, t.Height, t.Filter
		}
	}
	lowest, highest := min(t.Ratio[0], t.Ratio[1]), max(t.Ratio[0], t.Ratio[1])
	w, h = width, height
	if in := float64(width) / float64(height); in < lowest {
		h = max(round(float64(w)/lowest), 1)
	} else if in > highest {
		w = max(round(float64(h)*highest), 1)
	}
	x, y := (width-w)/2, (height-h)/2
	return image.Rect(x, y, x+w, y+h), t.Width, t.Height, t.Filter
}

// logarithm is torch.log of a single-precision number.
func logarithm(x float64) float32 { return float32(math.Log(float64(float32(x)))) }

// round is Python's round: half to even.
func round(x float64) int { return int(math.RoundToEven(x)) }

func (t RandomResizedCrop) String() string {
	return fmt.Sprintf("RandomResizedCrop(size=(%d, %d), scale=%s, ratio=%s, interpolation=%s, antialias=True)",
		t.Height, t.Width, rounded(t.Scale), rounded(t.Ratio), t.Filter)
}

// ResizeTo is torchvision's Resize: to Height by Width or, with Width zero, so that the shorter
// side has Height pixels and the longer one follows; MaxSize, unless zero, then bounds that one.
type ResizeTo struct {
	Height, Width int
	MaxSize       int
	Filter        Filter
}

// Apply implements [Transform].
func (t ResizeTo) Apply(img *Image, rng *rand.Rand) *Image { return applyResizer(t, img, rng) }

func (t ResizeTo) outputSize(width, height int) (w, h int) {
	if t.Width > 0 {
		return t.Width, t.Height
	}
	short, long := min(width, height), max(width, height)
	if short <= 0 {
		return 0, 0
	}
	// torchvision truncates the quotient of two floats, which is a whole number where this is.
	newShort, newLong := t.Height, int(float64(t.Height*long)/float64(short))
	if t.MaxSize > 0 && newLong > t.MaxSize {
		newShort, newLong = int(float64(t.MaxSize*newShort)/float64(newLong)), t.MaxSize
	}
	if width <= height {
		return newShort, newLong
	}
	return newLong, newShort
}

func (t ResizeTo) geometry(width, height int, _ *rand.Rand) (from image.Rectangle, w, h int, f Filter) {
	w, h = t.outputSize(width, height)
	return image.Rect(0, 0, width, height), w, h, t.Filter
}

func (t ResizeTo) check(width, height int) error { return checkSize(t.outputSize(width, height)) }

func (t ResizeTo) String() string {
	size, maxSize := fmt.Sprintf("(%d, %d)", t.Height, t.Width), "None"
	if t.Width == 0 {
		size = strconv.Itoa(t.Height)
	}
	if t.MaxSize > 0 {
		maxSize = strconv.Itoa(t.MaxSize)
	}
	return fmt.Sprintf("Resize(size=%s, interpolation=%s, max_size=%s, antialias=True)", size, t.Filter, maxSize)
}

func applyResizer(t resizer, img *Image, rng *rand.Rand) *Image {
	from, w, h, f := t.geometry(img.Width, img.Height, rng)
	if w == img.Width && h == img.Height && from == image.Rect(0, 0, w, h) {
		return img
	}
	return resizePart(img.view(), from, w, h, f, image.Rect(0, 0, w, h))
}

// RandomHorizontalFlip mirrors left and right with probability P.
type RandomHorizontalFlip struct{ P float64 }

// Apply implements [Transform].
func (t RandomHorizontalFlip) Apply(img *Image, rng *rand.Rand) *Image {
	img = clone(img)
	t.applyInPlace(img, rng)
	return img
}

func (t RandomHorizontalFlip) applyInPlace(img *Image, rng *rand.Rand) {
	if chance(rng, t.P) {
		mirrorX(img)
	}
}

func (t RandomHorizontalFlip) outputSize(width, height int) (w, h int) { return width, height }

func (t RandomHorizontalFlip) String() string {
	return fmt.Sprintf("RandomHorizontalFlip(p=%s)", float(t.P))
}

// RandomVerticalFlip mirrors top and bottom with probability P.
type RandomVerticalFlip struct{ P float64 }

// Apply implements [Transform].
func (t RandomVerticalFlip) Apply(img *Image, rng *rand.Rand) *Image {
	img = clone(img)
	t.applyInPlace(img, rng)
	return img
}

func (t RandomVerticalFlip) applyInPlace(img *Image, rng *rand.Rand) {
	if chance(rng, t.P) {
		mirrorY(img)
	}
}

func (t RandomVerticalFlip) outputSize(width, height int) (w, h int) { return width, height }

func (t RandomVerticalFlip) String() string {
	return fmt.Sprintf("RandomVerticalFlip(p=%s)", float(t.P))
}

// float writes a number as Python's repr does.
func float(x float64) string {
	s := strconv.FormatFloat(x, 'g', -1, 64)
	if !strings.ContainsAny(s, ".en") {
		s += ".0"
	}
	return s
}

// rounded writes a pair with four decimals at most.
func rounded(v [2]float64) string {
	four := func(x float64) string { return float(math.RoundToEven(x*1e4) / 1e4) }
	return "(" + four(v[0]) + ", " + four(v[1]) + ")"
}
