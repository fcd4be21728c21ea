package train

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"strings"
)

//go:embed report.html.tmpl
var reportText string

var reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"percent": func(v float64) string { return fmt.Sprintf("%.2f %%", 100*v) },
	"number":  func(v float64) string { return fmt.Sprintf("%.4f", v) },
	"shade":   shade,
	"dict": func(pairs ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i+1 < len(pairs); i += 2 {
			m[pairs[i].(string)] = pairs[i+1]
		}
		return m
	},
}).Parse(reportText))

// report is report.html: one file that needs nothing from anywhere.
func (o *Output) report(name string) ([]byte, error) {
	trainable, all := o.Job.Adapter.Count()
	losses := curve{Name: "training", Colour: "#1b6ca8"}
	evals := curve{Name: "evaluation", Colour: "#c8553d"}
	accuracy := curve{Name: "accuracy", Colour: "#3a7d44"}
	for _, e := range o.Result.State.LogHistory {
		switch {
		case e.Loss != nil:
			losses.add(e.Epoch, *e.Loss)
		case e.EvalLoss != nil:
			evals.add(e.Epoch, *e.EvalLoss)
			accuracy.add(e.Epoch, *e.EvalAccuracy)
		}
	}
	var b bytes.Buffer
	err := reportTemplate.Execute(&b, map[string]any{
		"Name": name, "Output": o, "Result": o.Result, "Method": o.Job.Adapter.Config.PeftType, "Trainable": trainable, "All": all,
		"Loss": newChart(losses, evals), "Accuracy": newChart(accuracy), "Config": o.Job.Config,
		"Labels": o.Job.Labels, "Matrix": o.Result.Evaluation != nil && len(o.Job.Labels) <= 30,
	})
	return b.Bytes(), err
}

// curve is one line of a chart: values over epochs.
type curve struct {
	Name, Colour string
	xs, ys       []float64
}

func (c *curve) add(x, y float64) {
	if !math.IsNaN(y) && !math.IsInf(y, 0) {
		c.xs, c.ys = append(c.xs, x), append(c.ys, y)
	}
}

// chart is a set of curves laid out in a box of chartWidth by chartHeight, as SVG wants them.
type chart struct {
	Lines  []line
	Ticks  []tick // of the vertical axis
	Epochs []tick // of the horizontal one
}

type line struct{ Name, Colour, Points string }

type tick struct {
	At    float64
	Label string
}

const chartWidth, chartHeight = 560.0, 220.0

func newChart(curves ...curve) *chart {
	lastX, low, high := 0.0, math.Inf(1), math.Inf(-1)
	for _, c := range curves {
		for i, y := range c.ys {
			lastX, low, high = max(lastX, c.xs[i]), min(low, y), max(high, y)
		}
	}
	if lastX == 0 {
		return nil
	}
	low = min(0, low)
	if high == low {
		high = low + 1
	}
	x := func(v float64) float64 { return v / lastX * chartWidth }
	y := func(v float64) float64 { return chartHeight - (v-low)/(high-low)*chartHeight }
	ch := &chart{}
	for _, c := range curves {
		var points strings.Builder
		for i := range c.ys {
			fmt.Fprintf(&points, "%.1f,%.1f ", x(c.xs[i]), y(c.ys[i]))
		}
		ch.Lines = append(ch.Lines, line{c.Name, c.Colour, points.String()})
	}
	for i := range 5 {
		v := low + (high-low)*float64(i)/4
		ch.Ticks = append(ch.Ticks, tick{y(v), fmt.Sprintf("%.2f", v)})
	}
	every := max(1, math.Ceil(lastX/10))
	for v := every; v <= lastX; v += every {
		ch.Epochs = append(ch.Epochs, tick{x(v), fmt.Sprintf("%g", v)})
	}
	return ch
}

// shade is the background of a cell of the confusion matrix: its share of the class's images.
func shade(count, total int) template.CSS {
	return template.CSS(fmt.Sprintf("background:rgba(27,108,168,%.2f)", ratio(count, total))) //nolint:gosec // a number
}
