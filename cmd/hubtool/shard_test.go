package main

import (
	"errors"
	"testing"
)

func TestParseShard(t *testing.T) {
	for _, c := range []struct {
		text string
		env  map[string]string
		want shard
		fail bool
	}{
		{text: "", want: shard{}},
		{text: "0/1", want: shard{0, 1}},
		{text: "7/8", want: shard{7, 8}},
		{text: "8/8", fail: true},
		{text: "1", fail: true},
		{text: "-1/8", fail: true},
		{text: "1/0", fail: true},
		{text: "auto/8", fail: true},
		{text: "auto", env: map[string]string{"JOB_COMPLETION_INDEX": "2"}, fail: true}, // no count
		{text: "auto/8", env: map[string]string{"JOB_COMPLETION_INDEX": "2"}, want: shard{2, 8}},
		{text: "auto", env: map[string]string{"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, want: shard{2, 4}},
		{text: "auto/2", env: map[string]string{"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, fail: true},
		{text: "auto", env: map[string]string{"SLURM_ARRAY_TASK_ID": "6", "SLURM_ARRAY_TASK_MIN": "2", "SLURM_ARRAY_TASK_MAX": "8", "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "4"}, want: shard{2, 4}},
		// --array=1,5: nobody tells the second task that it is the second.
		{text: "auto", env: map[string]string{"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "5", "SLURM_ARRAY_TASK_STEP": "1", "SLURM_ARRAY_TASK_COUNT": "2"}, fail: true},
		// Tasks 3 and 4 of eight once more: they must not become the first two.
		{text: "auto/8", env: map[string]string{"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "4", "SLURM_ARRAY_TASK_STEP": "1", "SLURM_ARRAY_TASK_COUNT": "2"}, fail: true},
	} {
		t.Run(c.text, func(t *testing.T) {
			for _, name := range []string{"JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT"} {
				t.Setenv(name, c.env[name])
			}
			got, err := parseShard(c.text)
			if c.fail != errors.Is(err, errUsage) || got != c.want {
				t.Errorf("parseShard(%q) with %v = %v, %v; want %v", c.text, c.env, got, err, c.want)
			}
		})
	}
}

// Shares are contiguous, nearly equal, and together everything.
func TestShardOf(t *testing.T) {
	for _, n := range []int{0, 1, 7, 64} {
		at := 0
		for i := range 5 {
			from, to := shard{i, 5}.of(n)
			if from != at || to < from || to-from > n/5+1 {
				t.Errorf("part %d of %d things is [%d, %d), want it to begin at %d", i, n, from, to, at)
			}
			at = to
		}
		if at != n {
			t.Errorf("five parts of %d things have %d", n, at)
		}
	}
}
