package dataset

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// arrivingOld opens testdata/old with nothing but its card there; fetched lists what was brought.
func arrivingOld(t *testing.T, card func(string) string, opts Options, before func(name string) error) (d *Dataset, fetched *[]string, err error) {
	t.Helper()
	dir := t.TempDir()
	text := string(mustRead(t, "testdata/old/README.md"))
	if card != nil {
		text = card(text)
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := listTree("testdata/old")
	if err != nil {
		t.Fatal(err)
	}
	fetched = new([]string)
	fetch := func(ctx context.Context, name string) error {
		if before != nil {
			if err := before(name); err != nil {
				return err
			}
		}
		*fetched = append(*fetched, name)
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, mustRead(t, filepath.Join("testdata/old", name)), 0o644)
	}
	var files []File
	for _, name := range tree.files {
		files = append(files, File{name, int64(len(mustRead(t, filepath.Join("testdata/old", name))))})
	}
	d, err = OpenArriving(context.Background(), dir, files, fetch, opts)
	if err == nil {
		t.Cleanup(func() { d.Close() })
	}
	return d, fetched, err
}

const (
	oldTrain0, oldTrain1 = "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"
	oldTest              = "data/test-00000-of-00001.parquet"
)

// Rows that arrive are those of a data set that is here, with and without a cache; files come in order, and no more of
// them than are needed.
func TestArrivingRows(t *testing.T) {
	here, err := Open("testdata/old", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	for _, cache := range []string{"", t.TempDir()} {
		d, fetched, err := arrivingOld(t, nil, Options{Cache: Cache{Dir: cache}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(*fetched, []string{oldTrain0}) || !slices.Equal(d.Splits(), here.Splits()) || !slices.Equal(d.ClassNames(), here.ClassNames()) {
			t.Fatalf("after opening: %q, %v, %q", *fetched, d.Splits(), d.ClassNames())
		}
		size, err := d.Size("train")
		if wantSize, wantErr := here.Size("train"); err != nil || wantErr != nil || size != wantSize {
			t.Errorf("%d bytes (%v), want %d (%v)", size, err, wantSize, wantErr)
		}
		test, err := d.Select("test")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Fetch(context.Background(), test); err != nil || !slices.Equal(*fetched, []string{oldTrain0, oldTest}) {
			t.Errorf("for the test split: %q, %v", *fetched, err)
		}
		got, err := d.Select("train+test")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Fetch(context.Background(), got); err != nil || !slices.Equal(*fetched, []string{oldTrain0, oldTest, oldTrain1}) {
			t.Errorf("for all: %q, %v", *fetched, err)
		}
		want, err := here.Select("train+test")
		if err != nil {
			t.Fatal(err)
		}
		if got.Len() != want.Len() {
			t.Fatalf("%d rows, want %d", got.Len(), want.Len())
		}
		for i := range got.Len() {
			a, err := got.At(i)
			b, wantErr := want.At(i)
			if err != nil || wantErr != nil || !bytes.Equal(a.Image, b.Image) || a.Label != b.Label || a.Path != b.Path || got.Label(i) != b.Label {
				t.Fatalf("row %d differs (%v, %v)", i, err, wantErr)
			}
			gotPath, gotRow := got.Where(i)
			wantPath, wantRow := want.Where(i)
			if gotRow != wantRow || filepath.Base(gotPath) != filepath.Base(wantPath) {
				t.Errorf("row %d is row %d of %q, want %d of %q", i, gotRow, gotPath, wantRow, wantPath)
			}
		}
		if cache != "" {
			if entries, err := (Cache{Dir: cache}).Entries(); err != nil || len(entries) != 3 {
				t.Errorf("unpacked: %v, %v", entries, err)
			}
		}
	}
}

// A reader waits for its row and for nothing else. A file that does not come ends the waiting with the reason.
func TestArrivingWaits(t *testing.T) {
	gone, asked := errors.New("gone"), make(chan struct{})
	d, _, err := arrivingOld(t, nil, Options{}, func(name string) error {
		if name == oldTrain1 {
			<-asked // not before a reader has had a row of the first file, and another one waits
			return gone
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := d.Select("train")
	if err != nil {
		t.Fatal(err)
	}
	first := d.arrival.splits[0].here()
	if first == 0 || first >= rows.Len() {
		t.Fatalf("%d of %d rows at first", first, rows.Len())
	}
	done := make(chan error)
	go func() { done <- d.Fetch(context.Background(), rows) }()
	if row, err := rows.At(first - 1); err != nil || len(row.Image) < 50 {
		t.Errorf("the last row of the first file: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := rows.Wait(ctx, first); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting without time: %v", err)
	}
	waited := make(chan error)
	go func() {
		_, err := rows.At(first)
		waited <- err
	}()
	close(asked)
	if err := <-waited; !errors.Is(err, gone) {
		t.Errorf("the row after it: %v", err)
	}
	if err := <-done; !errors.Is(err, gone) {
		t.Errorf("fetching: %v", err)
	}
}

func TestArrivingRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		card func(string) string
		opts Options
		want error
	}{
		"no number of rows": {func(s string) string { return strings.ReplaceAll(s, "num_examples", "examples") }, Options{}, ErrStreaming},
		"no card":           {func(string) string { return "" }, Options{}, ErrStreaming},
		"no such column":    {nil, Options{LabelColumn: "other"}, ErrColumn},
	} {
		if _, _, err := arrivingOld(t, test.card, test.opts, nil); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	// A card that declares other numbers than the files have.
	for _, wrong := range []string{"num_examples: 3", "num_examples: 30000"} {
		d, _, err := arrivingOld(t, func(s string) string {
			var lines []string
			for _, line := range strings.Split(s, "\n") {
				if before, _, ok := strings.Cut(line, "num_examples:"); ok {
					line = before + wrong
				}
				lines = append(lines, line)
			}
			return strings.Join(lines, "\n")
		}, Options{}, nil)
		if err == nil {
			rows, selectErr := d.Select("train")
			if selectErr != nil {
				t.Fatal(selectErr)
			}
			err = d.Fetch(context.Background(), rows)
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", wrong, err)
		}
	}
}
