package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/parquet-go/parquet-go"

	"github.com/hubtool/hubtool/adapters/train"
)

// predictionFiles write a finished list of predictions, by the file's extension.
var predictionFiles = map[string]func(w io.Writer, all iterator) error{
	".jsonl":   writeJSONLines,
	".csv":     writeCSV,
	".parquet": writeParquet,
}

// iterator calls yield with one prediction after the other.
type iterator = func(yield func(*prediction) error) error

// predictionFile collects predictions in a journal beside the file that they are for, FILE.partial, so
// that a run that dies at any time can go on; finish turns the journal into the file.
type predictionFile struct {
	path    string
	journal *os.File
	done    map[int]bool // images that an earlier run has classified
}

// entry is a line of the journal; its first line is an entry with a key alone.
type entry struct {
	Key    string      `json:"key,omitempty"`
	Index  int         `json:"index"`
	Result *prediction `json:"result,omitempty"`
}

// journalKey identifies the work of a run: another model, image or setting makes another journal.
func journalKey(ref string, o predictOptions, m *train.Classifier, names []string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %d %t %q %q %q %q\n%q\n", ref, o.base, o.precision, o.topK, o.logits, o.dataset, o.config, o.split, o.shard, m.Labels)
	for _, name := range names {
		fmt.Fprintf(h, "%q\n", name)
	}
	if m.Adapter != nil { // which may have been trained anew under the same name
		for _, p := range m.Adapter.Params() {
			_ = binary.Write(h, binary.LittleEndian, p.Values) // a hash takes everything
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// openPredictions opens the journal of a file that does not exist yet, with what it has already.
func openPredictions(path, key string, force bool) (*predictionFile, error) {
	fail := func(err error) (*predictionFile, error) {
		return nil, fmt.Errorf("writing predictions to %q: %w", path, err)
	}
	if force {
		for _, old := range []string{path, path + ".partial"} {
			if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fail(err)
			}
		}
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, usage("writing predictions", fmt.Sprintf("%q exists: choose another file, or --force to replace it", path))
	}
	f, err := os.OpenFile(path+".partial", os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return fail(err)
	}
	p := &predictionFile{path: path, journal: f, done: map[int]bool{}}
	if err := p.resume(key); err != nil {
		f.Close()
		return fail(err)
	}
	return p, nil
}

// resume reads the journal's whole lines, cuts off what a crash left of the last, and stands at the
// end.
func (p *predictionFile) resume(key string) error {
	end := int64(0)
	err := p.lines(func(line []byte, e *entry) error {
		if end == 0 && e.Key != key {
			return usage("writing predictions", fmt.Sprintf("%q is of other images or settings: repeat that run, or begin anew with --force", p.journal.Name()))
		}
		if end > 0 {
			p.done[e.Index] = true
		}
		end += int64(len(line))
		return nil
	})
	if err != nil {
		return err
	}
	if err := p.journal.Truncate(end); err != nil {
		return err
	}
	if _, err := p.journal.Seek(end, io.SeekStart); err != nil {
		return err
	}
	if end == 0 {
		return p.write(entry{Key: key})
	}
	return nil
}

// lines reads the journal from its beginning up to the first line that is not whole.
func (p *predictionFile) lines(use func(line []byte, e *entry) error) error {
	if _, err := p.journal.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := bufio.NewReader(p.journal)
	for {
		line, err := r.ReadBytes('\n')
		var e entry
		if err == io.EOF || err == nil && json.Unmarshal(line, &e) != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := use(line, &e); err != nil {
			return err
		}
	}
}

func (p *predictionFile) write(e entry) error {
	line, err := json.Marshal(e)
	if err == nil {
		_, err = p.journal.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing predictions to %q: %w", p.journal.Name(), err)
	}
	return nil
}

func (p *predictionFile) add(index int, result *prediction) error {
	return p.write(entry{Index: index, Result: result})
}

// all yields the predictions in the order of the images, which a resumed run may have left.
func (p *predictionFile) all(yield func(*prediction) error) error {
	places := map[int]int64{}
	last, at := -1, int64(0)
	err := p.lines(func(line []byte, e *entry) error {
		if at > 0 {
			places[e.Index], last = at, max(last, e.Index)
		}
		at += int64(len(line))
		return nil
	})
	if err != nil {
		return err
	}
	for i := 0; i <= last; i++ {
		place, ok := places[i]
		if !ok {
			continue
		}
		var e entry
		line, err := bufio.NewReader(io.NewSectionReader(p.journal, place, at-place)).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &e)
		}
		if err == nil {
			err = yield(e.Result)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// finish writes the file, which appears under its name when it is complete, and removes the journal.
func (p *predictionFile) finish() error {
	fail := func(err error) error { return fmt.Errorf("writing predictions to %q: %w", p.path, err) }
	tmp, err := os.CreateTemp(filepath.Dir(p.path), filepath.Base(p.path)+".*")
	if err != nil {
		return fail(err)
	}
	defer os.Remove(tmp.Name())
	w := bufio.NewWriter(tmp)
	err = predictionFiles[filepath.Ext(p.path)](w, p.all)
	if err = errors.Join(err, w.Flush(), tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return fail(err)
	}
	if err := os.Rename(tmp.Name(), p.path); err != nil {
		return fail(err)
	}
	if err := os.Remove(p.journal.Name()); err != nil {
		return fail(err)
	}
	return nil
}

// Close leaves the journal, for the next run, unless finish has removed it.
func (p *predictionFile) Close() { p.journal.Close() }

func writeJSONLines(w io.Writer, all iterator) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return all(func(p *prediction) error { return enc.Encode(p) })
}

// writeCSV has the columns image, truth, label, score, and label_2, score_2 … for the other classes.
func writeCSV(w io.Writer, all iterator) error {
	out := csv.NewWriter(w)
	head := true
	err := all(func(p *prediction) error {
		row := []string{p.Image, p.Truth}
		names := []string{"image", "truth"}
		for i, g := range p.Predictions {
			suffix := ""
			if i > 0 {
				suffix = "_" + strconv.Itoa(i+1)
			}
			names = append(names, "label"+suffix, "score"+suffix)
			row = append(row, g.Label, strconv.FormatFloat(g.Score, 'g', 8, 64))
		}
		if head {
			head = false
			if err := out.Write(names); err != nil {
				return err
			}
		}
		return out.Write(row)
	})
	out.Flush()
	return errors.Join(err, out.Error())
}

func writeParquet(w io.Writer, all iterator) error {
	out := parquet.NewGenericWriter[prediction](w, parquet.Compression(&parquet.Zstd))
	err := all(func(p *prediction) error {
		_, err := out.Write([]prediction{*p})
		return err
	})
	return errors.Join(err, out.Close())
}
