//go:build amd64

#include "textflag.h"

// A tile of the output stays in registers while k advances; each step loads one row of b, NR values in two
// registers, and multiplies it by one value of each row of a.
//
// Rows of a are addressed from every third one: SI, R9, R10 and R11 are rows 0, 3, 6 and 9, R8 is the
// distance of two rows. R12 is the distance of rows of b, R13 that of c, all in bytes.

#define ARGUMENTS \
	MOVQ k+0(FP), CX; \
	MOVQ a+8(FP), SI; \
	MOVQ lda+16(FP), R8; \
	MOVQ b+24(FP), DI; \
	MOVQ ldb+32(FP), R12; \
	MOVQ c+40(FP), DX; \
	MOVQ ldc+48(FP), R13; \
	SHLQ $2, R8; \
	SHLQ $2, R12; \
	SHLQ $2, R13; \
	LEAQ (R8)(R8*2), AX; \
	LEAQ (SI)(AX*1), R9

// LOOP advances k by four as long as it can, then by one. It ends at store, or falls through if add is set.
#define LOOP(step, next) \
	SUBQ $4, CX; \
	JLT  rest; \
four: \
	step(0); \
	step(4); \
	step(8); \
	step(12); \
	next(16); \
	SUBQ $4, CX; \
	JGE  four; \
rest: \
	ADDQ $4, CX; \
	JEQ  done; \
one: \
	step(0); \
	next(4); \
	DECQ CX; \
	JNE  one; \
done: \
	CMPB add+56(FP), $0; \
	JEQ  store

#define NEXT256(bytes) \
	ADDQ $bytes, SI; \
	ADDQ $bytes, R9

#define NEXT512(bytes) \
	NEXT256(bytes); \
	ADDQ $bytes, R10; \
	ADDQ $bytes, R11

#define ROW512(address, lo, hi) \
	VBROADCASTSS address, Z2; \
	VFMADD231PS Z0, Z2, lo; \
	VFMADD231PS Z1, Z2, hi

#define STEP512(offset) \
	VMOVUPS (DI), Z0; \
	VMOVUPS 64(DI), Z1; \
	ROW512(offset(SI), Z8, Z9); \
	ROW512(offset(SI)(R8*1), Z10, Z11); \
	ROW512(offset(SI)(R8*2), Z12, Z13); \
	ROW512(offset(R9), Z14, Z15); \
	ROW512(offset(R9)(R8*1), Z16, Z17); \
	ROW512(offset(R9)(R8*2), Z18, Z19); \
	ROW512(offset(R10), Z20, Z21); \
	ROW512(offset(R10)(R8*1), Z22, Z23); \
	ROW512(offset(R10)(R8*2), Z24, Z25); \
	ROW512(offset(R11), Z26, Z27); \
	ROW512(offset(R11)(R8*1), Z28, Z29); \
	ROW512(offset(R11)(R8*2), Z30, Z31); \
	ADDQ R12, DI

#define STORE512(lo, hi) \
	VMOVUPS lo, (DX); \
	VMOVUPS hi, 64(DX); \
	ADDQ R13, DX

#define ADD512(lo, hi) \
	VADDPS (DX), lo, lo; \
	VADDPS 64(DX), hi, hi; \
	STORE512(lo, hi)

// func tile512(k int, a *float32, lda int, b *float32, ldb int, c *float32, ldc int, add bool)
TEXT ·tile512(SB), NOSPLIT, $0-57
	ARGUMENTS
	LEAQ (R9)(AX*1), R10
	LEAQ (R10)(AX*1), R11
	VPXORQ Z8, Z8, Z8
	VPXORQ Z9, Z9, Z9
	VPXORQ Z10, Z10, Z10
	VPXORQ Z11, Z11, Z11
	VPXORQ Z12, Z12, Z12
	VPXORQ Z13, Z13, Z13
	VPXORQ Z14, Z14, Z14
	VPXORQ Z15, Z15, Z15
	VPXORQ Z16, Z16, Z16
	VPXORQ Z17, Z17, Z17
	VPXORQ Z18, Z18, Z18
	VPXORQ Z19, Z19, Z19
	VPXORQ Z20, Z20, Z20
	VPXORQ Z21, Z21, Z21
	VPXORQ Z22, Z22, Z22
	VPXORQ Z23, Z23, Z23
	VPXORQ Z24, Z24, Z24
	VPXORQ Z25, Z25, Z25
	VPXORQ Z26, Z26, Z26
	VPXORQ Z27, Z27, Z27
	VPXORQ Z28, Z28, Z28
	VPXORQ Z29, Z29, Z29
	VPXORQ Z30, Z30, Z30
	VPXORQ Z31, Z31, Z31
	LOOP(STEP512, NEXT512)
	ADD512(Z8, Z9)
	ADD512(Z10, Z11)
	ADD512(Z12, Z13)
	ADD512(Z14, Z15)
	ADD512(Z16, Z17)
	ADD512(Z18, Z19)
	ADD512(Z20, Z21)
	ADD512(Z22, Z23)
	ADD512(Z24, Z25)
	ADD512(Z26, Z27)
	ADD512(Z28, Z29)
	ADD512(Z30, Z31)
	VZEROUPPER
	RET

store:
	STORE512(Z8, Z9)
	STORE512(Z10, Z11)
	STORE512(Z12, Z13)
	STORE512(Z14, Z15)
	STORE512(Z16, Z17)
	STORE512(Z18, Z19)
	STORE512(Z20, Z21)
	STORE512(Z22, Z23)
	STORE512(Z24, Z25)
	STORE512(Z26, Z27)
	STORE512(Z28, Z29)
	STORE512(Z30, Z31)
	VZEROUPPER
	RET

