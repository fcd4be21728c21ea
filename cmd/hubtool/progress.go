package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Everything here goes to stderr. The way is chosen once, at the first step of a run.
var progressModes = []string{"auto", "bar", "plain", "json", "none"}

// A plain line appears this often, a JSON line ten times as often.
const plainEvery = 3 * time.Second

// step is the state of a long job: "pulling model.safetensors: 5 of 10 bytes".
type step struct {
	Task  string `json:"task"`           // "pulling", "training", …
	Item  string `json:"item,omitempty"` // file, epoch, …
	Done  int64  `json:"done"`
	Total int64  `json:"total"` // 0 or less: unknown
	Unit  string `json:"unit"`  // "bytes", "images", "steps", …
	Text  string `json:"text,omitempty"`

	// What a lineMeter adds once it can tell.
	Rate float64 `json:"per_second,omitempty"`
	Left float64 `json:"seconds_left,omitempty"`
}

// meter renders steps; its methods never overlap.
type meter interface {
	show(step)
	end() // before other output
}

// progress serialises steps of parallel work. The zero value chooses its meter at the first step.
type progress struct {
	mu    sync.Mutex
	meter meter
}

// report shows how far a job is. It may be called from any goroutine, and often.
func (e *env) report(s step) {
	e.progress.mu.Lock()
	defer e.progress.mu.Unlock()
	if e.progress.meter == nil {
		e.progress.meter = e.newMeter()
	}
	e.progress.meter.show(s)
}

func (e *env) endProgress() {
	e.progress.mu.Lock()
	defer e.progress.mu.Unlock()
	if e.progress.meter != nil {
		e.progress.meter.end()
	}
}

func (e *env) newMeter() meter {
	mode := e.progressMode
	if mode == "" || mode == "auto" {
		switch {
		case e.quiet, envBool("HF_HUB_DISABLE_PROGRESS_BARS"):
			mode = "none"
		case isTerminal(e.err) && os.Getenv("TERM") != "dumb":
			mode = "bar"
		case e.json: // a script reads stderr, and finds the error alone there
			mode = "none"
		default:
			mode = "plain"
		}
	}
	switch mode {
	case "bar":
		return &barMeter{w: e.err, colour: os.Getenv("NO_COLOR") == ""}
	case "plain":
		return &lineMeter{w: e.err, every: plainEvery, last: time.Now(), line: plainLine}
	case "json":
		return &lineMeter{w: e.err, every: plainEvery / 10, line: jsonLine}
	}
	return silentMeter{}
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

type silentMeter struct{}

func (silentMeter) show(step) {}
func (silentMeter) end()      {}

// lineMeter prints a line now and then, and one at the end of every job it has spoken of.
type lineMeter struct {
	w     io.Writer
	every time.Duration
	last  time.Time
	spoke string // the job of the last line
	line  func(step) string

	job   string // the job of the last step, and where it began to be watched
	begun time.Time
	first int64
}

// measure adds the rate of a job and the time that is left. In its first second nothing is said.
func (m *lineMeter) measure(s step, job string) step {
	if job != m.job {
		m.job, m.begun, m.first = job, time.Now(), s.Done
	}
	elapsed := time.Since(m.begun).Seconds()
	if elapsed < 1 || s.Done <= m.first {
		return s
	}
	s.Rate = math.Round(float64(s.Done-m.first)/elapsed*1000) / 1000
	if s.Total > s.Done && s.Rate > 0 {
		s.Left = math.Round(float64(s.Total-s.Done) / s.Rate)
	}
	return s
}

func (m *lineMeter) show(s step) {
	job := s.Task + "\x00" + s.Item
	s = m.measure(s, job)
	finished := s.Total > 0 && s.Done == s.Total && m.spoke == job
	if time.Since(m.last) < m.every && !finished {
		return
	}
	m.last, m.spoke = time.Now(), job
	if finished {
		m.spoke = ""
	}
	fmt.Fprintln(m.w, m.line(s))
}

func (*lineMeter) end() {}

func plainLine(s step) string {
	line := "hubtool: " + s.label() + ": " + s.amount(s.Done)
	if s.Total > 0 {
		line += fmt.Sprintf(" of %s (%d%%)", s.amount(s.Total), 100*s.Done/s.Total)
	}
	if s.Unit == "bytes" && s.Rate > 0 {
		line += ", " + byteSize(int64(s.Rate)) + "/s"
	}
	if s.Left > 0 {
		line += fmt.Sprintf(", %v left", time.Duration(s.Left)*time.Second)
	}
	if s.Text != "" {
		line += ", " + s.Text
	}
	return oneLine(line)
}

func jsonLine(s step) string {
	b, err := json.Marshal(map[string]step{"progress": s})
	if err != nil {
		panic(err) // strings and integers only
	}
	return string(b)
}

func (s step) label() string { return strings.TrimSpace(s.Task + " " + s.Item) }

func (s step) amount(n int64) string {
	if s.Unit == "bytes" {
		return byteSize(n)
	}
	return fmt.Sprintf("%d %s", n, s.Unit)
}

// byteSize prints decimal units, as the Python client does.
func byteSize(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1000, "kMGTPE"
	for f >= 999.95 {
		f, unit = f/1000, unit[1:]
	}
	return fmt.Sprintf("%.1f %cB", f, unit[0])
}

// barMeter draws one bar, for the job of the last step.
type barMeter struct {
	w      io.Writer
	colour bool
	job    string
	bar    *progressbar.ProgressBar
}

func (m *barMeter) show(s step) {
	if job := s.Task + "\x00" + s.Item; m.bar == nil || job != m.job {
		m.end()
		m.job, m.bar = job, progressbar.NewOptions64(max(s.Total, -1),
			progressbar.OptionSetWriter(m.w),
			progressbar.OptionEnableColorCodes(m.colour),
			progressbar.OptionShowBytes(s.Unit == "bytes"),
			progressbar.OptionShowCount(),
			progressbar.OptionSetItsString(s.Unit),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionFullWidth(),
			progressbar.OptionClearOnFinish())
	}
	m.bar.Describe(oneLine(strings.TrimSpace(s.label() + " " + s.Text)))
	if s.Total > 0 && m.bar.GetMax64() != s.Total {
		m.bar.ChangeMax64(s.Total)
	}
	_ = m.bar.Set64(s.Done)
}

func (m *barMeter) end() {
	if m.bar != nil {
		_ = m.bar.Clear()
		m.bar = nil
	}
}
