package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hubtool/hubtool/internal/hashing"
)

const digits = "../../testdata/digits"

// write makes a data set in a fresh directory out of file names and contents; a content "@path" is a copy of that file
// of testdata.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if source, ok := strings.CutPrefix(content, "@"); ok {
			b, err := os.ReadFile(filepath.Join("testdata", source))
			if err != nil {
				t.Fatal(err)
			}
			content = string(b)
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func readme(yaml string) string { return "---\n" + yaml + "\n---\n" }

const (
	threeClasses = "@configs/one/train-00000-of-00001.parquet"
	picture      = "@single/no/0.png"
)

// TestErrors has what users get wrong: each error has its kind, and says what there is or what to do.
func TestErrors(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		opts  Options
		split string
		kind  error
		text  []string
	}{
		{
			name: "no such configuration", files: map[string]string{"README.md": "@configs/README.md"},
			opts: Options{Config: "tow"}, kind: ErrConfigName, text: []string{`"tow"`, `did you mean "two"`, "one, two, three, four"},
		},
		{
			name:  "several configurations",
			files: map[string]string{"README.md": readme("configs:\n- config_name: a\n  data_files: x\n- config_name: b\n  data_files: x")},
			kind:  ErrConfigName, text: []string{"choose one", `"a" "b"`},
		},
		{
			name:  "two defaults",
			files: map[string]string{"README.md": readme("configs:\n- config_name: a\n  default: true\n- config_name: default")},
			kind:  ErrConfigName, text: []string{`"a" and "default"`},
		},
		{
			name: "no such split", files: map[string]string{"train.parquet": threeClasses}, split: "tarin[:5]",
			kind: ErrSplit, text: []string{`"tarin"`, `did you mean "train"`, "there is: train"},
		},
		{
			name: "empty slice", files: map[string]string{"train.parquet": threeClasses}, split: "train[3:2]",
			kind: ErrSplit, text: []string{`"train[3:2]"`, "train with 5 rows"},
		},
		{
			name: "malformed slice", files: map[string]string{"train.parquet": threeClasses}, split: "train[:5.5]",
			kind: ErrSplit, text: []string{`"train[:5.5]"`, "split[from:to]"},
		},
		{
			name: "no such column", files: map[string]string{"train.parquet": threeClasses}, opts: Options{LabelColumn: "lable"},
			kind: ErrColumn, text: []string{`"lable"`, `did you mean "label"`, "image, label"},
		},
		{
			name: "labels in an image column", files: map[string]string{"train.parquet": threeClasses}, opts: Options{ImageColumn: "label"},
			kind: ErrColumn, text: []string{`"label" holds no images`},
		},
		{
			name: "two label columns", files: map[string]string{"a.parquet": "@two-labels/data/train-00000-of-00001.parquet"},
			kind: ErrColumn, text: []string{"choose one of fine_label, coarse_label"},
		},
		{
			name: "images in one folder", files: map[string]string{"a/1.png": picture}, kind: ErrColumn, text: []string{"several", "depth"},
		},
		{
			name: "unlabelled metadata", files: map[string]string{"1.png": picture, "metadata.csv": "file_name,text\n1.png,x\n"},
			kind: ErrColumn, text: []string{"image, text"},
		},
		{
			name: "metadata without file names", files: map[string]string{"1.png": picture, "metadata.csv": "name,label\n1.png,x\n"},
			kind: ErrColumn, text: []string{"file_name"},
		},
		{
			name: "metadata leads out", files: map[string]string{"1.png": picture, "metadata.csv": "file_name,label\na/../../1.png,x\n"},
			kind: ErrDamaged, text: []string{"row 0", `"a/../../1.png"`},
		},
		{
			name: "metadata with an address", files: map[string]string{"1.png": picture, "metadata.jsonl": `{"file_name":"file:///1.png","label":1}`},
			kind: ErrDamaged, text: []string{"relative path"},
		},
		{
			name: "metadata with too many fields", files: map[string]string{"1.png": picture, "metadata.csv": "file_name,label\n1.png,x,y\n"},
			kind: ErrDamaged, text: []string{"line 2"},
		},
		{
			name: "metadata of two kinds",
			files: map[string]string{
				"1.png": picture, "a/metadata.csv": "file_name,label\nx.png,x\n", "b/metadata.jsonl": `{"file_name":"1.png","kind":1}`,
			},
			kind: ErrColumn, text: []string{"a/metadata.csv", "b/metadata.jsonl"},
		},
		{
			name: "identifiers as labels", files: map[string]string{"1.png": picture, "metadata.csv": "file_name,label\n1.png,1234567890\n"},
			kind: ErrColumn, text: []string{"1234567890 is no class number"},
		},
		{name: "nothing there", files: map[string]string{"README.md": "# hello"}, kind: ErrNoData, text: []string{"expected parquet"}},
		{
			name:  "no match",
			files: map[string]string{"README.md": readme("configs:\n- config_name: a\n  data_files: b.parquet"), "a.parquet": threeClasses},
			kind:  ErrNoData, text: []string{`"b.parquet"`, `"train"`},
		},
		{
			name:  "no match for one split",
			files: map[string]string{"README.md": "@../../../testdata/digits/README.md", "data/train-0.parquet": threeClasses},
			kind:  ErrNoData, text: []string{"data/test-*", `"test"`},
		},
		{
			name:  "files elsewhere",
			files: map[string]string{"README.md": readme("configs:\n- config_name: a\n  data_files: https://example.com/a.parquet")},
			kind:  ErrUnsupported, text: []string{"https://example.com/a.parquet"},
		},
		{name: "text", files: map[string]string{"a.txt": "x"}, kind: ErrUnsupported, text: []string{"text files"}},
		{name: "saved to disk", files: map[string]string{"a.arrow": "x"}, kind: ErrUnsupported, text: []string{"push_to_hub"}},
		{name: "table without images", files: map[string]string{"a.csv": "x,label\n1,2\n"}, kind: ErrColumn, text: []string{"image column", "x, label", "card"}},
		{
			name: "numbers as images", files: map[string]string{"a.csv": "x,label\n1,2\n"}, opts: Options{ImageColumn: "x"},
			kind: ErrColumn, text: []string{`"x" holds no images`},
		},
		{
			name: "images elsewhere", files: map[string]string{"a.jsonl": `{"x":"https://example.com/1.png","label":1}`}, opts: Options{ImageColumn: "x"},
			kind: ErrUnsupported, text: []string{"a.jsonl", "row 0", "https://example.com/1.png"},
		},
		{
			name: "tables of two kinds", files: map[string]string{"train-1.csv": "x,label\na.png,2\n", "train-2.csv": "x,kind\na.png,2\n"},
			opts: Options{ImageColumn: "x"}, kind: ErrColumn, text: []string{"train-2.csv", `"label"`},
		},
		{name: "broken table", files: map[string]string{"a.json": "[{]"}, kind: ErrDamaged, text: []string{"a.json"}},
		{
			name: "two kinds", files: map[string]string{"train.csv": "x", "test.parquet": threeClasses},
			kind: ErrUnsupported, text: []string{"csv", "parquet"},
		},
		{
			name:  "missing shard",
			files: map[string]string{"README.md": readme("dataset_info:\n  splits:\n  - name: train\n    num_examples: 6"), "a.parquet": threeClasses},
			kind:  ErrDamaged, text: []string{"5 rows", "declares 6"},
		},
		{
			name:  "missing split",
			files: map[string]string{"README.md": readme("dataset_info:\n  splits:\n  - name: test\n    num_examples: 6"), "a.parquet": threeClasses},
			kind:  ErrDamaged, text: []string{`"test"`},
		},
		{
			name:  "label beyond the classes",
			files: map[string]string{"README.md": readme("dataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n      class_label:\n        names: [a, b]"), "a.parquet": threeClasses},
			split: "train", kind: ErrDamaged, text: []string{"row 2", "a.parquet", "label 2", "2 classes"},
		},
		{
			name:  "class twice",
			files: map[string]string{"README.md": readme("dataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n      class_label:\n        names: [a, b, a]"), "a.parquet": threeClasses},
			kind:  ErrDamaged, text: []string{`"a" occurs twice`},
		},
		{name: "no parquet", files: map[string]string{"a.parquet": "PAR1 and then nothing"}, kind: ErrDamaged, text: []string{"a.parquet"}},
		{name: "no zip", files: map[string]string{"a.zip": "PK"}, kind: ErrDamaged, text: []string{"a.zip"}},
		{name: "broken legacy infos", files: map[string]string{"a.parquet": threeClasses, "dataset_infos.json": "{"}, kind: ErrDamaged, text: []string{"dataset_infos.json"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := write(t, test.files)
			d, err := Open(dir, test.opts)
			if err == nil {
				defer d.Close()
				if test.split == "" {
					t.Fatal("no error")
				}
				_, err = d.Select(test.split)
			}
			if !errors.Is(err, test.kind) {
				t.Fatalf("%v is no %q", err, test.kind)
			}
			for _, text := range test.text {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q does not mention %q", err, text)
				}
			}
			if strings.HasSuffix(err.Error(), ".") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is not one line without a full stop", err)
			}
		})
	}
}

