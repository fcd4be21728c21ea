package vision

import (
	"encoding/json"
	"os"
	"testing"
)

// pattern repeats the function of the same name in testdata/make.py.
func pattern(w, h int) *Image {
	m := NewImage(w, h)
	for y := range h {
		for x := range w {
			for c := range 3 {
				n := uint32(x)*374761393 + uint32(y)*668265263 + uint32(c)*2246822519 + 1
				n = (n ^ n>>13) * 1274126177
				v := uint8(n ^ n>>16)
				if (x/4+y/4)%2 == 0 {
					v = uint8(3*x + 5*y + 50*c)
				}
				m.row(y)[3*x+c] = v
			}
		}
	}
	return m
}

func TestResizeAsPillow(t *testing.T) {
	table, err := os.ReadFile("testdata/resize.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows [][10]any
	if err := json.Unmarshal(table, &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) < 100 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		size := func(i int) int { return int(row[i].(float64)) }
		m := pattern(size(0), size(1))
		before := digest(m)
		for f := Nearest; f <= Hamming; f++ {
			got := Resize(m, size(2), size(3), f)
			if want := row[4+f].(string); digest(got)[len(digest(got))-32:] != want || got.Width != size(2) || got.Height != size(3) {
				t.Errorf("%v %v: got %s, want %s", row[:4], f, digest(got), want)
			}
		}
		if digest(m) != before {
			t.Errorf("%v: the source changed", row[:4])
		}
	}
}
