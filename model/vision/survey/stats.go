package survey

import (
	"cmp"
	"context"
	"math"
	"runtime"
	"slices"
	"sort"

	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model/vision"
)

// Stats are what all images of a selection come to. Images that are broken count as rows, and in their class, only.
type Stats struct {
	Rows       int           `json:"rows"`
	Classes    []ClassCount  `json:"classes"` // in label order
	Unlabelled int           `json:"unlabelled"`
	Formats    []FormatCount `json:"formats"` // the most frequent first
	Bytes      Range         `json:"bytes"`   // of an encoded image
	Width      Range         `json:"width"`   // in pixels, as EXIF turns the image
	Height     Range         `json:"height"`

	// Mean and Std are those of red, green and blue over all pixels of all images, in [0, 1]: what Normalize takes.
	Mean [3]float64 `json:"mean"`
	Std  [3]float64 `json:"std"`

	Broken []Broken `json:"broken"` // in the order of the rows
}

// ClassCount is how many rows a class has.
type ClassCount struct {
	Class string `json:"class"`
	Rows  int    `json:"rows"`
}

// FormatCount is how many images are of a format.
type FormatCount struct {
	Format string `json:"format"`
	Images int    `json:"images"`
}

// Range is the spread of a number over images.
type Range struct {
	Min    int     `json:"min"`
	Median int     `json:"median"` // the lower one of two
	Max    int     `json:"max"`
	Mean   float64 `json:"mean"`
}

// Measure reads and decodes every image of the rows. The result depends neither on the number of workers nor on
// their order.
func Measure(ctx context.Context, rows *dataset.Rows, opts Options) (*Stats, error) {
	s := &Stats{Rows: rows.Len(), Classes: []ClassCount{}, Formats: []FormatCount{}, Broken: []Broken{}}
	counts, unlabelled := rows.Counts()
	s.Unlabelled = unlabelled
	for i, name := range rows.ClassNames() {
		s.Classes = append(s.Classes, ClassCount{name, counts[i]})
	}
	n := rows.Len()
	bytes, widths, heights := make([]int, n), make([]int, n), make([]int, n)
	broken, formats := make([]*Broken, n), make([]string, n)
	if opts.Workers == 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	moments := make([]moments, opts.Workers)
	err := each(ctx, rows, opts, func(w, i int, row dataset.Row, err error) {
		var img *vision.Image
		if err == nil {
			img, err = vision.Decode(row.Image)
		}
		if err != nil {
			broken[i] = newBroken(rows, i, row, err)
			return
		}
		formats[i], _ = vision.Format(row.Image) // it has one, being decoded
		bytes[i], widths[i], heights[i] = len(row.Image), img.Width, img.Height
		moments[w].add(img)
	})
	if err != nil {
		return nil, err
	}
	sound := func(values []int) []int {
		var kept []int
		for i, v := range values {
			if broken[i] == nil {
				kept = append(kept, v)
			}
		}
		return kept
	}
	s.Bytes, s.Width, s.Height = newRange(sound(bytes)), newRange(sound(widths)), newRange(sound(heights))
	images := map[string]int{}
	for i, b := range broken {
		if b != nil {
			s.Broken = append(s.Broken, *b)
		} else {
			images[formats[i]]++
		}
	}
	for name, count := range images {
		s.Formats = append(s.Formats, FormatCount{name, count})
	}
	slices.SortFunc(s.Formats, func(a, b FormatCount) int { return cmp.Or(b.Images-a.Images, cmp.Compare(a.Format, b.Format)) })
	for _, m := range moments[1:] {
		moments[0].join(m)
	}
	s.Mean, s.Std = moments[0].result()
	return s, nil
}

func newRange(values []int) (r Range) {
	if len(values) == 0 {
		return r
	}
	sort.Ints(values)
	sum := 0.0
	for _, v := range values {
		sum += float64(v)
	}
	return Range{values[0], values[(len(values)-1)/2], values[len(values)-1], sum / float64(len(values))}
}

// moments are sums over pixels: whole numbers, so that no order of adding changes them.
type moments struct {
	pixels       uint64
	sum, squares [3]uint64
}

func (m *moments) add(img *vision.Image) {
	m.pixels += uint64(img.Width) * uint64(img.Height)
	for p := img.Pix; len(p) >= 3; p = p[3:] {
		for c := range 3 {
			v := uint64(p[c])
			m.sum[c] += v
			m.squares[c] += v * v
		}
	}
}

func (m *moments) join(other moments) {
	m.pixels += other.pixels
	for c := range 3 {
		m.sum[c] += other.sum[c]
		m.squares[c] += other.squares[c]
	}
}

func (m *moments) result() (mean, std [3]float64) {
	if m.pixels == 0 {
		return mean, std
	}
	n := float64(m.pixels)
	for c := range 3 {
		mean[c] = float64(m.sum[c]) / n / 255
		std[c] = math.Sqrt(max(0, float64(m.squares[c])/n/255/255-mean[c]*mean[c]))
	}
	return mean, std
}
