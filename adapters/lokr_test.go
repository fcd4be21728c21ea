package adapters

import "testing"

// Pairs that PEFT's factorization gives (31).
func TestFactorize(t *testing.T) {
	for _, c := range []struct{ d, factor, first, second int }{
		{768, -1, 24, 32}, {3072, -1, 48, 64}, {192, -1, 12, 16}, {384, -1, 16, 24}, {1024, -1, 32, 32}, {1280, -1, 32, 40},
		{128, -1, 8, 16}, {127, -1, 1, 127}, {1000, -1, 25, 40}, {768, 8, 8, 96}, {127, 8, 1, 127}, {768, 5, 4, 192},
		{192, 16, 16, 12}, {12, 5, 3, 4}, {1, -1, 1, 1}, {3, 16, 1, 3},
	} {
		if first, second := factorize(c.d, c.factor); first != c.first || second != c.second {
			t.Errorf("factors of %d by %d are %d and %d, want %d and %d", c.d, c.factor, first, second, c.first, c.second)
		}
	}
}
