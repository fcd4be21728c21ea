package train_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model/vision"
	"github.com/hubtool/hubtool/model/vision/survey"
)

// squares are n images of different colours and sizes, labelled 0 to 4 in turn.
func squares(t *testing.T, n int) rows {
	t.Helper()
	var list rows
	for i := range n {
		img := image.NewNRGBA(image.Rect(0, 0, 20+i, 24))
		for p := range 24 * (20 + i) {
			img.SetNRGBA(p%(20+i), p/(20+i), color.NRGBA{uint8(i * 9), uint8(p), uint8(p / 7), 255})
		}
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		list = append(list, dataset.Row{Image: b.Bytes(), Label: i % 5})
	}
	return list
}

// batches copies an epoch's batches, which share memory.
func batches(t *testing.T, l *train.Loader, epoch, from int) (list []train.Batch) {
	t.Helper()
	for b, err := range l.Epoch(context.Background(), epoch, from) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, copyBatch(b))
	}
	return list
}

func copyBatch(b *train.Batch) train.Batch {
	return train.Batch{N: b.N, Pixels: slices.Clone(b.Pixels), Labels: slices.Clone(b.Labels), Mask: slices.Clone(b.Mask), Index: slices.Clone(b.Index), Own: b.Own}
}

func same(a, b []train.Batch) bool {
	return slices.EqualFunc(a, b, func(a, b train.Batch) bool {
		return a.N == b.N && bytes.Equal(a.Pixels, b.Pixels) && slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Mask, b.Mask) && slices.Equal(a.Index, b.Index) && a.Own == b.Own
	})
}

func shuffled(t *testing.T, source train.Source) *train.Loader {
	return &train.Loader{Source: source, Pipeline: pipeline(t, map[string]any{"RandomResizedCrop": 16}, "RandomHorizontalFlip"), Batch: 4, Classes: 5, Shuffle: true, Seed: 7}
}

// Neither the number of workers nor where an epoch is taken up changes a batch.
func TestLoaderIsDeterministic(t *testing.T) {
	source := squares(t, 22)
	want := batches(t, shuffled(t, source), 1, 0)
	if len(want) != 6 || same(want[:1], batches(t, shuffled(t, source), 2, 0)[:1]) {
		t.Fatalf("%d batches, or the epochs are alike", len(want))
	}
	for _, workers := range []int{1, 2, 7} {
		l := shuffled(t, source)
		l.Workers = workers
		if !same(want, batches(t, l, 1, 0)) {
			t.Errorf("%d workers make other batches", workers)
		}
		if !same(want[3:], batches(t, l, 1, 3)) {
			t.Errorf("%d workers make other batches from the fourth one on", workers)
		}
	}
}

// Batches are mixed alike whoever prepares them, each in its own way, and the padding stays out of it.
func TestLoaderMixes(t *testing.T) {
	source := squares(t, 22)
	plain := batches(t, shuffled(t, source), 1, 0)
	mixing := func(workers int) *train.Loader {
		l := shuffled(t, source)
		l.Workers, l.Pipeline.Mixers = workers, []vision.Mixer{vision.MixUp{Alpha: 1}, vision.CutMix{Alpha: 1}}
		return l
	}
	want := batches(t, mixing(1), 1, 0)
	if !same(want, batches(t, mixing(7), 1, 0)) || !same(want[3:], batches(t, mixing(2), 1, 3)) {
		t.Error("other workers, or another beginning, mix other batches")
	}
	shares := map[float64]bool{}
	for i, b := range want {
		shares[b.Own] = true
		if plain[i].Own != 1 || b.Own < 0 || b.Own > 1 || !slices.Equal(b.Labels, plain[i].Labels) {
			t.Errorf("batch %d: share %v, labels %v", i, b.Own, b.Labels)
		}
		if b.Own < 0.99 && bytes.Equal(b.Pixels, plain[i].Pixels) {
			t.Errorf("batch %d is not mixed, but its share is %v", i, b.Own)
		}
		if slices.ContainsFunc(b.Pixels[b.N*16*16*3:], func(v byte) bool { return v != 0 }) {
			t.Errorf("the padding of batch %d is mixed in", i)
		}
	}
	if len(shares) != len(want) {
		t.Errorf("%d shares of %d batches", len(shares), len(want))
	}
}

