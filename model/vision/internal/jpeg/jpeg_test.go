package jpeg

import (
	"bytes"
	"fmt"
	"image"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestInverse compares the integer transform with the definition of the inverse DCT.
func TestInverse(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		var b block
		var c component
		last := 0
		for k := range 1 + rng.IntN(64) {
			b[zigzag[k]] = int16(rng.IntN(31) - 15)
			c.quant[zigzag[k]] = int16(1 + rng.IntN(12))
			last = k
		}
		c.plane, c.stride = make([]uint8, 64), 8
		c.inverse(&b, last, 0, 0)
		for i, got := range c.plane {
			sum := 0.0
			for k := range 64 {
				u, v := k%8, k/8
				scale := 0.25
				if u == 0 {
					scale /= math.Sqrt2
				}
				if v == 0 {
					scale /= math.Sqrt2
				}
				sum += scale * float64(b[k]) * float64(c.quant[k]) *
					math.Cos(float64((2*(i%8)+1)*u)*math.Pi/16) * math.Cos(float64((2*(i/8)+1)*v)*math.Pi/16)
			}
			if want := min(max(sum+128, 0), 255); math.Abs(float64(got)-want) > 1 {
				t.Fatalf("sample %d is %d, want %.2f", i, got, want)
			}
		}
	}
}

// TestWiden compares the filter in lanes with the filter sample by sample.
func TestWiden(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	for n := 1; n < 60; n++ {
		near, far := make([]uint8, n+16), make([]uint8, n+16)
		for i := range near {
			near[i], far[i] = uint8(rng.Uint32()), uint8(rng.Uint32())
		}
		got := make([]uint8, 2*n+16)
		widen(got, near, far, n, 8, 7)
		sum := func(i int) int {
			i = min(max(i, 0), n-1)
			return 3*int(near[i]) + int(far[i])
		}
		for i := range n {
			left, right := uint8((3*sum(i)+sum(i-1)+8)>>4), uint8((3*sum(i)+sum(i+1)+7)>>4)
			if got[2*i] != left || got[2*i+1] != right {
				t.Fatalf("sample %d of %d becomes %d, %d, want %d, %d", i, n, got[2*i], got[2*i+1], left, right)
			}
		}
	}
}

// TestSymbols decodes every code of the standard tables, alone and by search.
func TestSymbols(t *testing.T) {
	for _, s := range append(standardDC[:], standardAC[:]...) {
		var tab table
		tab.define(s.counts, s.symbols)
		if err := tab.derive(false); err != nil {
			t.Fatal(err)
		}
		code, at := uint64(0), 0
		for length := uint(1); length <= 16; length++ {
			for range s.counts[length-1] {
				r := bitReader{acc: code << (64 - length), n: 64}
				if got := r.symbol(&tab); got != s.symbols[at] || r.n != 64-length {
					t.Errorf("code %b of %d bits is %#x, %d bits, want %#x", code, length, got, 64-r.n, s.symbols[at])
				}
				if n, got := tab.search(code << (64 - length)); got != s.symbols[at] || n != length {
					t.Errorf("searching code %b finds %#x, want %#x", code, got, s.symbols[at])
				}
				code++
				at++
			}
			code <<= 1
		}
		if n, symbol := tab.search(math.MaxUint64); n != 17 || symbol != 0 {
			t.Errorf("a code of ones is %#x of %d bits", symbol, n)
		}
	}
}

// TestScanBomb has scans that are a few bytes each, but go over all blocks.
func TestScanBomb(t *testing.T) {
	before := maxWork
	maxWork = 1 << 16
	defer func() { maxWork = before }()
	header := "\xff\xd8\xff\xdb\x00\x43\x00" + strings.Repeat("\x01", 64) + "\xff\xc2\x00\x0b\x08\x02\x00\x02\x00\x01\x01\x11\x00" +
		"\xff\xc4\x00\x14\x10\x01" + strings.Repeat("\x00", 15) + "\xe0" // 512 by 512, and a code for empty blocks
	scan := "\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" + "\x7f\xfe\x7f\xfe"
	for scans, want := range map[int]string{16: "", 17: "512 by 512 pixels in more than 16 scans"} {
		d, err := Open([]byte(header + strings.Repeat(scan, scans) + "\xff\xd9"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Decode(image.Rect(0, 0, 8, 8), nil)
		if got := fmt.Sprint(err); err != nil && want == "" || !strings.Contains(got, want) {
			t.Errorf("%d scans: %v, want %q", scans, err, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	quant := "\xff\xdb\x00\x43\x00" + strings.Repeat("\x01", 64)
	frame := "\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00"
	scan := "\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
	if d, err := Open([]byte("\xff\xd8" + quant + frame + scan)); err != nil || d.Width != 8 || d.Height != 8 {
		t.Fatalf("the header alone: %v", err)
	}
	for _, c := range []struct{ body, want string }{
		{"", "truncated"},
		{"\xff\xd9", "no picture"},
		{quant + scan, "before the frame"},
		{quant + frame + frame, "two frame headers"},
		{frame + scan, "quantization table 0 is missing"},
		{quant + strings.Replace(frame, "\x08\x00\x08\x00\x08", "\x0c\x00\x08\x00\x08", 1), "12 bits"},
		{quant + strings.Replace(frame, "\xc0", "\xc9", 1), "marker 0xc9"},
		{quant + strings.Replace(frame, "\xc0", "\xc3", 1), "marker 0xc3"},
		{quant + strings.Replace(frame, "\x08\x00\x08\x00\x08", "\x08\x00\x00\x00\x08", 1), "8 by 0 pixels"},
		{quant + strings.Replace(frame, "\x11", "\x51", 1), "sampling factors 5 by 1"},
		{quant + strings.Replace(frame, "\x01\x01\x11", "\x02\x01\x11", 1), "frame header"},
		{quant + frame + strings.Replace(scan, "\x01\x01", "\x01\x02", 1), "component 2"},
		{quant[:20], "truncated"},
		{"\xff\xdb\x00\x03\x09", "quantization table 9"},
		{"\xff\xc4\x00\x14\x00" + strings.Repeat("\x00", 15) + "\x09\x00", "Huffman table 0x0"},
		{"\xff\xdd\x00\x03\x00", "restart interval"},
		{"\xff\xe0\x00\x01", "1 bytes long"},
		{"\xff\xf7", "not supported"},
	} {
		if _, err := Open([]byte("\xff\xd8" + c.body)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.body, err, c.want)
		}
	}
	if _, err := Open(bytes.Repeat([]byte{1}, 9)); err == nil {
		t.Error("garbage was opened")
	}
}
