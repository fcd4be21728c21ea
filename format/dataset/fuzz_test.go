package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/parquet-go/parquet-go"
)

var parquetSeeds = []string{
	"plain/train.parquet", "page-v2/train.parquet", "dictionary/train.parquet", "zstd/train.parquet", "delta/train.parquet",
	"statistics/train.parquet", "required/train.parquet", "bare/train.parquet", "old/data/test-00000-of-00001.parquet",
	"two-labels/data/train-00000-of-00001.parquet", "legacy/data/train-00000-of-00001.parquet",
}

// readAll reads everything that a parquet file may hold, in place and by row groups.
func readAll(data []byte) error {
	s := &parquetShard{name: "fuzz.parquet", image: -1, imagePath: -1, labels: -1}
	if err := guard(func() error { return s.open(bytes.NewReader(data), int64(len(data))) }); err != nil {
		return err
	}
	declared, err := s.declared()
	if err != nil {
		return err
	}
	for _, c := range s.columns(declared) {
		if c.holdsLabels {
			err := s.each(s.pq.Root().Column(c.name).Index(), func(v parquet.Value) error {
				_, err := parquetCell(v)
				return err
			})
			if err != nil {
				return err
			}
		}
		if !c.holdsImages {
			continue
		}
		if err := s.use(c.name, ""); err != nil {
			return err
		}
		if err := s.load(); err != nil {
			return err
		}
		for i := range min(s.rows(), 1000) {
			if s.store == nil {
				break
			}
			if spans, ok := s.store.(*spans); ok {
				spans.file = bytes.NewReader(data)
			}
			if _, err := s.store.at(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// expected reports whether an error is one that a damaged file may cause.
func expected(err error) bool {
	return err == nil || errors.Is(err, ErrDamaged) || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrColumn)
}

// TestDamage cuts, changes and zeroes bytes of every parquet layout: reading ends, without a panic and with the right
// kind of error if with any.
func TestDamage(t *testing.T) {
	for _, seed := range parquetSeeds {
		data := mustRead(t, filepath.Join("testdata", seed))
		if err := readAll(data); err != nil {
			t.Fatalf("%s undamaged: %v", seed, err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		damaged := 0
		for range 250 {
			b := bytes.Clone(data)
			// Half of the changes hit the footer, where most of the structure is.
			at := rng.IntN(len(b))
			if rng.IntN(2) == 0 {
				at = len(b) - 1 - rng.IntN(min(len(b), 2000))
			}
			var what string
			switch rng.IntN(4) {
			case 0:
				b, what = b[:at], "cut"
			case 1:
				b[at] ^= 1 << rng.IntN(8)
				what = "bit flipped"
			case 2:
				b[at] = 0xff
				what = "0xff"
			case 3:
				n := min(rng.IntN(64), len(b)-at)
				clear(b[at : at+n])
				what = fmt.Sprintf("%d zeroed", n)
			}
			err := readAll(b)
			if !expected(err) {
				t.Errorf("%s, %s at %d: %v", seed, what, at, err)
			}
			if err != nil {
				damaged++
			}
		}
		if damaged == 0 {
			t.Errorf("%s: no damage was noticed", seed)
		}
	}
}

func FuzzParquet(f *testing.F) {
	for _, seed := range parquetSeeds {
		f.Add(mustRead(f, filepath.Join("testdata", seed)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := readAll(data); !expected(err) {
			t.Error(err)
		}
	})
}

// FuzzPages fuzzes the index of images in place alone: a column chunk and what the footer says about it.
func FuzzPages(f *testing.F) {
	for _, seed := range []string{"plain/train.parquet", "page-v2/train.parquet", "statistics/train.parquet", "required/train.parquet"} {
		data := mustRead(f, filepath.Join("testdata", seed))
		s := &parquetShard{}
		if err := s.open(bytes.NewReader(data), int64(len(data))); err != nil {
			f.Fatal(err)
		}
		image, _, _ := imageLeaves(s.pq.Root().Column("image"))
		group := &s.pq.Metadata().RowGroups[0]
		c, err := openChunk(s.window, group, image)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[c.offset:][:c.size], uint16(group.NumRows), uint8(leaf(s.pq.Root(), image).MaxDefinitionLevel()))
	}
	f.Fuzz(func(t *testing.T, data []byte, rows uint16, level uint8) {
		file := &window{file: bytes.NewReader(data), size: int64(len(data))}
		c := &chunk{file: file, size: file.size, rows: int(rows), plain: true}
		places, err := c.index(nil, int(level%4))
		if err != nil {
			if !errors.Is(err, errNotPlain) && !errors.Is(err, ErrDamaged) {
				t.Error(err)
			}
			return
		}
		if len(places) != int(rows) {
			t.Fatalf("%d places for %d rows", len(places), rows)
		}
		store := &spans{bytes.NewReader(data), places}
		for i, p := range places {
			if b, err := store.at(i); err != nil || (p.length != null && len(b) != int(p.length)) {
				t.Fatalf("value %d at %v: %v", i, p, err)
			}
		}
	})
}

// FuzzSplit checks that any expression that parses selects rows inside its split.
func FuzzSplit(f *testing.F) {
	for _, seed := range []string{"train", "train[:50%]+test[-5:]", "a.b[1_0:](closest)", "train[-1%:100%](pct1_dropremainder)"} {
		f.Add(seed, 1437)
	}
	f.Fuzz(func(t *testing.T, expr string, n int) {
		terms, err := parseSplit(expr)
		if err != nil {
			if !errors.Is(err, ErrSplit) {
				t.Error(err)
			}
			return
		}
		n = max(0, n) % (1 << 31)
		for _, term := range terms {
			from, to, err := term.bounds(n)
			if err == nil && (from < 0 || to < 0 || from > n || to > n) {
				t.Errorf("%q of %d rows is [%d, %d)", expr, n, from, to)
			}
		}
	})
}

// FuzzCard feeds front matter to the reader of README.md.
func FuzzCard(f *testing.F) {
	for _, seed := range []string{"configs/README.md", "ordered/README.md", "bare/README.md", "../../../testdata/digits/README.md"} {
		f.Add(mustRead(f, filepath.Join("testdata", seed)))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, cardFile), text, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := readCard(dir)
		if err != nil {
			return
		}
		cfg, err := c.choose("")
		if err == nil {
			c.info(cfg, "")
		}
	})
}
