package train_test

import (
	"testing"

	"github.com/hubtool/hubtool/adapters/train"
	"github.com/hubtool/hubtool/format/dataset"
)

// labelled is a counting source that knows labels without reading images.
type labelled struct{ counting }

func (l *labelled) Label(i int) int { return l.rows[i].Label }

// Images that are small already stay what they are; larger ones are made small once, in whatever order and by however
// many workers, and are read from the file in the next epoch.
func TestPreparedImages(t *testing.T) {
	cache := dataset.Cache{Dir: t.TempDir()}
	for name, test := range map[string]struct {
		side int
		same bool
	}{"small enough": {64, true}, "too large": {12, false}} {
		t.Run(name, func(t *testing.T) {
			source := &labelled{counting{rows: squares(t, 22)}}
			plain := batches(t, shuffled(t, source), 1, 0)
			var first []train.Batch
			for _, workers := range []int{3, 1} {
				file, err := cache.Prepare(name, "", 22, test.side)
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				l := shuffled(t, source)
				l.Prepared, l.Workers = file, workers
				source.reads.Store(0)
				batches(t, l, 0, 0)
				want := int32(22)
				if first != nil {
					want = 0 // the file is there, of another process as it were
				}
				if n := source.reads.Load(); n != want {
					t.Errorf("%d reads in epoch 0, want %d", n, want)
				}
				source.reads.Store(0)
				got := batches(t, l, 1, 0)
				if n := source.reads.Load(); n != 0 {
					t.Errorf("%d reads in epoch 1", n)
				}
				if same(got, plain) != test.same {
					t.Errorf("the batches are those of unprepared images: %v, want %v", !test.same, test.same)
				}
				if first == nil {
					first = got
				}
				if !same(got, first) {
					t.Errorf("%d workers make other batches", workers)
				}
			}
		})
	}
}

// The file of one selection is not that of another.
func TestPrepareFollowsContent(t *testing.T) {
	cache := dataset.Cache{Dir: t.TempDir()}
	d, err := dataset.Open("../../testdata/digits", dataset.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i, split := range []string{"train[:8]", "train[:9]", "train[1:9]", "test[:8]", "train[:8]"} {
		rows, err := d.Select(split)
		if err != nil {
			t.Fatal(err)
		}
		file, err := train.Prepare(cache, rows, 16)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		entries, err := cache.Entries()
		if want := min(i+1, 4); err != nil || len(entries) != want {
			t.Errorf("after %s the cache has %d files (%v), want %d", split, len(entries), err, want)
		}
	}
}
