package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPruneOfUnfinishedMerges(t *testing.T) {
	p := newProcess(t, "http://127.0.0.1:1") // nobody is asked
	dir := filepath.Join(p.args[3], "hubtool-merges")
	size := 0
	for name, data := range map[string]string{
		"dead/lock": "", "dead/merge/.hubtool-merge": "{}\n", "dead/merge/model-00001-of-00002.safetensors": strings.Repeat("x", 1000), // killed
		"early/merge/.hubtool-merge": "", // killed before it made its lock
		"live/lock":                  "", "live/merge/model.safetensors": "weights",
		"not-ours": "a file",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "dead") {
			size += len(data)
		}
	}
	held, err := pendingMerge{Path: filepath.Join(dir, "live")}.hold()
	if err != nil {
		t.Fatal(err)
	}
	names := func(report map[string]any) map[string]int {
		found := map[string]int{}
		for _, m := range report["merges"].([]any) {
			m := m.(map[string]any)
			found[m["name"].(string)] = int(m["size"].(float64))
			if m["modified"].(string) < "2020" {
				t.Errorf("%v has no age", m)
			}
		}
		return found
	}
	listed, stderr := p.run(0, "cache", "ls")
	if found := names(listed); len(found) != 3 || found["dead"] != size || found["live"] != len("weights") {
		t.Errorf("listed %v", found)
	}
	if strings.Contains(stderr, "hubtool-merges") {
		t.Errorf("a folder of ours is a surprise: %s", stderr)
	}
	for _, args := range [][]string{{"cache", "prune", "--dry-run"}, {"cache", "prune", "--yes"}} {
		report, _ := p.run(0, args...)
		if found := names(report); len(found) != 2 || found["dead"] != size || report["bytes_freed"] != float64(size) {
			t.Errorf("%q: %v, %v bytes freed", args, found, report["bytes_freed"])
		}
		_, err := os.Stat(filepath.Join(dir, "dead"))
		if dry := args[2] == "--dry-run"; dry != (err == nil) {
			t.Errorf("%q: the abandoned folder: %v", args, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "live", "merge", "model.safetensors")); err != nil {
		t.Errorf("a merge that a process works on was removed: %v", err)
	}
	held.Close()
	report, _ := p.run(0, "cache", "prune", "--yes")
	if found := names(report); len(found) != 1 || found["live"] == 0 {
		t.Errorf("after its process has ended: %v", found)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(left) != 1 || filepath.Base(left[0]) != "not-ours" {
		t.Errorf("left %q", left)
	}
}