// The last batch is as large as the others: padded, with a mask.
func TestLoaderPads(t *testing.T) {
	last := batches(t, shuffled(t, squares(t, 22)), 0, 0)[5]
	if last.N != 2 || len(last.Index) != 2 || !slices.Equal(last.Mask, []float32{1, 1, 0, 0}) || !slices.Equal(last.Labels[2:], []int32{0, 0}) {
		t.Errorf("N %d, mask %v, labels %v", last.N, last.Mask, last.Labels)
	}
	if len(last.Pixels) != 4*16*16*3 || slices.ContainsFunc(last.Pixels[2*16*16*3:], func(b byte) bool { return b != 0 }) {
		t.Error("the padding is not black")
	}
}

// counting counts how often images are read, and says where they lie.
type counting struct {
	rows
	reads atomic.Int32
}

func (c *counting) At(i int) (dataset.Row, error) {
	c.reads.Add(1)
	return c.rows.At(i)
}

func (c *counting) Where(i int) (string, int) { return "train-00000.parquet", 100 + i }

// What is kept is what would be made anew, and no more than allowed.
func TestLoaderKeepsImages(t *testing.T) {
	source := &counting{rows: squares(t, 22)}
	l := shuffled(t, source)
	l.Shuffle, l.Keep = false, 10*16*16*3+5
	want := batches(t, l, 0, 0)
	if n := source.reads.Swap(0); n != 22 {
		t.Fatalf("%d reads at first", n)
	}
	if !same(want, batches(t, l, 0, 0)) {
		t.Error("kept images make other batches")
	}
	if n := source.reads.Swap(0); n != 12 {
		t.Errorf("%d reads with ten images kept, want 12", n)
	}
	l.Keep = 0
	if other := batches(t, l, 1, 0); same(want, other) || source.reads.Load() != 22 {
		t.Error("another epoch was taken from what is kept")
	}
}

// Damaged samples end an epoch with their place, or are left out and counted.
func TestLoaderBroken(t *testing.T) {
	source := &counting{rows: squares(t, 22)}
	source.rows[5] = dataset.Row{Image: []byte("no image"), Path: "broken.jpg", Label: 1}
	source.rows[6].Label = 5
	l := shuffled(t, source)
	l.Shuffle = false
	var failed error
	for _, err := range l.Epoch(context.Background(), 0, 0) {
		failed = err
	}
	var where *dataset.Error
	if !errors.As(failed, &where) || where.Path != "train-00000.parquet" || where.Row != 105 || !errors.Is(failed, dataset.ErrDamaged) || !strings.Contains(failed.Error(), "broken.jpg") {
		t.Fatalf("%v, want row 105 of the shard, and the image", failed)
	}
	l.SkipBroken = true
	got := batches(t, l, 0, 0)
	if got[1].N != 2 || !slices.Equal(got[1].Index, []int{4, 7}) || !slices.Equal(got[1].Labels, []int32{4, 2, 0, 0}) || !slices.Equal(got[1].Mask, []float32{1, 1, 0, 0}) {
		t.Errorf("the batch without them is %+v", got[1])
	}
	if !bytes.Equal(got[1].Pixels[16*16*3:2*16*16*3], batches(t, shuffledOnly(t, source.rows[7], 7), 0, 0)[0].Pixels[:16*16*3]) {
		t.Error("the image after them is another")
	}
	batches(t, l, 1, 0)
	if broken := l.Broken(); len(broken) != 2 || !strings.Contains(broken[0].Error(), "row 105") || !strings.Contains(broken[1].Error(), "label is 5") {
		t.Errorf("broken are %v", broken)
	}
	for i := range 4 {
		source.rows[i].Image = nil
	}
	for _, err := range l.Epoch(context.Background(), 0, 0) {
		if err == nil || !strings.Contains(err.Error(), "all 4 of a batch are damaged") {
			t.Errorf("a batch of nothing: %v", err)
		}
	}
}

// shuffledOnly makes image i of a source, whose random transforms are those of its place.
func shuffledOnly(t *testing.T, row dataset.Row, i int) *train.Loader {
	l := shuffled(t, at{row, i})
	l.Shuffle = false
	l.Batch = i + 1
	l.SkipBroken = true
	return l
}

type at struct {
	row dataset.Row
	i   int
}

func (a at) Len() int { return a.i + 1 }
func (a at) At(i int) (dataset.Row, error) {
	if i == a.i {
		return a.row, nil
	}
	return dataset.Row{}, fs.ErrNotExist
}

