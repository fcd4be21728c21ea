package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A journal that a crash has left at any byte goes on to the file of an uninterrupted run, even where
// images come in another order.
func TestPredictionsResume(t *testing.T) {
	results := []*prediction{
		{Image: "a.png", Predictions: []guess{{"cat", 0, 0.75}, {"dog", 1, 0.25}}},
		{Image: "b,\n\"b\".png", Truth: "dog", Predictions: []guess{{"dog", 1, 0.5}, {"cat", 0, 0.5}}},
		{Image: "c.png", Predictions: []guess{{"cat", 0, 1}, {"dog", 1, 0}}},
	}
	dir := t.TempDir()
	run := func(path string, order ...int) string {
		t.Helper()
		f, err := openPredictions(path, "key", false)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, i := range order {
			if f.done[i] {
				continue
			}
			if err := f.add(i, results[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.finish(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	want := run(filepath.Join(dir, "whole.csv"), 0, 1, 2)
	if !strings.HasPrefix(want, "image,truth,label,score,label_2,score_2\na.png,,cat,0.75,dog,0.25\n\"b,\n") {
		t.Errorf("the table is %q", want)
	}

	path := filepath.Join(dir, "resumed.csv")
	f, err := openPredictions(path, "key", false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range results {
		if err := f.add(i, results[i]); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	journal, err := os.ReadFile(path + ".partial")
	if err != nil {
		t.Fatal(err)
	}
	for n := range journal {
		if err := os.WriteFile(path+".partial", journal[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		if got := run(path, 2, 0, 1); got != want {
			t.Fatalf("cut at byte %d, the file is %q, want %q", n, got, want)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.WriteFile(path+".partial", journal, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openPredictions(path, "other", false); !errors.Is(err, errUsage) {
		t.Errorf("a journal of another run: %v, want a usage error", err)
	}
	f, err = openPredictions(path, "other", true)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if len(f.done) > 0 {
		t.Error("--force went on with another run's journal")
	}
	if _, err := openPredictions(filepath.Join(dir, "whole.csv"), "key", false); !errors.Is(err, errUsage) {
		t.Errorf("a file that exists: %v, want a usage error", err)
	}
}
