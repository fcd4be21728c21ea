package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
)

// shard is one of count equal parts of a job, so that many machines can share it. The zero value is
// all of it.
type shard struct {
	index, count int
}

var shardSyntax = regexp.MustCompile(`^(auto|\d{1,9})(?:/(\d{1,9}))?$`)

// parseShard reads INDEX/COUNT, with the index from 0. "auto" takes the index, and the count where
// there is one, from the environment of a Kubernetes indexed Job or a Slurm array.
func parseShard(text string) (shard, error) {
	bad := func(why string, args ...any) (shard, error) {
		return shard{}, usage("reading the command line", fmt.Sprintf("--shard is %q, but "+why, append([]any{text}, args...)...))
	}
	if text == "" {
		return shard{}, nil
	}
	m := shardSyntax.FindStringSubmatch(text)
	if m == nil || m[1] != "auto" && m[2] == "" {
		return bad("must be like 0/8 for the first of eight parts, auto, or auto/8")
	}
	var s shard
	count, _ := strconv.Atoi(m[2]) // digits or nothing, by the syntax
	if m[1] == "auto" {
		var name, why string
		switch s, name, why = taskOfEnvironment(); {
		case name == "":
			return bad("neither JOB_COMPLETION_INDEX nor SLURM_ARRAY_TASK_ID is set")
		case why != "":
			return bad("%s: give the parts by their numbers, as in $%s/COUNT from 0 on", why, name)
		case s.count == 0 && m[2] == "":
			return bad("%s tells no count: write auto/COUNT", name)
		case s.count != 0 && m[2] != "" && s.count != count:
			return bad("the array has %d tasks: to repeat some parts, give them by their numbers, as in $%s/%d from 0 on", s.count, name, count)
		}
	} else {
		s.index, _ = strconv.Atoi(m[1])
	}
	if m[2] != "" {
		s.count = count
	}
	if s.index >= s.count {
		return bad("part %d of %d does not exist: the first is 0", s.index, s.count)
	}
	return s, nil
}

// taskOfEnvironment is the place of this process among the tasks of a Kubernetes indexed Job or a
// Slurm array, and the name of the variable that says so; the count is 0 where none is told. why says
// that tasks have no place, as in a Slurm array with gaps, of which they are told the ends only.
func taskOfEnvironment() (s shard, name, why string) {
	number := func(name string) (int, bool) {
		n, err := strconv.Atoi(os.Getenv(name))
		return n, err == nil && n >= 0
	}
	if i, ok := number("JOB_COMPLETION_INDEX"); ok {
		return shard{index: i}, "JOB_COMPLETION_INDEX", ""
	}
	if i, ok := number("SLURM_ARRAY_TASK_ID"); ok {
		name = "SLURM_ARRAY_TASK_ID"
		first, _ := number("SLURM_ARRAY_TASK_MIN") // arrays may begin at 1
		by, _ := number("SLURM_ARRAY_TASK_STEP")   // and count in twos
		by = max(1, by)
		s.index = max(0, i-first) / by
		s.count, _ = number("SLURM_ARRAY_TASK_COUNT")
		if last, told := number("SLURM_ARRAY_TASK_MAX"); told && s.count > 0 && (last-first)/by+1 != s.count {
			why = fmt.Sprintf("the array has %d tasks between %d and %d", s.count, first, last)
		}
	}
	return s, name, why
}

// of returns the shard's share [from, to) of n things. Shares are contiguous, and together all.
func (s shard) of(n int) (from, to int) {
	if s.count == 0 {
		return 0, n
	}
	return n * s.index / s.count, n * (s.index + 1) / s.count
}

// name puts the shard into a file's name, so that parts lie side by side.
func (s shard) name(stem, ext string) string {
	if s.count == 0 {
		return stem + ext
	}
	return fmt.Sprintf("%s-%05d-of-%05d%s", stem, s.index, s.count, ext)
}
