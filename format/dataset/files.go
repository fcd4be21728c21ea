package dataset

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// The search for data files follows datasets' data_files.py: which file belongs to which split when a repository does
// not say so, and which files never count as data.

// ignoredFiles are never data unless a pattern ends in their name.
var ignoredFiles = []string{
	"README.md", "config.json", "dataset_info.json", "dataset_infos.json", "dummy_data.zip", "dataset_dict.json",
}

// defaultSplits are the splits that file and folder names are searched for, in the order in which they are listed.
var defaultSplits = []struct {
	name     string
	keywords []string
}{
	{"train", []string{"train", "training"}},
	{"validation", []string{"validation", "valid", "dev", "val"}},
	{"test", []string{"test", "testing", "eval", "evaluation"}},
}

// A keyword counts where one of these characters, or a path separator, stands next to it.
const separators = "[-._ 0-9]"

// keywordPatterns are tried in this order; %s is the keyword. Folders come before file names.
var keywordPatterns = [][]string{
	{
		"**/%s/**", "**/%s" + separators + "*/**",
		"**/*" + separators + "%s/**", "**/*" + separators + "%s" + separators + "*/**",
	},
	{"**/%s" + separators + "*", "**/*" + separators + "%s" + separators + "*"},
}

const (
	fiveDigits = "[0-9][0-9][0-9][0-9][0-9]"
	shardTail  = "-" + fiveDigits + "-of-" + fiveDigits + "*.*"
)

// shardName takes the split out of a base name that matched shardTail. The split is greedy, as in datasets.
var shardName = regexp.MustCompile(`\A(.+)-[0-9]{5}-of-[0-9]{5}`)

// tree is the listing of a data set's directory.
type tree struct {
	root  string
	files []string // slash-separated, relative to root, sorted by bytes
}

