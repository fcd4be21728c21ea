package dataset

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Another process at work on a cache: the test program again, told by its environment what to do. It says "ready" and
// then lives until its input ends or it is killed.
const taskVariable = "DATASET_TEST_TASK"

func TestMain(m *testing.M) {
	if task := os.Getenv(taskVariable); task != "" {
		if err := doTask(task, Cache{Dir: os.Args[1]}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func doTask(task string, cache Cache) error {
	ready := func() {
		fmt.Println("ready")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	}
	if name, ok := strings.CutPrefix(task, "half:"); ok { // writes half an entry
		_, err := cache.create(name, 0, func(*os.File) error { return ErrDamaged }, func(f *os.File) error {
			_, err := f.WriteString(strings.Repeat("half", 1<<18))
			ready()
			return err
		})
		return err
	}
	if task == "prepare" { // without end
		p, err := cache.Prepare("key", "", preparedImages, preparedSide)
		if err != nil {
			return err
		}
		fmt.Println("ready")
		for i := 0; ; i = (i + 1) % preparedImages {
			if err := p.Put(i, preparedImage(i), preparedSide, preparedSide); err != nil {
				return err
			}
		}
	}
	d, err := Open("testdata/old", Options{Cache: cache})
	if err != nil {
		return err
	}
	defer d.Close()
	rows, err := d.Select("train+test")
	if err != nil {
		return err
	}
	var all []byte
	for i := range rows.Len() {
		row, err := rows.At(i)
		if err != nil {
			return err
		}
		all = append(all, row.Image...)
	}
	fmt.Printf("%d bytes\n", len(all))
	ready()
	return nil
}

const preparedImages, preparedSide = 50, 256

func preparedImage(i int) []byte {
	return bytes.Repeat([]byte{byte(i), byte(i * 7), 3}, preparedSide*preparedSide)
}

// Two processes fill a prepared file together until they are killed: every image there is whole.
func TestPreparedAfterKill(t *testing.T) {
	cache := Cache{Dir: t.TempDir()}
	one, _ := process(t, cache.Dir, "prepare")
	other, _ := process(t, cache.Dir, "prepare")
	p, err := cache.Prepare("key", "", preparedImages, preparedSide)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for { // until they are well under way
		if _, _, _, ok := p.Get(preparedImages/2, nil); ok {
			break
		}
		time.Sleep(time.Millisecond)
	}
	kill(t, one)
	kill(t, other)
	there := 0
	for i := range preparedImages {
		pixels, w, h, ok := p.Get(i, nil)
		if !ok {
			continue
		}
		there++
		if w != preparedSide || h != preparedSide || !bytes.Equal(pixels, preparedImage(i)) {
			t.Errorf("image %d is another", i)
		}
	}
	if there == 0 {
		t.Error("no image is there")
	}
	if dropped, err := cache.Shrink(0, false); err != nil || len(dropped) != 0 {
		t.Errorf("%v was dropped while in use, %v", dropped, err)
	}
}

// process starts a task and waits until it is ready. The lines before that are returned.
func process(t *testing.T, dir, task string) (*exec.Cmd, []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), taskVariable+"="+task)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var lines []string
	for s := bufio.NewScanner(out); s.Scan(); {
		if s.Text() == "ready" {
			return cmd, lines
		}
		lines = append(lines, s.Text())
	}
	t.Fatalf("task %q ended: %q", task, lines)
	return nil, nil
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func kinds(t *testing.T, c Cache) (list []string) {
	t.Helper()
	entries, err := c.Entries()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Kind)
	}
	slices.Sort(list)
	return list
}

// Processes that unpack the same files at the same time read the same images, and leave each file once.
func TestCacheSharedByProcesses(t *testing.T) {
	cache := Cache{Dir: t.TempDir()}
	outputs := make(chan []string, 4)
	for range 4 {
		go func() {
			cmd := exec.Command(os.Args[0], cache.Dir)
			cmd.Env = append(os.Environ(), taskVariable+"=read")
			out, err := cmd.Output() // whose input has ended already
			if err != nil {
				outputs <- []string{err.Error()}
				return
			}
			outputs <- strings.Split(string(out), "\n")
		}()
	}
	want := ""
	for range 4 {
		got := fmt.Sprint(<-outputs)
		if want == "" {
			want = got
		}
		if got != want || !strings.Contains(got, "bytes") {
			t.Errorf("a process read %s, another %s", got, want)
		}
	}
	if got := kinds(t, cache); !slices.Equal(got, []string{"records", "records", "records"}) {
		t.Errorf("the cache holds %q, want one entry of each of three files", got)
	}
}

