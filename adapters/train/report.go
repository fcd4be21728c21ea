package train

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"slices"

	"golang.org/x/image/draw"

	"github.com/hubtool/hubtool/model/vision"
)

var (
	//go:embed report.html.tmpl
	reportText string
	//go:embed parts.html.tmpl
	partsText string
)

var reportTemplate = template.Must(template.Must(template.New("report").Funcs(template.FuncMap{
	"percent": func(v float64) string { return fmt.Sprintf("%.2f %%", 100*v) },
	"number":  func(v float64) string { return fmt.Sprintf("%.4f", v) },
	"bytes":   func(n int64) string { return fmt.Sprintf("%.1f GB", float64(n)/1e9) },
	"shade":   shade,
	"part":    func(a, b int) template.CSS { return template.CSS(fmt.Sprintf("width:%.1f%%", 100*ratio(a, b))) }, //nolint:gosec // a number
	"width":   func(v float64) template.CSS { return template.CSS(fmt.Sprintf("width:%.1f%%", 100*v)) },          //nolint:gosec // a number
}).Parse(partsText)).Parse(reportText))

// page is what the report of one run shows.
type page struct {
	Name   string
	Output *Output
	Result *Result

	Trainable, All int
	Charts         []*chart
	Labels         []string
	Matrix         bool         // few enough classes for a table with numbers
	Heat           template.URL // the matrix as a picture, for more
	Confused       []confused
	Mistakes       []thumbnail
	Calibration    *chart
}

// confused is a pair of classes that were often mistaken.
type confused struct {
	Label, Predicted string
	N, Of            int
}

// thumbnail is a mistake with its image.
type thumbnail struct {
	Mistake
	Label, Predicted string
	Image            template.URL
}

// report is report.html: one file that needs nothing from anywhere.
func (o *Output) report(name string) ([]byte, error) {
	p := page{Name: name, Output: o, Result: o.Result, Labels: o.Job.Labels}
	p.Trainable, p.All = o.Job.Adapter.Count()
	losses, evals, accuracy := logged(o.Result.State.LogHistory)
	speed := curve{Name: "images a second"}
	for _, s := range o.Result.Speeds {
		speed.add(s.Epoch, s.ImagesPerSecond)
	}
	rates, norms := curve{Name: "learning rate"}, curve{Name: "gradient norm"}
	for _, e := range o.Result.State.LogHistory {
		if e.LearningRate != nil {
			rates.add(e.Epoch, *e.LearningRate)
		}
		if e.GradNorm != nil {
			norms.add(e.Epoch, *e.GradNorm)
		}
	}
	for _, c := range []*chart{
		newChart("Loss", "epoch", losses, evals), newChart("Accuracy", "epoch", accuracy), newChart("Learning rate", "epoch", rates),
		newChart("Gradient norm, before clipping", "epoch", norms), newChart("Throughput", "epoch", speed),
	} {
		if c != nil {
			p.Charts = append(p.Charts, c)
		}
	}
	if e := o.Result.Evaluation; e != nil {
		p.Matrix = len(p.Labels) <= 20
		if !p.Matrix {
			p.Heat = heat(e)
		}
		p.Confused = mostConfused(e, p.Labels)
		p.Calibration = reliability(e)
		p.Mistakes = o.thumbnails(e.Mistakes)
	}
	var b bytes.Buffer
	err := reportTemplate.Execute(&b, p)
	return b.Bytes(), err
}

// logged are the curves of a log.
func logged(log []LogEntry) (losses, evals, accuracy curve) {
	losses, evals, accuracy = curve{Name: "training"}, curve{Name: "evaluation"}, curve{Name: "accuracy"}
	for _, e := range log {
		switch {
		case e.Loss != nil:
			losses.add(e.Epoch, *e.Loss)
		case e.EvalLoss != nil && e.EvalAccuracy != nil:
			evals.add(e.Epoch, *e.EvalLoss)
			accuracy.add(e.Epoch, *e.EvalAccuracy)
		}
	}
	return losses, evals, accuracy
}

