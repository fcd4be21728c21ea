package train

import (
	"fmt"
	"math"
	"strings"
)

// curve is one line of a chart.
type curve struct {
	Name   string
	xs, ys []float64
}

func (c *curve) add(x, y float64) {
	if !math.IsNaN(y) && !math.IsInf(y, 0) {
		c.xs, c.ys = append(c.xs, x), append(c.ys, y)
	}
}

// thin averages neighbours, so that a run of a million steps draws as many points as pixels.
func (c *curve) thin() curve {
	thin := curve{Name: c.Name}
	each := (len(c.xs) + int(chartWidth) - 1) / int(chartWidth)
	for i := 0; i < len(c.xs); i += max(1, each) {
		end := min(i+max(1, each), len(c.xs))
		var x, y float64
		for j := i; j < end; j++ {
			x, y = x+c.xs[j], y+c.ys[j]
		}
		thin.add(x/float64(end-i), y/float64(end-i))
	}
	return thin
}

// chart is a set of curves laid out in a box of chartWidth by chartHeight, as SVG wants them.
type chart struct {
	Title, Across string
	Lines         []line
	Diagonal      bool
	Down, Along   []tick // of the vertical axis, of the horizontal one
}

type line struct {
	Name, Points string
	Marks        []mark // of short curves
}

type mark struct {
	X, Y float64
	Text string
}

type tick struct {
	At    float64
	Label string
}

const chartWidth, chartHeight = 480.0, 220.0

// newChart lays out what there is of the curves; nil if nothing is.
func newChart(title, across string, curves ...curve) *chart {
	x1, low, high := 0.0, math.Inf(1), math.Inf(-1)
	for _, c := range curves {
		for i, y := range c.ys {
			x1, low, high = max(x1, c.xs[i]), min(low, y), max(high, y)
		}
	}
	if x1 == 0 {
		return nil
	}
	down := ticks(min(0, low), high)
	low, high = down[0], down[len(down)-1]
	x := func(v float64) float64 { return math.Round(v/x1*chartWidth*10) / 10 }
	y := func(v float64) float64 { return math.Round((chartHeight-(v-low)/(high-low)*chartHeight)*10) / 10 }
	ch := &chart{Title: title, Across: across}
	for _, c := range curves {
		thin := c.thin()
		l := line{Name: c.Name}
		var points strings.Builder
		for i := range thin.ys {
			fmt.Fprintf(&points, "%v,%v ", x(thin.xs[i]), y(thin.ys[i]))
			if len(c.xs) <= 16 {
				l.Marks = append(l.Marks, mark{x(thin.xs[i]), y(thin.ys[i]), fmt.Sprintf("%s: %.4g at %.4g", c.Name, thin.ys[i], thin.xs[i])})
			}
		}
		l.Points = strings.TrimSpace(points.String())
		if len(thin.ys) > 0 {
			ch.Lines = append(ch.Lines, l)
		}
	}
	for _, v := range down {
		ch.Down = append(ch.Down, tick{y(v), number(v)})
	}
	for _, v := range ticks(0, x1) {
		if v > 0 && v <= x1*1.0001 {
			ch.Along = append(ch.Along, tick{x(v), number(v)})
		}
	}
	return ch
}

// number writes an axis's number in few characters.
func number(v float64) string {
	switch {
	case math.Abs(v) >= 1e6:
		return fmt.Sprintf("%.0e", v)
	case math.Abs(v) < 1e-12:
		return "0"
	}
	return fmt.Sprintf("%.4g", v)
}

// ticks are round numbers around [low, high], about five of them.
func ticks(low, high float64) []float64 {
	if high <= low {
		high = low + 1
	}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/4)))
	for _, by := range []float64{2, 2.5, 2} { // 1, 2, 5, 10
		if (high-low)/step > 5 {
			step *= by
		}
	}
	var all []float64
	for i := math.Floor(low / step); ; i++ {
		all = append(all, i*step)
		if i*step >= high-step*1e-9 {
			return all
		}
	}
}