// What a killed process leaves is no entry, is seen, and makes way for one.
func TestCacheAfterKill(t *testing.T) {
	cache := Cache{Dir: t.TempDir()}
	names := oldEntries(t)
	cmd, _ := process(t, cache.Dir, "half:"+names[0])
	if dropped, err := cache.Shrink(0, false); err != nil || len(dropped) != 0 {
		t.Errorf("while it is being made, %v was dropped, %v", dropped, err)
	}
	kill(t, cmd)
	if got := kinds(t, cache); !slices.Equal(got, []string{"partial"}) {
		t.Fatalf("a killed process left %q", got)
	}
	_, lines := process(t, cache.Dir, "read")
	if got := kinds(t, cache); !slices.Equal(got, []string{"records", "records", "records"}) || len(lines) != 1 {
		t.Errorf("the next process left %q", got)
	}
	cmd, _ = process(t, cache.Dir, "half:"+strings.Repeat("0", 40)+".records")
	kill(t, cmd)
	if dropped, err := cache.Shrink(1<<40, false); err != nil || len(dropped) != 1 || dropped[0].Kind != "partial" {
		t.Errorf("shrinking dropped %v, %v; want what is dead and nothing else", dropped, err)
	}
}

// oldEntries are the names of the entries that testdata/old has.
func oldEntries(t *testing.T) (names []string) {
	t.Helper()
	cache := Cache{Dir: t.TempDir()}
	d, err := Open("testdata/old", Options{Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Select("train+test"); err != nil {
		t.Fatal(err)
	}
	entries, err := cache.Entries()
	if err != nil || len(entries) != 3 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Note, ".parquet") {
			t.Errorf("the note of %q is %q, want the file it was made of", e.Name, e.Note)
		}
		names = append(names, e.Name)
	}
	return names
}

// An entry that a process uses is not dropped; when the process has been killed, it can be.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	cache := Cache{Dir: t.TempDir()}
	cmd, _ := process(t, cache.Dir, "read")
	if dropped, err := cache.Shrink(0, false); err != nil || len(dropped) != 0 {
		t.Errorf("%v was dropped while in use, %v", dropped, err)
	}
	kill(t, cmd)
	if dropped, err := cache.Shrink(0, false); err != nil || len(dropped) != 3 {
		t.Errorf("%v was dropped, %v; want all three", dropped, err)
	}
}

// The cache does not outgrow its limit: the entry used longest ago goes, and what is larger than the limit is read
// without being unpacked.
func TestCacheLimit(t *testing.T) {
	cache := Cache{Dir: t.TempDir()}
	made := func(name string, size int) {
		t.Helper()
		f, err := cache.create(name, int64(size), func(*os.File) error { return ErrDamaged }, func(f *os.File) error {
			_, err := f.Write(make([]byte, size))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for i, name := range []string{"a.records", "b.records", "c.records"} {
		made(name, 100)
		then := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(filepath.Join(cache.Dir, name), then, then); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := cache.open("a.records"); err != nil { // which makes it the newest
		t.Fatal(err)
	} else {
		f.Close()
	}
	cache.Limit = 300
	made("d.records", 100)
	entries, err := cache.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	if !slices.Equal(names, []string{"d.records", "a.records", "c.records"}) {
		t.Errorf("the cache holds %q", names)
	}

	var why error
	d, err := Open("testdata/old", Options{Cache: cache, Notes: Notes{TooLarge: func(_ string, err error) { why = err }}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	rows, err := d.Select("test")
	if err != nil {
		t.Fatal(err)
	}
	if row, err := rows.At(3); err != nil || len(row.Image) < 50 || !errors.Is(why, ErrNoRoom) {
		t.Errorf("row 3 has %d bytes (%v), noted: %v", len(row.Image), err, why)
	}
}

// A prepared image is what was put, or not there: also where a process died between the bytes and the table.
func TestPrepared(t *testing.T) {
	cache := Cache{Dir: t.TempDir()}
	open := func(n int) *Prepared {
		t.Helper()
		p, err := cache.Prepare("key", "made of something", n, 4)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	p, again := open(3), open(3)
	pixels := bytes.Repeat([]byte{1, 2, 3}, 15)
	if _, _, _, ok := p.Get(1, nil); ok {
		t.Error("an image is there at first")
	}
	if err := p.Put(1, pixels, 3, 5); err != nil {
		t.Fatal(err)
	}
	got, w, h, ok := again.Get(1, make([]byte, 0, 100))
	if !ok || w != 3 || h != 5 || !bytes.Equal(got, pixels) {
		t.Errorf("%v, %dx%d, %v", got, w, h, ok)
	}
	if err := p.Put(1, make([]byte, 51), 17, 1); err == nil {
		t.Error("an image that is too large was taken")
	}
	if err := p.Put(2, pixels, 5, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := p.file.WriteAt([]byte{9}, p.offset(1)+2); err != nil {
		t.Fatal(err)
	}
	if _, _, _, ok := again.Get(1, nil); ok {
		t.Error("a damaged image was read")
	}
	if _, _, _, ok := again.Get(2, nil); !ok {
		t.Error("its neighbour is gone")
	}
	if _, _, _, ok := open(4).Get(1, nil); ok {
		t.Error("another number of images has the same file")
	}
	entries, err := cache.Entries()
	if err != nil || len(entries) != 2 || entries[0].Note != "made of something" || entries[0].Kind != "prepared" {
		t.Errorf("entries %+v, %v", entries, err)
	}
}
