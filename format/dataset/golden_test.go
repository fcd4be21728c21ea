package dataset

import (
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// goldenRoot holds what testdata/make.py wrote with the real datasets package: the committed files, or others that are too
// large for that, which testdata/python/test_data.py makes and names in the environment.
var goldenRoot = cmp.Or(os.Getenv("HUBTOOL_TEST_DATASETS"), "testdata")

// golden decodes one of its files.
func golden[T any](t testing.TB, name string) T {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(goldenRoot, name))
	if err != nil {
		t.Fatal(err)
	}
	var v T
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

type goldenRows struct {
	Dir     string
	Options Options
	Names   []string
	Splits  []struct {
		Name  string
		Rows  int
		First []string
		MD5   string
	}
}

// line spells a row as make.py does.
func line(rows *Rows, i int) (string, error) {
	row, err := rows.At(i)
	if err != nil && row.Image == nil && errors.Is(err, ErrDamaged) && strings.Contains(err.Error(), "null") {
		return fmt.Sprintf("null %d", rows.Label(i)), nil
	}
	if err != nil {
		return "", err
	}
	name := ""
	if row.Path != "" {
		name = path.Base(row.Path)
	}
	return fmt.Sprintf("%x %d %s", md5.Sum(row.Image), row.Label, name), nil
}

// TestRows reads every fixture as load_dataset did: images byte for byte, labels, names, order. Parquet files that
// cannot be read in place are read by row groups and, with a cache, from a fresh and from an existing record file.
func TestRows(t *testing.T) {
	cache := t.TempDir()
	for _, want := range golden[[]goldenRows](t, "rows.json") {
		for _, mode := range []struct{ name, cacheDir string }{{"groups", ""}, {"fresh", cache}, {"cached", cache}} {
			name := fmt.Sprintf("%s/%s%s/%s", filepath.Base(want.Dir), want.Options.Config, want.Options.LabelColumn, mode.name)
			t.Run(name, func(t *testing.T) {
				opts := want.Options
				opts.Cache.Dir = mode.cacheDir
				root := goldenRoot
				if strings.HasPrefix(want.Dir, "..") { // a data set that others use as well
					root = "testdata"
				}
				d, err := Open(filepath.Join(root, want.Dir), opts)
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				if !slices.Equal(d.ClassNames(), want.Names) {
					t.Errorf("class names %q, want %q", d.ClassNames(), want.Names)
				}
				var splits, wantSplits []SplitInfo
				splits = d.Splits()
				for _, s := range want.Splits {
					wantSplits = append(wantSplits, SplitInfo{s.Name, s.Rows})
				}
				if !slices.Equal(splits, wantSplits) {
					t.Fatalf("splits %v, want %v", splits, wantSplits)
				}
				for _, s := range want.Splits {
					rows, err := d.Select(s.Name)
					if err != nil {
						t.Fatal(err)
					}
					sum := md5.New()
					for i := range rows.Len() {
						got, err := line(rows, i)
						if err != nil {
							t.Fatal(err)
						}
						if i < len(s.First) && got != s.First[i] {
							t.Errorf("%s row %d is %q, want %q", s.Name, i, got, s.First[i])
						}
						fmt.Fprintln(sum, got)
					}
					if got := hex.EncodeToString(sum.Sum(nil)); got != s.MD5 {
						t.Errorf("split %s has the digest %s, want %s", s.Name, got, s.MD5)
					}
				}
			})
		}
	}
}

// TestFiles finds splits and the kind of data files in hundreds of listings.
func TestFiles(t *testing.T) {
	type answer struct {
		Files  []string
		Kind   string
		Splits [][2]any
		Error  string
	}
	for _, want := range golden[[]answer](t, "files.json") {
		files := &tree{root: t.TempDir(), files: slices.Clone(want.Files)}
		slices.Sort(files.files)
		var splits []splitFiles
		kind := ""
		patterns, err := files.findPatterns()
		if err == nil {
			splits, err = files.resolve(patterns)
		}
		if err == nil {
			kind, err = files.inferKind(splits)
		}
		if (err != nil) != (want.Error != "") {
			t.Errorf("%q: error %v, want %q", want.Files, err, want.Error)
		}
		if err != nil || want.Error != "" {
			continue
		}
		keep(kind, splits)
		got := [][2]any{}
		for _, s := range splits {
			names := []any{}
			for _, f := range s.files {
				names = append(names, f)
			}
			got = append(got, [2]any{s.split, names})
		}
		if kind != want.Kind || !reflect.DeepEqual(got, want.Splits) {
			t.Errorf("%q: %s %v, want %s %v", want.Files, kind, got, want.Kind, want.Splits)
		}
	}
}

func TestGlobs(t *testing.T) {
	type answers struct {
		Tree    []string
		Answers []struct {
			Pattern string
			Files   []string
			Error   string
		}
	}
	for _, g := range golden[[]answers](t, "globs.json") {
		files := &tree{files: slices.Clone(g.Tree)}
		slices.Sort(files.files)
		for _, want := range g.Answers {
			got, err := files.match(want.Pattern)
			if (err != nil) != (want.Error != "") {
				t.Errorf("%q: error %v, want %q", want.Pattern, err, want.Error)
			}
			if !slices.Equal(got, want.Files) {
				t.Errorf("%q matches %q, want %q", want.Pattern, got, want.Files)
			}
		}
	}
}

func TestSlices(t *testing.T) {
	type answers struct {
		Sizes   map[string]int
		Answers []struct {
			Text  string
			Parts [][3]any
			Error string
		}
	}
	for _, g := range golden[[]answers](t, "slices.json") {
		for _, want := range g.Answers {
			got, err := resolveSlices(want.Text, g.Sizes)
			if (err != nil) != (want.Error != "") {
				t.Errorf("%q: error %v, want %q", want.Text, err, want.Error)
				continue
			}
			if err != nil && !errors.Is(err, ErrSplit) {
				t.Errorf("%q: %v is no ErrSplit", want.Text, err)
			}
			if err == nil && !reflect.DeepEqual(got, want.Parts) {
				t.Errorf("%q is %v, want %v", want.Text, got, want.Parts)
			}
		}
	}
}

func resolveSlices(text string, sizes map[string]int) ([][3]any, error) {
	terms, err := parseSplit(text)
	if err != nil {
		return nil, err
	}
	var parts [][3]any
	for _, term := range terms {
		n, ok := sizes[term.split]
		if !ok {
			return nil, notFound(ErrSplit, term.split, nil)
		}
		from, to, err := term.bounds(n)
		if err != nil {
			return nil, err
		}
		parts = append(parts, [3]any{term.split, float64(from), float64(to)})
	}
	return parts, nil
}

func digest(numbers []int) string {
	sum := md5.New()
	for _, n := range numbers {
		fmt.Fprintln(sum, n)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// TestShuffles compares with numpy.random.default_rng(seed).permutation(n) and Dataset.train_test_split.
func TestShuffles(t *testing.T) {
	type answers struct {
		Permutations []struct {
			Seed  string
			N     int
			First []int
			MD5   string
		}
		Splits []struct {
			N           int
			Size        float64
			Seed        uint64
			Whole       bool
			Train, Test string
			Tests       int
			Error       string
		}
	}
	g := golden[[]answers](t, "shuffles.json")[0]
	for _, want := range g.Permutations {
		seed, err := strconv.ParseUint(want.Seed, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		got := newGenerator(seed).permutation(want.N)
		if digest(got) != want.MD5 {
			t.Errorf("seed %d, %d numbers: %v…, want %v…", seed, want.N, got[:len(want.First)], want.First)
		}
	}
	for _, want := range g.Splits {
		if want.Size == 1 && !want.Whole {
			continue // 1.0 is no share in Python; here it is the number 1
		}
		rows := &Rows{refs: make([]rowRef, want.N)}
		for i := range rows.refs {
			rows.refs[i].row = uint32(i)
		}
		train, test, err := rows.TrainTestSplit(want.Size, want.Seed)
		if (err != nil) != (want.Error != "") {
			t.Errorf("%d rows, test size %v: error %v, want %q", want.N, want.Size, err, want.Error)
		}
		if err != nil || want.Error != "" {
			continue
		}
		if test.Len() != want.Tests || digest(rowNumbers(train)) != want.Train || digest(rowNumbers(test)) != want.Test {
			t.Errorf("%d rows, test size %v, seed %d: %d other test rows than the %d wanted", want.N, want.Size, want.Seed, test.Len(), want.Tests)
		}
	}
}

func rowNumbers(r *Rows) []int {
	numbers := make([]int, len(r.refs))
	for i, ref := range r.refs {
		numbers[i] = int(ref.row)
	}
	return numbers
}