#define ROW256(address, lo, hi) \
	VBROADCASTSS address, Y2; \
	VFMADD231PS Y0, Y2, lo; \
	VFMADD231PS Y1, Y2, hi

#define STEP256(offset) \
	VMOVUPS (DI), Y0; \
	VMOVUPS 32(DI), Y1; \
	ROW256(offset(SI), Y4, Y5); \
	ROW256(offset(SI)(R8*1), Y6, Y7); \
	ROW256(offset(SI)(R8*2), Y8, Y9); \
	ROW256(offset(R9), Y10, Y11); \
	ROW256(offset(R9)(R8*1), Y12, Y13); \
	ROW256(offset(R9)(R8*2), Y14, Y15); \
	ADDQ R12, DI

#define STORE256(lo, hi) \
	VMOVUPS lo, (DX); \
	VMOVUPS hi, 32(DX); \
	ADDQ R13, DX

#define ADD256(lo, hi) \
	VADDPS (DX), lo, lo; \
	VADDPS 32(DX), hi, hi; \
	STORE256(lo, hi)

// func tile256(k int, a *float32, lda int, b *float32, ldb int, c *float32, ldc int, add bool)
TEXT ·tile256(SB), NOSPLIT, $0-57
	ARGUMENTS
	VXORPS Y4, Y4, Y4
	VXORPS Y5, Y5, Y5
	VXORPS Y6, Y6, Y6
	VXORPS Y7, Y7, Y7
	VXORPS Y8, Y8, Y8
	VXORPS Y9, Y9, Y9
	VXORPS Y10, Y10, Y10
	VXORPS Y11, Y11, Y11
	VXORPS Y12, Y12, Y12
	VXORPS Y13, Y13, Y13
	VXORPS Y14, Y14, Y14
	VXORPS Y15, Y15, Y15
	LOOP(STEP256, NEXT256)
	ADD256(Y4, Y5)
	ADD256(Y6, Y7)
	ADD256(Y8, Y9)
	ADD256(Y10, Y11)
	ADD256(Y12, Y13)
	ADD256(Y14, Y15)
	VZEROUPPER
	RET

store:
	STORE256(Y4, Y5)
	STORE256(Y6, Y7)
	STORE256(Y8, Y9)
	STORE256(Y10, Y11)
	STORE256(Y12, Y13)
	STORE256(Y14, Y15)
	VZEROUPPER
	RET

// func transpose8(dst *float32, ldd int, src *float32, lds int, blocks int)
//
// Eight rows of eight values at a time: pairs, then fours, then halves of registers change places.
TEXT ·transpose8(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ ldd+8(FP), R12
	MOVQ src+16(FP), SI
	MOVQ lds+24(FP), R8
	MOVQ blocks+32(FP), CX
	SHLQ $2, R12
	SHLQ $2, R8
	LEAQ (R8)(R8*2), R9
	LEAQ (R12)(R12*2), R13
	TESTQ CX, CX
	JEQ  end

block:
	LEAQ (SI)(R8*4), R10
	VMOVUPS (SI), Y0
	VMOVUPS (SI)(R8*1), Y1
	VMOVUPS (SI)(R8*2), Y2
	VMOVUPS (SI)(R9*1), Y3
	VMOVUPS (R10), Y4
	VMOVUPS (R10)(R8*1), Y5
	VMOVUPS (R10)(R8*2), Y6
	VMOVUPS (R10)(R9*1), Y7
	VUNPCKLPS Y1, Y0, Y8
	VUNPCKHPS Y1, Y0, Y9
	VUNPCKLPS Y3, Y2, Y10
	VUNPCKHPS Y3, Y2, Y11
	VUNPCKLPS Y5, Y4, Y12
	VUNPCKHPS Y5, Y4, Y13
	VUNPCKLPS Y7, Y6, Y14
	VUNPCKHPS Y7, Y6, Y15
	VSHUFPS $0x44, Y10, Y8, Y0
	VSHUFPS $0xEE, Y10, Y8, Y1
	VSHUFPS $0x44, Y11, Y9, Y2
	VSHUFPS $0xEE, Y11, Y9, Y3
	VSHUFPS $0x44, Y14, Y12, Y4
	VSHUFPS $0xEE, Y14, Y12, Y5
	VSHUFPS $0x44, Y15, Y13, Y6
	VSHUFPS $0xEE, Y15, Y13, Y7
	VPERM2F128 $0x20, Y4, Y0, Y8
	VPERM2F128 $0x31, Y4, Y0, Y12
	VPERM2F128 $0x20, Y5, Y1, Y9
	VPERM2F128 $0x31, Y5, Y1, Y13
	VPERM2F128 $0x20, Y6, Y2, Y10
	VPERM2F128 $0x31, Y6, Y2, Y14
	VPERM2F128 $0x20, Y7, Y3, Y11
	VPERM2F128 $0x31, Y7, Y3, Y15
	LEAQ (DI)(R12*4), R11
	VMOVUPS Y8, (DI)
	VMOVUPS Y9, (DI)(R12*1)
	VMOVUPS Y10, (DI)(R12*2)
	VMOVUPS Y11, (DI)(R13*1)
	VMOVUPS Y12, (R11)
	VMOVUPS Y13, (R11)(R12*1)
	VMOVUPS Y14, (R11)(R12*2)
	VMOVUPS Y15, (R11)(R13*1)
	ADDQ $32, SI
	LEAQ (DI)(R12*8), DI
	DECQ CX
	JNE  block

end:
	VZEROUPPER
	RET
