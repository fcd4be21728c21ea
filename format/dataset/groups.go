package dataset

import (
	"sort"
	"sync"
	"sync/atomic"

	"github.com/parquet-go/parquet-go"
)

// groups decodes a row group whenever one of its rows is asked for and keeps the last few. It serves files that cannot
// be read in place where no cache directory is given. Visiting rows in random order then decodes about a group per
// row, some milliseconds for a hundred images; in file order each group is decoded once.
type groups struct {
	groups []parquet.RowGroup
	first  []int // row of the file that each group begins with
	column int

	mu     sync.Mutex
	recent []*decodedGroup // most recent first
}

// decodedGroup is filled by the first goroutine that wants it, while others wait for it.
type decodedGroup struct {
	index  int
	once   sync.Once
	values [][]byte
	size   atomic.Int64
	err    error
}

// groupBudget bounds the decoded bytes kept, beyond the group in use.
const groupBudget = 256 << 20

func newGroups(file *parquet.File, column int) *groups {
	g := &groups{groups: file.RowGroups(), column: column}
	row := 0
	for _, group := range g.groups {
		g.first = append(g.first, row)
		row += int(group.NumRows())
	}
	return g
}

func (g *groups) at(i int) ([]byte, error) {
	k := sort.SearchInts(g.first, i+1) - 1
	d := g.touch(k)
	d.once.Do(func() {
		d.err = eachInGroup(g.groups[k], g.column, func(v parquet.Value) error {
			var value []byte
			if !v.IsNull() {
				value = append([]byte{}, v.ByteArray()...)
			}
			d.values = append(d.values, value)
			d.size.Add(int64(len(value)))
			return nil
		})
	})
	if d.err != nil {
		return nil, d.err
	}
	g.trim()
	if value := d.values[i-g.first[k]]; value != nil {
		return append([]byte{}, value...), nil
	}
	return nil, nil
}

// touch moves a group to the front, adding it if it is not there.
func (g *groups) touch(index int) *decodedGroup {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, d := range g.recent {
		if d.index == index {
			copy(g.recent[1:i+1], g.recent[:i])
			g.recent[0] = d
			return d
		}
	}
	d := &decodedGroup{index: index}
	g.recent = append([]*decodedGroup{d}, g.recent...)
	return d
}

// trim forgets the groups that were not used lately.
func (g *groups) trim() {
	g.mu.Lock()
	defer g.mu.Unlock()
	total := int64(0)
	for i, d := range g.recent {
		total += d.size.Load()
		if i > 0 && total > groupBudget {
			g.recent = g.recent[:i]
			return
		}
	}
}

func (g *groups) Close() error { return nil }
