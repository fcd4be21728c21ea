package kernel

import "golang.org/x/sys/cpu"

//go:generate go run ./gen

// available lists what the processor can do, the best first.
var available = detect()

func detect() []isa {
	var list []isa
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		list = append(list, isa{
			name: "avx512", lanes: 16, panel: 64, tile: tileAVX512,
			add:    [3]func(*byte, *float32, int) uint32{addBF16AVX512, addF16AVX512, addF32AVX512},
			narrow: [3]func(*byte, *float32, int) uint32{narrowBF16AVX512, narrowF16AVX512, narrowF32AVX512},
			widen:  [3]func(*float32, *byte, int){widenBF16AVX512, widenF16AVX512, widenF32AVX512},
			round:  [3]func(*float32, int){roundBF16AVX512, roundF16AVX512, func(*float32, int) {}},
			divide: divideAVX512, scale: scaleAVX512,
		})
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasF16C {
		list = append(list, isa{
			name: "avx2", lanes: 8, panel: 16, tile: tileAVX2,
			add:    [3]func(*byte, *float32, int) uint32{addBF16AVX2, addF16AVX2, addF32AVX2},
			narrow: [3]func(*byte, *float32, int) uint32{narrowBF16AVX2, narrowF16AVX2, narrowF32AVX2},
			widen:  [3]func(*float32, *byte, int){widenBF16AVX2, widenF16AVX2, widenF32AVX2},
			round:  [3]func(*float32, int){roundBF16AVX2, roundF16AVX2, func(*float32, int) {}},
			divide: divideAVX2, scale: scaleAVX2,
		})
	}
	return list
}

// intelAVX512 tells whether this is one of Intel's processors with AVX-512.
func intelAVX512() bool {
	b, d, c := vendor()
	return cpu.X86.HasAVX512F && b == 0x756e6547 && d == 0x49656e69 && c == 0x6c65746e // "GenuineIntel"
}