// reliability is accuracy over confidence: on the diagonal, a model knows how sure it may be.
func reliability(e *Evaluation) *chart {
	ch := &chart{Title: "Calibration", Across: "confidence", Diagonal: true, Lines: []line{{Name: "accuracy of images with this confidence"}}}
	l := &ch.Lines[0]
	for _, bin := range e.Calibration {
		if bin.N > 0 {
			x, y := math.Round(bin.Confidence*chartWidth), math.Round(chartHeight*(1-bin.Accuracy))
			l.Points += fmt.Sprintf("%v,%v ", x, y)
			l.Marks = append(l.Marks, mark{x, y, fmt.Sprintf("%d images: confidence %.3f, accuracy %.3f", bin.N, bin.Confidence, bin.Accuracy)})
		}
	}
	for _, v := range []float64{0, 0.25, 0.5, 0.75, 1} {
		ch.Down = append(ch.Down, tick{chartHeight * (1 - v), number(v)})
		ch.Along = append(ch.Along, tick{chartWidth * v, number(v)})
	}
	return ch
}

// mostConfused lists the pairs of classes with the most mistakes.
func mostConfused(e *Evaluation, labels []string) []confused {
	var list []confused
	for i, row := range e.Confusion {
		for j, n := range row {
			if i != j && n > 0 {
				list = append(list, confused{labels[i], labels[j], n, e.PerClass[i].N})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b confused) int { return cmp.Compare(b.N, a.N) })
	return list[:min(12, len(list))]
}

// heat draws the confusion matrix, a pixel for each pair of classes.
func heat(e *Evaluation) template.URL {
	n := len(e.Confusion)
	img := image.NewNRGBA(image.Rect(0, 0, n, n))
	for i, row := range e.Confusion {
		for j, count := range row {
			img.SetNRGBA(j, i, color.NRGBA{27, 108, 168, uint8(255 * ratio(count, e.PerClass[i].N))})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return "" // of memory, it cannot fail
	}
	return dataURI("image/png", b.Bytes())
}

func dataURI(kind string, data []byte) template.URL {
	return template.URL("data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(data)) //nolint:gosec // made here
}

// thumbnailSize bounds the longer side of a thumbnail.
const thumbnailSize = 96

// thumbnails shows what the model saw where it was wrong. Images that cannot be had again are left out.
func (o *Output) thumbnails(mistakes []Mistake) []thumbnail {
	var list []thumbnail
	for _, m := range mistakes {
		row, err := o.Job.Eval.Source.At(m.Index)
		if err != nil {
			continue
		}
		img, err := o.Job.Eval.Pipeline.Load(row.Image, vision.Rand(o.Job.Eval.Seed, 0, m.Index))
		if err != nil {
			continue
		}
		from := image.NewNRGBA(image.Rect(0, 0, img.Width, img.Height))
		for i := range img.Width * img.Height {
			copy(from.Pix[4*i:], []byte{img.Pix[3*i], img.Pix[3*i+1], img.Pix[3*i+2], 255})
		}
		small := image.Image(from)
		if longer := max(img.Width, img.Height); longer > thumbnailSize {
			to := image.NewNRGBA(image.Rect(0, 0, img.Width*thumbnailSize/longer, img.Height*thumbnailSize/longer))
			draw.CatmullRom.Scale(to, to.Bounds(), from, from.Bounds(), draw.Src, nil)
			small = to
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, small, &jpeg.Options{Quality: 85}); err != nil {
			continue
		}
		list = append(list, thumbnail{m, o.Job.Labels[m.Label], o.Job.Labels[m.Predicted], dataURI("image/jpeg", b.Bytes())})
	}
	return list
}

// shade is the background of a cell of the confusion matrix: its share of the class's images.
func shade(count, total int) template.CSS {
	return template.CSS(fmt.Sprintf("background:rgba(27,108,168,%.2f)", 0.75*ratio(count, total))) //nolint:gosec // a number
}
