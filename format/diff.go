package format

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A Difference says how a tensor of two checkpoints differs.
type Difference struct {
	Name      string  `json:"name"`
	Status    string  `json:"status"` // "changed", "only in first", "only in second", "dtype" or "shape"
	Detail    string  `json:"detail,omitempty"`
	Elements  int64   `json:"elements,omitempty"`
	Different int64   `json:"different,omitempty"`
	MaxAbs    float64 `json:"max_abs,omitempty"`
	RMS       float64 `json:"rms,omitempty"` // of the difference, over all elements
}

// Diff compares two checkpoints tensor by tensor, of which it holds a few MB at a time. It returns
// what differs, in the order of the first, and how many tensors are equal. Values of types that
// cannot be read as float32 are compared by their bytes alone. Where no name is in both because one
// has a prefix before all names, as a classifier's "vit." beside a bare model, names count without it.
func Diff(ctx context.Context, a, b *Checkpoint, progress func(done, total int)) (list []Difference, equal int, err error) {
	total := len(a.index)
	done := 0
	toFirst, toSecond := extraPrefix(b, a), extraPrefix(a, b)
	inSecond := func(name string) string {
		rest, _ := strings.CutPrefix(name, toSecond)
		return toFirst + rest
	}
	found := map[string]bool{}
	for t := range a.Tensors() {
		if err := context.Cause(ctx); err != nil {
			return nil, 0, err
		}
		name := inSecond(t.Info().Name)
		found[name] = true
		d, err := diffTensor(t, b, name)
		if err != nil {
			return nil, 0, err
		}
		if d.Status == "" {
			equal++
		} else {
			list = append(list, d)
		}
		if done++; progress != nil {
			progress(done, total)
		}
	}
	for t := range b.Tensors() {
		if !found[t.Info().Name] {
			list = append(list, Difference{Name: t.Info().Name, Status: "only in second"})
		}
	}
	return list, equal, nil
}

// extraPrefix is what names of a begin with that the same names of b lack, where none is in both; else "".
func extraPrefix(a, b *Checkpoint) string {
	prefix := ""
	for t := range a.Tensors() {
		name := t.Info().Name
		if _, both := b.Tensor(name); both {
			return ""
		}
		for at, c := range name {
			if c != '.' || prefix != "" {
				continue
			}
			if _, ok := b.Tensor(name[at+1:]); ok {
				prefix = name[:at+1]
			}
		}
	}
	return prefix
}

// diffTensor compares a tensor with the one of b that has the given name.
func diffTensor(x Tensor, b *Checkpoint, name string) (Difference, error) {
	info := x.Info()
	d := Difference{Name: info.Name}
	y, ok := b.Tensor(name)
	switch {
	case !ok:
		d.Status = "only in first"
		return d, nil
	case !slices.Equal(info.Shape, y.Info().Shape):
		d.Status, d.Detail = "shape", fmt.Sprintf("%v and %v", info.Shape, y.Info().Shape)
		return d, nil
	}
	d.Elements = info.Elements()
	widenX, okX := widenTo32[info.DType]
	widenY, okY := widenTo32[y.Info().DType]
	if info.DType != y.Info().DType {
		d.Status, d.Detail = "dtype", fmt.Sprintf("%s and %s", info.DType, y.Info().DType)
		if !okX || !okY {
			return d, nil
		}
	}
	const block = 1 << 20 // elements
	sizeX, sizeY := int64(info.DType.Bits())/8, int64(y.Info().DType.Bits())/8
	if sizeX == 0 || sizeY == 0 { // packed
		sizeX, sizeY, d.Elements = 1, 1, info.Size()
	}
	var squares float64
	bufX, bufY := make([]byte, min(block, d.Elements)*sizeX), make([]byte, min(block, d.Elements)*sizeY)
	vx, vy := make([]float32, min(block, d.Elements)), make([]float32, min(block, d.Elements))
	for at := int64(0); at < d.Elements; at += block {
		n := min(block, d.Elements-at)
		px, py := bufX[:n*sizeX], bufY[:n*sizeY]
		if err := ReadRange(x, px, at*sizeX); err != nil {
			return d, err
		}
		if err := ReadRange(y, py, at*sizeY); err != nil {
			return d, err
		}
		if d.Status == "" && bytes.Equal(px, py) {
			continue
		}
		if !okX || !okY {
			for i := int64(0); i < n; i++ {
				if !bytes.Equal(px[i*sizeX:(i+1)*sizeX], py[i*sizeX:(i+1)*sizeX]) {
					d.Different++
				}
			}
			continue
		}
		widenX(vx[:n], px)
		widenY(vy[:n], py)
		for i, u := range vx[:n] {
			if math.Float32bits(u) == math.Float32bits(vy[i]) {
				continue
			}
			diff := math.Abs(float64(u) - float64(vy[i]))
			d.Different++
			d.MaxAbs = max(d.MaxAbs, diff)
			squares += diff * diff
		}
	}
	if d.Status == "" && d.Different > 0 {
		d.Status = "changed"
	}
	if d.Elements > 0 {
		d.RMS = math.Sqrt(squares / float64(d.Elements))
	}
	return d, nil
}
