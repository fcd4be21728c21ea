package survey

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"

	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model/vision"
)

// Sample is an image after its transforms.
type Sample struct {
	Index  int           `json:"index"` // in the rows
	Label  int           `json:"label"` // -1 without one
	Class  string        `json:"class"`
	Path   string        `json:"path"`
	Broken *Broken       `json:"broken"` // nil: sound
	Image  *vision.Image `json:"-"`      // nil: broken
}

// Draw makes samples of all rows as training makes them in epoch 0: with the generator of the seed, the epoch and the
// place in the rows.
func Draw(ctx context.Context, rows *dataset.Rows, pipeline *vision.Pipeline, seed uint64, opts Options) ([]Sample, error) {
	samples, names := make([]Sample, rows.Len()), rows.ClassNames()
	err := each(ctx, rows, opts, func(_, i int, row dataset.Row, err error) {
		s := Sample{Index: i, Label: rows.Label(i), Path: row.Path}
		if s.Label >= 0 {
			s.Class = names[s.Label]
		}
		if err == nil {
			s.Image, err = pipeline.Load(row.Image, vision.Rand(seed, 0, i))
		}
		if err != nil {
			s.Broken = newBroken(rows, i, row, err)
		}
		samples[i] = s
	})
	return samples, err
}

// caption is what stands below a sample.
func (s *Sample) caption() string {
	switch {
	case s.Broken != nil:
		return "damaged"
	case s.Class != "":
		return s.Class
	}
	return fmt.Sprint("row ", s.Index)
}

// A contact sheet has margins around its tiles and a line of text below each.
const margin, line, widestTile = 8, 18, 512

// MaxSheet bounds the samples of one PNG contact sheet, which is made in memory.
const MaxSheet = 4096

// WritePNG writes a contact sheet: tiles in rows, each with its class below.
func WritePNG(w io.Writer, samples []Sample) error {
	if len(samples) > MaxSheet {
		return fmt.Errorf("drawing a contact sheet: %d samples, but %d are the most; take a part of the split", len(samples), MaxSheet)
	}
	tileW, tileH := 96, 32 // at least, for the text
	for _, s := range samples {
		if s.Image != nil {
			tileW, tileH = max(tileW, min(s.Image.Width, widestTile)), max(tileH, min(s.Image.Height, widestTile))
		}
	}
	columns := max(1, int(math.Ceil(math.Sqrt(float64(len(samples))))))
	lines := (len(samples) + columns - 1) / columns
	sheet := image.NewRGBA(image.Rect(0, 0, margin+columns*(tileW+margin), margin+lines*(tileH+line+margin)))
	draw.Draw(sheet, sheet.Rect, image.White, image.Point{}, draw.Src)
	text := font.Drawer{Dst: sheet, Src: image.Black, Face: basicfont.Face7x13}
	for i, s := range samples {
		x, y := margin+i%columns*(tileW+margin), margin+i/columns*(tileH+line+margin)
		tile := image.Rect(x, y, x+tileW, y+tileH)
		if s.Image != nil {
			draw.Draw(sheet, tile, rgba(s.Image), image.Point{}, draw.Src)
		} else {
			draw.Draw(sheet, tile, image.NewUniform(color.Gray{200}), image.Point{}, draw.Src)
		}
		text.Dot = fixed.P(x, y+tileH+13)
		text.DrawString(shorten(s.caption(), tileW/basicfont.Face7x13.Advance))
	}
	if err := png.Encode(w, sheet); err != nil {
		return fmt.Errorf("drawing a contact sheet: %w", err)
	}
	return nil
}

func shorten(text string, n int) string {
	letters := []rune(text)
	if len(letters) <= n {
		return text
	}
	return string(letters[:max(0, n-2)]) + ".."
}

func rgba(m *vision.Image) *image.RGBA {
	out := image.NewRGBA(image.Rect(0, 0, m.Width, m.Height))
	for i := range m.Width * m.Height {
		copy(out.Pix[4*i:], m.Pix[3*i:3*i+3])
		out.Pix[4*i+3] = 255
	}
	return out
}

//go:embed sheet.html.tmpl
var sheetText string

var sheetTemplate = template.Must(template.New("sheet").Funcs(template.FuncMap{"png": dataURL}).Parse(sheetText))

// WriteHTML writes a contact sheet as a page that needs nothing else: every sample with its class, its place and, where
// it is broken, the reason.
func WriteHTML(w io.Writer, title string, samples []Sample) error {
	if err := sheetTemplate.Execute(w, map[string]any{"Title": title, "Samples": samples}); err != nil {
		return fmt.Errorf("writing a contact sheet: %w", err)
	}
	return nil
}

func dataURL(m *vision.Image) (template.URL, error) {
	var b bytes.Buffer
	if err := png.Encode(&b, rgba(m)); err != nil {
		return "", err
	}
	return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes())), nil //nolint:gosec // of our own making
}