// TestBadCards has README front matter that cannot be read.
func TestBadCards(t *testing.T) {
	for _, yaml := range []string{
		"configs: [", "configs: {a: b}", "configs:\n- data_files: x", "configs:\n- config_name: a\n  data_files: {train: x}",
		"configs:\n- config_name: a\n  data_files:\n  - x\n  - split: a\n    path: y",
		"configs:\n- config_name: a\n  data_files:\n  - split: a-b\n    path: y",
		"configs:\n- config_name: a\n  data_files:\n  - split: a\n    path: y\n  - split: a\n    path: z",
		"configs:\n- config_name: a\n  data_files:\n  - split: a\n    path: y\n    more: z",
		"configs:\n- config_name: a\n  data_files:\n  - split: a",
		"dataset_info:\n  features: 3",
		"dataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n          '0': a\n          '2': b",
		"dataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n          one: a",
		"dataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label: {}",
	} {
		_, err := Open(write(t, map[string]string{"README.md": readme(yaml), "a.parquet": threeClasses}), Options{})
		if err == nil || !strings.Contains(err.Error(), "README.md") {
			t.Errorf("%q: error %v does not name README.md", yaml, err)
		}
	}
}

func TestOpenNoDirectory(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing directory gives %v", err)
	}
	if _, err := Open("dataset.go", Options{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a file gives %v", err)
	}
}

