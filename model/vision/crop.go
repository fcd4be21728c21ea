package vision

import (
	"fmt"
	"math/rand/v2"
)

// CenterCrop cuts Height by Width pixels out of the middle. A smaller image is padded with black.
type CenterCrop struct{ Height, Width int }

// Apply implements [Transform].
func (t CenterCrop) Apply(img *Image, _ *rand.Rand) *Image {
	x, y := t.offset(img.Width, img.Height)
	return crop(img, x, y, t.Width, t.Height)
}

func (t CenterCrop) outputSize(int, int) (w, h int) { return t.Width, t.Height }

func (t CenterCrop) offset(width, height int) (x, y int) {
	return centerOffset(width, t.Width), centerOffset(height, t.Height)
}

// centerOffset pads by half of what is missing, rounded down, before a side that is too short, and
// cuts half of what is too much, rounded half to even.
func centerOffset(have, want int) int {
	if want > have {
		return -((want - have) / 2)
	}
	return round(float64(have-want) / 2)
}

// ProcessorCrop is the center_crop of transformers' image processors, PIL backend. It differs from
// [CenterCrop] where half of the difference is not whole: it cuts the half, rounded down, and pads
// the half, rounded up, before the image.
type ProcessorCrop struct{ Height, Width int }

// Apply implements [Transform].
func (t ProcessorCrop) Apply(img *Image, _ *rand.Rand) *Image {
	x, y := t.offset(img.Width, img.Height)
	return crop(img, x, y, t.Width, t.Height)
}

func (t ProcessorCrop) outputSize(int, int) (w, h int) { return t.Width, t.Height }

func (t ProcessorCrop) offset(width, height int) (x, y int) {
	return (width - t.Width) >> 1, (height - t.Height) >> 1 // rounds down below zero, too
}

func (t ProcessorCrop) String() string {
	return fmt.Sprintf("center_crop(height=%d, width=%d)", t.Height, t.Width)
}

func (t CenterCrop) String() string {
	return fmt.Sprintf("CenterCrop(size=(%d, %d))", t.Height, t.Width)
}

// RandomCrop pads the image by Padding, then cuts Height by Width pixels out at a random place.
// With PadIfNeeded a side that is still too short is padded at both ends by what it lacks.
type RandomCrop struct {
	Height, Width int
	Padding       Pad
	PadIfNeeded   bool
}

// Apply implements [Transform]. An image that is too small gives a crop with black borders; a
// [Pipeline] refuses it.
func (t RandomCrop) Apply(img *Image, rng *rand.Rand) *Image {
	img = t.pad(img.Width, img.Height).Apply(img, rng)
	if img.Width == t.Width && img.Height == t.Height {
		return img
	}
	y := below(rng, max(img.Height-t.Height, 0)+1)
	x := below(rng, max(img.Width-t.Width, 0)+1)
	return crop(img, x, y, t.Width, t.Height)
}

// pad sums up the padding before the crop.
func (t RandomCrop) pad(width, height int) Pad {
	p := t.Padding
	if w := width + p.Left + p.Right; t.PadIfNeeded && w < t.Width {
		p.Left, p.Right = p.Left+t.Width-w, p.Right+t.Width-w
	}
	if h := height + p.Top + p.Bottom; t.PadIfNeeded && h < t.Height {
		p.Top, p.Bottom = p.Top+t.Height-h, p.Bottom+t.Height-h
	}
	return p
}

func (t RandomCrop) outputSize(int, int) (w, h int) { return t.Width, t.Height }

func (t RandomCrop) check(width, height int) error {
	if w, h := t.pad(width, height).outputSize(width, height); w < t.Width || h < t.Height {
		return fmt.Errorf("%d by %d pixels are too few; set pad_if_needed, or put a Resize in front", w, h)
	}
	return nil
}

func (t RandomCrop) String() string {
	padding := "None"
	if p := t.Padding; p != (Pad{Fill: p.Fill}) {
		padding = p.border()
	}
	return fmt.Sprintf("RandomCrop(size=(%d, %d), padding=%s)", t.Height, t.Width, padding)
}

// Pad adds a border of one colour.
type Pad struct {
	Left, Top, Right, Bottom int
	Fill                     [3]uint8
}

// Apply implements [Transform].
func (t Pad) Apply(img *Image, _ *rand.Rand) *Image {
	if t == (Pad{Fill: t.Fill}) {
		return img
	}
	w, h := t.outputSize(img.Width, img.Height)
	out := NewImage(w, h)
	if t.Fill != [3]uint8{} {
		fill(out, t.Fill)
	}
	for y := range img.Height {
		copy(out.row(y + t.Top)[3*t.Left:], img.row(y))
	}
	return out
}

func (t Pad) outputSize(width, height int) (w, h int) {
	if width == 0 || height == 0 {
		return 0, 0
	}
	return width + t.Left + t.Right, height + t.Top + t.Bottom
}

func (t Pad) check(width, height int) error { return checkSize(t.outputSize(width, height)) }

func (t Pad) String() string {
	fill := fmt.Sprintf("(%d, %d, %d)", t.Fill[0], t.Fill[1], t.Fill[2])
	if t.Fill[0] == t.Fill[1] && t.Fill[1] == t.Fill[2] {
		fill = fmt.Sprint(t.Fill[0])
	}
	return fmt.Sprintf("Pad(padding=%s, fill=%s, padding_mode=constant)", t.border(), fill)
}

func (t Pad) border() string {
	if t.Left == t.Right && t.Top == t.Bottom && t.Left == t.Top {
		return fmt.Sprint(t.Left)
	}
	if t.Left == t.Right && t.Top == t.Bottom {
		return fmt.Sprintf("(%d, %d)", t.Left, t.Top)
	}
	return fmt.Sprintf("(%d, %d, %d, %d)", t.Left, t.Top, t.Right, t.Bottom)
}