// A disk that fails is no damaged sample.
func TestLoaderSkipsNoFailures(t *testing.T) {
	l := shuffled(t, failing{squares(t, 4)})
	l.SkipBroken = true
	for _, err := range l.Epoch(context.Background(), 0, 0) {
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v, want the disk's error", err)
		}
	}
}

type failing struct{ rows }

func (f failing) At(i int) (dataset.Row, error) {
	if i == 2 {
		return dataset.Row{}, io.ErrUnexpectedEOF
	}
	return f.rows.At(i)
}

// A loop may be left, or its context end, at any time.
func TestLoaderStops(t *testing.T) {
	l := shuffled(t, squares(t, 22))
	for range l.Epoch(context.Background(), 0, 0) {
		break
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	enough := errors.New("enough")
	n := 0
	for _, err := range l.Epoch(ctx, 0, 0) {
		if err != nil && !errors.Is(err, enough) {
			t.Errorf("%v, want the cause", err)
		}
		if n++; n == 2 {
			cancel(enough)
		}
	}
	if n < 3 || n > 6 {
		t.Errorf("%d rounds after the end", n)
	}
}

// A contact sheet shows the pixels that a batch has.
func TestSheetIsWhatTrainingSees(t *testing.T) {
	d, err := dataset.Open("../../testdata/digits", dataset.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	selected, err := d.Select("train[:8]")
	if err != nil {
		t.Fatal(err)
	}
	l := shuffled(t, selected)
	l.Classes = 10
	samples, err := survey.Draw(context.Background(), selected, l.Pipeline, l.Seed, survey.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches(t, l, 0, 0) {
		for i, at := range b.Index {
			if image := len(b.Pixels) / l.Batch; !bytes.Equal(b.Pixels[i*image:(i+1)*image], samples[at].Image.Pix) || int(b.Labels[i]) != samples[at].Label {
				t.Errorf("sample %d is shown as something else", at)
			}
		}
	}
}

// A first batch is there before the second file is, and batches are those of a data set that has come.
func TestTrainingBeginsBeforeAllIsHere(t *testing.T) {
	const source = "../../format/dataset/testdata/old" // 230 rows to train on, in two files
	dir, begun := t.TempDir(), make(chan struct{})
	var events []string
	fetch := func(ctx context.Context, name string) error {
		if strings.Contains(name, "00001-of") {
			select {
			case <-begun:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		events = append(events, name)
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), data, 0o644)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := fetch(ctx, "README.md"); err != nil {
		t.Fatal(err)
	}
	var files []dataset.File
	for _, name := range []string{"README.md", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"} {
		files = append(files, dataset.File{Name: name})
	}
	arriving, err := dataset.OpenArriving(ctx, dir, files, fetch, dataset.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer arriving.Close()
	here, err := dataset.Open(source, dataset.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	loader := func(d *dataset.Dataset) *train.Loader {
		rows, err := d.Select("train")
		if err != nil {
			t.Fatal(err)
		}
		l := shuffled(t, rows)
		l.Window = 50
		return l
	}
	l := loader(arriving)
	fetched := make(chan error, 1)
	go func() { fetched <- arriving.Fetch(ctx, l.Source.(*dataset.Rows)) }()
	var got []train.Batch
	for b, err := range l.Epoch(ctx, 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			close(begun)
		}
		got = append(got, copyBatch(b))
	}
	if err := <-fetched; err != nil || len(events) != 3 {
		t.Fatalf("brought %q, %v", events, err)
	}
	whole := loader(here)
	if !same(got, batches(t, whole, 0, 0)) {
		t.Error("a data set that has come makes other batches")
	}
	if !same(batches(t, l, 1, 0), batches(t, whole, 1, 0)) {
		t.Error("the second epoch is another")
	}

	// Every image once, none much before its turn; the second epoch over all.
	seen := map[int]bool{}
	for k, b := range got {
		for i, index := range b.Index {
			seen[index] = true
			if index >= 4*k+i+50 {
				t.Errorf("image %d is number %d", index, 4*k+i)
			}
		}
	}
	if len(seen) != 230 {
		t.Errorf("%d images of 230", len(seen))
	}
	if early := batches(t, whole, 1, 0)[0].Index; slices.Max(early) < 54 {
		t.Errorf("the second epoch begins with %v, as if in a window", early)
	}
}