// TestReadErrors has files that break after they were opened: the error names file and row.
func TestReadErrors(t *testing.T) {
	dir := write(t, map[string]string{"a/1.png": picture, "b/2.png": picture, "m/metadata.csv": ""})
	os.RemoveAll(filepath.Join(dir, "m"))
	d, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	rows, err := d.Select("train")
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, "b/2.png"))
	_, err = rows.At(1)
	var e *Error
	if !errors.As(err, &e) || e.Row != 1 || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "2.png") {
		t.Errorf("a removed image gives %v", err)
	}

	dir = write(t, map[string]string{"train.parquet": threeClasses})
	p, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if rows, err = p.Select("train"); err != nil {
		t.Fatal(err)
	}
	os.Truncate(filepath.Join(dir, "train.parquet"), 100)
	_, err = rows.At(4)
	if !errors.As(err, &e) || e.Row != 4 || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "train.parquet") {
		t.Errorf("a truncated file gives %v", err)
	}
}

// TestLayouts makes sure that a layout which can be read in place is, and that others are not.
func TestLayouts(t *testing.T) {
	for dir, want := range map[string]string{
		digits: "*dataset.spans", "testdata/plain": "*dataset.spans", "testdata/page-v2": "*dataset.spans",
		"testdata/statistics": "*dataset.spans", "testdata/required": "*dataset.spans",
		"testdata/old": "*dataset.groups", "testdata/dictionary": "*dataset.groups", "testdata/zstd": "*dataset.groups",
		"testdata/delta": "*dataset.groups",
	} {
		d, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if _, err := d.Select("train"); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%T", d.shards[0].(*parquetShard).store); got != want {
			t.Errorf("%s is read by %s, want %s", dir, got, want)
		}
	}
}

