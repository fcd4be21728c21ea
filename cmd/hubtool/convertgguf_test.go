package main

import (
	"slices"
	"testing"
)

// Of a head's rows, those half a head apart become neighbours; heads and columns stay.
func TestGGUFHeads(t *testing.T) {
	b := []float32{
		0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, // a head of six rows, rank 2
		6, 6.5, 7, 7.5, 8, 8.5, 9, 9.5, 10, 10.5, 11, 11.5,
	}
	want := []float32{
		0, 0.5, 3, 3.5, 1, 1.5, 4, 4.5, 2, 2.5, 5, 5.5,
		6, 6.5, 9, 9.5, 7, 7.5, 10, 10.5, 8, 8.5, 11, 11.5,
	}
	if got := ggufHeads(b, 2, 12, 2); !slices.Equal(got, want) {
		t.Errorf("rows are %v, want %v", got, want)
	}
}