// listTree lists all files below root. Links to files count as files (snapshots in a Hub cache are made of them); links
// to directories are not followed, as in datasets.
func listTree(root string) (*tree, error) {
	t := &tree{root: root}
	// A trailing separator makes WalkDir enter a root that is itself a link.
	err := filepath.WalkDir(root+string(filepath.Separator), func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := entry.Type()
		if mode&fs.ModeSymlink != 0 {
			info, err := os.Stat(p)
			if err != nil {
				return nil // a dangling link is no data file
			}
			mode = info.Mode().Type()
		}
		if mode.IsRegular() {
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			t.files = append(t.files, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	sort.Strings(t.files)
	return t, nil
}

// below returns the part of the tree under a subdirectory.
func (t *tree) below(dir string) *tree {
	dir = path.Clean(dir)
	if dir == "." {
		return t
	}
	sub := &tree{root: filepath.Join(t.root, filepath.FromSlash(dir))}
	for _, f := range t.files {
		if rel, ok := strings.CutPrefix(f, dir+"/"); ok {
			sub.files = append(sub.files, rel)
		}
	}
	return sub
}

// containing returns the files with a text in their path: a cheap filter before patterns.
func (t *tree) containing(text string) *tree {
	sub := &tree{root: t.root}
	for _, f := range t.files {
		if strings.Contains(f, text) {
			sub.files = append(sub.files, f)
		}
	}
	return sub
}

// match returns the files that a pattern selects, sorted. Hidden files and those in __special__ folders need a pattern
// that spells out as many hidden or special parts.
func (t *tree) match(pattern string) ([]string, error) {
	if strings.Contains(pattern, "://") || path.IsAbs(pattern) {
		return nil, fmt.Errorf("%w: %q lies outside the data set's directory; only relative paths are read", ErrUnsupported, pattern)
	}
	pattern = path.Clean(pattern)
	g, err := parseGlob(pattern)
	if err != nil {
		return nil, err
	}
	special, hidden := specialParts(pattern), hiddenParts(pattern)
	var matched []string
	for _, f := range t.files {
		if !g.match(f) || specialParts(f) != special || hiddenParts(f) != hidden {
			continue
		}
		if base := path.Base(f); base == path.Base(pattern) || !slices.Contains(ignoredFiles, base) {
			matched = append(matched, f)
		}
	}
	return matched, nil
}

// specialParts counts the folders of a path that begin with two underscores.
func specialParts(p string) int {
	n := 0
	for {
		part, rest, more := strings.Cut(p, "/")
		if !more {
			return n
		}
		if strings.HasPrefix(part, "__") {
			n++
		}
		p = rest
	}
}

// hiddenParts counts the folders and the file of a path that begin with a dot.
func hiddenParts(p string) int {
	n := 0
	for more := true; more; {
		var part string
		part, p, more = strings.Cut(p, "/")
		if strings.HasPrefix(part, ".") && strings.Trim(part, ".") != "" {
			n++
		}
	}
	return n
}

// findPatterns looks for splits in file and folder names: data/train-00000-of-00003.parquet first, then folders named
// after a split, then files named after one; otherwise everything is train. (datasets 5.2 looks for *.eval, task.toml and
// instruction.md before that, which mark logs and tasks of agents; here they are stray files.)
func (t *tree) findPatterns() ([]splitPatterns, error) {
	sharded, err := t.match("data/*" + shardTail)
	if err != nil {
		return nil, err
	}
	if len(sharded) > 0 {
		return shardedPatterns(sharded)
	}
	for _, forms := range keywordPatterns {
		var found []splitPatterns
		for _, split := range defaultSplits {
			var patterns []string
			hit := false
			for _, keyword := range split.keywords {
				candidates := t.containing(keyword)
				for _, form := range forms {
					pattern := strings.ReplaceAll(form, "%s", keyword)
					patterns = append(patterns, pattern)
					if hit {
						continue
					}
					matched, err := candidates.match(pattern)
					if err != nil {
						return nil, err
					}
					hit = len(matched) > 0
				}
			}
			if hit {
				found = append(found, splitPatterns{split.name, patterns})
			}
		}
		if found != nil {
			return found, nil
		}
	}
	return []splitPatterns{{"train", []string{"**"}}}, nil
}

func shardedPatterns(files []string) ([]splitPatterns, error) {
	var found []splitPatterns
	for _, f := range files {
		m := shardName.FindStringSubmatch(path.Base(f))
		if m == nil || !isSplit.MatchString(m[1]) {
			return nil, fmt.Errorf("%w: %q does not begin with a split name of letters, digits and _", ErrSplit, f)
		}
		found = append(found, splitPatterns{m[1], []string{"data/" + m[1] + shardTail}})
	}
	return orderSplits(found), nil
}

// orderSplits sorts splits as datasets lists them, train, validation, test and then by name, each once.
func orderSplits(splits []splitPatterns) []splitPatterns {
	rank := func(name string) int {
		for i, s := range defaultSplits {
			if s.name == name {
				return i
			}
		}
		return len(defaultSplits)
	}
	slices.SortStableFunc(splits, func(a, b splitPatterns) int {
		return cmp.Or(rank(a.split)-rank(b.split), strings.Compare(a.split, b.split))
	})
	return slices.CompactFunc(splits, func(a, b splitPatterns) bool { return a.split == b.split })
}

// convertedName is how the Hub names files on the branch refs/convert/parquet, to which it converts data sets of other
// formats: configuration/split/0000.parquet, with the split called partial-… where only its beginning was converted.
var convertedName = regexp.MustCompile(`\A([^/]+)/(?:partial-)?([^/]+)/[0-9]{4}\.parquet\z`)

// convertedConfigs lists the configurations of a conversion; nil if the files are anything else. Such a branch has no
// card that would list them.
func (t *tree) convertedConfigs() []config {
	var configs []config
	for _, f := range t.files {
		if hiddenParts(f) > 0 {
			continue
		}
		m := convertedName.FindStringSubmatch(f)
		if m == nil || !isSplit.MatchString(m[2]) {
			return nil
		}
		if len(configs) == 0 || configs[len(configs)-1].name != m[1] {
			configs = append(configs, config{name: m[1]})
		}
		last := &configs[len(configs)-1]
		last.patterns = append(last.patterns, splitPatterns{m[2], []string{path.Dir(f) + "/*.parquet"}})
	}
	for i := range configs {
		configs[i].patterns = orderSplits(configs[i].patterns)
	}
	return configs
}

// splitFiles are the data files of one split, in reading order.
type splitFiles struct {
	split string
	files []string // slash-separated, relative to the tree's root
}

// resolve turns patterns into files. A pattern without wildcards must exist, and a split must not be empty. Several patterns of a split may select a
// file twice, and then its rows count twice: so does datasets.
func (t *tree) resolve(splits []splitPatterns) ([]splitFiles, error) {
	var out []splitFiles
	for _, s := range splits {
		var files []string
		for _, pattern := range s.patterns {
			matched, err := t.match(pattern)
			if err != nil {
				return nil, err
			}
			matched = slices.DeleteFunc(matched, func(f string) bool { return !hasDataExtension(f) })
			if len(matched) == 0 && !strings.ContainsAny(pattern, "*?[") {
				return nil, fmt.Errorf("%w: %q of split %q does not exist in %q", ErrNoData, pattern, s.split, t.root)
			}
			files = append(files, matched...)
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%w: the patterns %q of split %q match nothing in %q; expected parquet files or a folder of images",
				ErrNoData, s.patterns, s.split, t.root)
		}
		out = append(out, splitFiles{s.split, files})
	}
	return out, nil
}
