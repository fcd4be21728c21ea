package hashing

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"testing"
)

func TestSameAsTheStandardLibrary(t *testing.T) {
	data := bytes.Repeat([]byte("hubtool"), 20_000)
	for _, n := range []int{0, 1, piece - 1, piece, piece + 1, len(data)} {
		for _, cut := range []int{0, n / 3, n} {
			a, b := NewSHA256(), NewSHA1()
			for _, part := range [][]byte{data[:cut], data[cut:n]} {
				for _, h := range []interface{ Write([]byte) (int, error) }{a, b} {
					if written, err := h.Write(part); written != len(part) || err != nil {
						t.Fatalf("wrote %d of %d bytes, %v", written, len(part), err)
					}
				}
			}
			if want := sha256.Sum256(data[:n]); !bytes.Equal(a.Sum(nil), want[:]) {
				t.Errorf("SHA-256 of %d bytes differs", n)
			}
			if want := sha1.Sum(data[:n]); !bytes.Equal(b.Sum(nil), want[:]) {
				t.Errorf("SHA-1 of %d bytes differs", n)
			}
		}
	}
}