// TestConcurrentReads reads rows from many goroutines, in the ways that parquet files, folders and archives are read.
func TestConcurrentReads(t *testing.T) {
	cache := t.TempDir()
	for _, test := range []struct {
		dir  string
		opts Options
	}{
		{digits, Options{}}, {"testdata/old", Options{}}, {"testdata/old", Options{Cache: Cache{Dir: cache}}},
		{"testdata/folder", Options{}}, {"testdata/zip-classes", Options{}},
	} {
		d, err := Open(test.dir, test.opts)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		rows, err := d.Select("train[-100:]+train[:100]")
		if err != nil {
			t.Fatal(err)
		}
		want := make([]Row, rows.Len())
		for i := range want {
			if want[i], err = rows.At(i); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				for k := range rows.Len() {
					i := (k*7 + worker*13) % rows.Len()
					row, err := rows.At(i)
					if err != nil || !bytes.Equal(row.Image, want[i].Image) || row.Label != want[i].Label {
						t.Errorf("%s row %d differs when read concurrently: %v", test.dir, i, err)
						return
					}
					clear(row.Image) // the slice is the caller's
					if _, err := d.Select("test"); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// TestRecordFiles checks that files are unpacked once, under a name that follows their content, and again if the record
// file is damaged.
func TestRecordFiles(t *testing.T) {
	cache := t.TempDir()
	source := write(t, map[string]string{"train.parquet": "@old/data/test-00000-of-00001.parquet"})
	read := func() (unpacked int) {
		t.Helper()
		d, err := Open(source, Options{Cache: Cache{Dir: cache}, Notes: Notes{Unpacking: func(string) { unpacked++ }}})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		rows, err := d.Select("train")
		if err != nil {
			t.Fatal(err)
		}
		if row, err := rows.At(19); err != nil || len(row.Image) < 50 {
			t.Fatalf("row 19: %d bytes, %v", len(row.Image), err)
		}
		return unpacked
	}
	list := func() []string {
		names, err := filepath.Glob(filepath.Join(cache, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	if n := read(); n != 1 || len(list()) != 1 {
		t.Fatalf("unpacked %d times into %q", n, list())
	}
	if n := read(); n != 0 {
		t.Errorf("unpacked again")
	}
	records, err := os.ReadFile(list()[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []func([]byte) []byte{
		func(b []byte) []byte { return b[:len(b)-1] },
		func(b []byte) []byte { return nil },
		func(b []byte) []byte { b[0]++; return b },
		func(b []byte) []byte { b[len(b)-20]++; return b },
		func(b []byte) []byte { b[len(b)-9]++; return b },
	} {
		if err := os.WriteFile(list()[0], damage(bytes.Clone(records)), 0o644); err != nil {
			t.Fatal(err)
		}
		if n := read(); n != 1 {
			t.Errorf("a damaged record file was used")
		}
		if got, _ := os.ReadFile(list()[0]); !bytes.Equal(got, records) {
			t.Errorf("unpacking again gives another file")
		}
	}

	// Another content has another record file; a directory that cannot be written is an error that names it.
	if err := os.WriteFile(filepath.Join(source, "train.parquet"), mustRead(t, "testdata/old/data/train-00001-of-00002.parquet"), 0o644); err != nil {
		t.Fatal(err)
	}
	if n := read(); n != 1 || len(list()) != 2 {
		t.Errorf("other content: unpacked %d times into %q", n, list())
	}
	d, err := Open(source, Options{Cache: Cache{Dir: filepath.Join(source, "train.parquet")}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Select("train"); err == nil || !strings.Contains(err.Error(), "unpacking") {
		t.Errorf("an unusable cache directory gives %v", err)
	}
}

// TestHubCacheFiles reads a snapshot of a Hub cache, whose files are links to blobs named by their hash.
func TestHubCacheFiles(t *testing.T) {
	blob := strings.Repeat("ab", 32)
	root := write(t, map[string]string{"blobs/" + blob: "@old/data/test-00000-of-00001.parquet"})
	snapshot := filepath.Join(root, "snapshots/1/data")
	if err := os.MkdirAll(snapshot, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../blobs/"+blob, filepath.Join(snapshot, "train-00000-of-00001.parquet")); err != nil {
		t.Skip(err)
	}
	d, err := Open(filepath.Dir(snapshot), Options{Cache: Cache{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if rows, err := d.Select("train"); err != nil || rows.Len() != 20 {
		t.Fatal(rows, err)
	}
	if hash, err := hashing.Content(d.shards[0].(*parquetShard).file); err != nil || hash != blob {
		t.Errorf("content hash %s, %v", hash, err)
	}
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestConvertedBranch reads the layout of the branch refs/convert/parquet: folders for configurations and splits.
func TestConvertedBranch(t *testing.T) {
	dir := write(t, map[string]string{
		".gitattributes": "x", "fine/test/0000.parquet": threeClasses, "fine/partial-train/0000.parquet": threeClasses,
		"fine/partial-train/0001.parquet": threeClasses, "coarse/odd_split/0000.parquet": threeClasses,
	})
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrConfigName) {
		t.Errorf("opening one of two configurations: %v", err)
	}
	for config, want := range map[string]string{"fine": "[{train 10} {test 5}]", "coarse": "[{odd_split 5}]"} {
		d, err := Open(dir, Options{Config: config})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if got := fmt.Sprint(d.Splits()); got != want || d.Config() != config || fmt.Sprint(d.Configs()) != "[coarse fine]" {
			t.Errorf("%s of %q has the splits %s, want %s", d.Config(), d.Configs(), got, want)
		}
	}
}

// TestPlainNumbers has class numbers that nothing declares the names of, and counts them.
func TestPlainNumbers(t *testing.T) {
	dir := write(t, map[string]string{
		"1.png": picture, "metadata.csv": "file_name,label\n1.png,2\n1.png,\n1.png,0\n1.png,2.0\n1.png,-1\n",
	})
	d, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	rows, err := d.Select("train")
	if err != nil {
		t.Fatal(err)
	}
	classes, unlabelled := rows.Counts()
	if fmt.Sprint(rows.ClassNames(), classes, unlabelled) != "[0 1 2] [1 0 2] 2" {
		t.Errorf("classes %q with %v rows, %d without", rows.ClassNames(), classes, unlabelled)
	}
}

// TestSizes counts the files that rows lie in: images of tables, each once, and whole archives.
func TestSizes(t *testing.T) {
	for _, test := range []struct {
		dir, split string
		opts       Options
		files      []string
	}{
		{"table-csv", "train", Options{}, []string{"images/0.png", "images/1.png", "images/2.png"}},
		{"web", "test", Options{}, []string{"test-00.tar.gz"}},
		{"csv", "validation", Options{}, []string{"validation/sub/0.png", "validation/sub/2.png"}},
		{"zip-classes", "test", Options{}, []string{"test.zip"}},
	} {
		d, err := Open(filepath.Join("testdata", test.dir), test.opts)
		if err != nil {
			t.Fatal(err)
		}
		want := int64(0)
		for _, file := range test.files {
			want += int64(len(mustRead(t, filepath.Join("testdata", test.dir, file))))
		}
		if got, err := d.Size(test.split); err != nil || got != want {
			t.Errorf("%s: %d bytes, %v, want %d", test.dir, got, err, want)
		}
		d.Close()
	}
}

// TestAllSplits sums all splits, in their order.
func TestAllSplits(t *testing.T) {
	d, err := Open(digits, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	all, err := d.Select("all")
	if err != nil || all.Len() != 1437+360 {
		t.Fatalf("%d rows, %v", all.Len(), err)
	}
	test, err := d.Select("test")
	if err != nil || all.refs[1437] != test.refs[0] {
		t.Errorf("row 1437 is %v, not the first test row: %v", all.refs[1437], err)
	}
	if _, err := d.Select("all[:5]"); !errors.Is(err, ErrSplit) {
		t.Errorf("all[:5] gives %v, but datasets has no such split", err)
	}
}

// TestOnlyClasses renumbers labels by the names asked for, also of a selection that was renumbered before.
func TestOnlyClasses(t *testing.T) {
	d, err := Open(digits, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	all, err := d.Select("train")
	if err != nil {
		t.Fatal(err)
	}
	counts, _ := all.Counts()
	some, err := all.OnlyClasses([]string{"seven", "two", "nine"})
	if err != nil {
		t.Fatal(err)
	}
	two, err := some.OnlyClasses([]string{"nine", "seven"})
	if err != nil {
		t.Fatal(err)
	}
	as := two.NumberedAs([]string{"cat", "seven", "one"}) // a model may know classes that are not there
	part, _, err := two.TrainTestSplit(0.5, 1)
	if err != nil {
		t.Fatal(err)
	}
	if names := as.ClassNames(); as.Len() != counts[7] || as.Label(0) != 1 || !slices.Equal(names, []string{"cat", "seven", "one"}) {
		t.Errorf("numbered as another model: %d rows, the first of class %d of %q; want %d of class 1", as.Len(), as.Label(0), names, counts[7])
	}
	for _, test := range []struct {
		rows   *Rows
		labels []int // of the data set
		n      int
	}{{some, []int{7, 2, 9}, counts[7] + counts[2] + counts[9]}, {two, []int{9, 7}, counts[9] + counts[7]}, {part, []int{9, 7}, (counts[9] + counts[7]) / 2}} {
		if test.rows.Len() != test.n {
			t.Errorf("%q: %d rows, want %d", test.rows.ClassNames(), test.rows.Len(), test.n)
		}
		sum := 0
		found, unlabelled := test.rows.Counts()
		for i, name := range test.rows.ClassNames() {
			if want := d.ClassNames()[test.labels[i]]; name != want {
				t.Errorf("class %d is %q, want %q", i, name, want)
			}
			sum += found[i]
		}
		if sum != test.n || unlabelled != 0 {
			t.Errorf("%d counted of %d, %d unlabelled", sum, test.n, unlabelled)
		}
		for i := range test.rows.Len() {
			row, err := test.rows.At(i)
			ref := test.rows.refs[i]
			if err != nil || row.Label != test.rows.Label(i) || test.labels[row.Label] != d.shards[ref.shard].label(int(ref.row)) {
				t.Fatalf("row %d has label %d: %v", i, row.Label, err)
			}
		}
	}
	for _, test := range []struct {
		rows  *Rows
		names []string
		text  string
	}{
		{all, []string{"sevn"}, `did you mean "seven"`},
		{some, []string{"one"}, `"one"`},
		{all, []string{"one", "one"}, "twice"},
		{all, nil, "none of the 1437 rows"},
	} {
		if _, err := test.rows.OnlyClasses(test.names); !errors.Is(err, ErrClass) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%q: %v", test.names, err)
		}
	}
}
