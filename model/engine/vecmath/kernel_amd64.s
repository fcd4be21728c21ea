//go:build amd64

#include "go_asm.h"
#include "textflag.h"

// The formulas are written once, for registers that have names: these are defined before each set of
// kernels, so that both sets do the same operations in the same order. BX is the table of constants.
//
// A maximum or minimum is its first operand here if either of two is not a number, or both are zeros.

// EXP is Vp = e^Vx; it spends Vx, Vn and Vk. With j the integer next to x/ln 2 it is 2^j·e^(x - j·ln 2), with
// 2^j multiplied in two halves, since an exponent can be too large or too small for one.
#define EXP \
	VMOVUPS const_atMagic(BX), Vn; \
	VFMADD231PS const_atLog2e(BX), Vx, Vn; \
	VSUBPS const_atMagic(BX), Vn, Vk; \
	VFNMADD231PS const_atLn2High(BX), Vk, Vx; \
	VFNMADD231PS const_atLn2Low(BX), Vk, Vx; \
	VMOVUPS const_atExp(BX), Vp; \
	VFMADD213PS const_atExp+64(BX), Vx, Vp; \
	VFMADD213PS const_atExp+128(BX), Vx, Vp; \
	VFMADD213PS const_atExp+192(BX), Vx, Vp; \
	VFMADD213PS const_atExp+256(BX), Vx, Vp; \
	VFMADD213PS Vone, Vx, Vp; \
	VFMADD213PS Vone, Vx, Vp; \
	VPSUBD const_atMagic(BX), Vn, Vn; \
	VPSRAD $1, Vn, Vk; \
	VPSUBD Vk, Vn, Vn; \
	VPADDD const_atBias(BX), Vk, Vk; \
	VPADDD const_atBias(BX), Vn, Vn; \
	VPSLLD $23, Vk, Vk; \
	VPSLLD $23, Vn, Vn; \
	VMULPS Vk, Vp, Vp; \
	VMULPS Vn, Vp, Vp

// TAIL is Vt = t·P(t), which times exp(-a²/2) is Φ(-a); it spends Vq.
#define TAIL(factor) \
	VMOVUPS factor(BX), Vt; \
	VFMADD213PS Vone, Va, Vt; \
	VDIVPS Vt, Vone, Vt; \
	VMOVUPS const_atTail(BX), Vq; \
	VFMADD213PS const_atTail+64(BX), Vt, Vq; \
	VFMADD213PS const_atTail+128(BX), Vt, Vq; \
	VFMADD213PS const_atTail+192(BX), Vt, Vq; \
	VFMADD213PS const_atTail+256(BX), Vt, Vq; \
	VFMADD213PS const_atTail+320(BX), Vt, Vq; \
	VFMADD213PS const_atTail+384(BX), Vt, Vq; \
	VFMADD213PS const_atTail+448(BX), Vt, Vq; \
	VFMADD213PS const_atTail+512(BX), Vt, Vq; \
	VFMADD213PS const_atTail+576(BX), Vt, Vq; \
	VMULPS Vq, Vt, Vt

// SQUARE is Va = |Vy|, at most Vend, Vs = a², and Vl what rounding took from that: an error of the exponent
// would be one of the whole tail.
#define SQUARE \
	VSUBPS Vy, Vzero, Va; \
	VMAXPS Va, Vy, Va; \
	VMINPS Va, Vend, Va; \
	VMULPS Va, Va, Vs; \
	VMOVAPS Va, Vl; \
	VFMSUB213PS Vs, Va, Vl

// GELU is Vy = max(y, 0) - a·Φ(-a).
#define GELU \
	SQUARE; \
	VMULPS const_atMinusHalf(BX), Vs, Vx; \
	VMULPS const_atMinusHalf(BX), Vl, Vl; \
	EXP; \
	VFMADD213PS Vp, Vp, Vl; \
	TAIL(const_atGeluT); \
	VMULPS Vl, Vt, Vt; \
	VMAXPS Vy, Vzero, Vy; \
	VFNMADD231PS Vt, Va, Vy

// ERF is Vy = ±(1 - 2·Φ(-a·√2)), or the polynomial, Vq, which SELECT takes where a < 1. The sign is added as
// a bit.
#define ERF \
	SQUARE; \
	VSUBPS Vs, Vzero, Vx; \
	EXP; \
	VFNMADD213PS Vp, Vp, Vl; \
	TAIL(const_atErfT); \
	VMULPS Vl, Vt, Vt; \
	VADDPS Vt, Vt, Vt; \
	VSUBPS Vt, Vone, Vt; \
	VMOVUPS const_atErf(BX), Vq; \
	VFMADD213PS const_atErf+64(BX), Vs, Vq; \
	VFMADD213PS const_atErf+128(BX), Vs, Vq; \
	VFMADD213PS const_atErf+192(BX), Vs, Vq; \
	VFMADD213PS const_atErf+256(BX), Vs, Vq; \
	VFMADD213PS const_atErf+320(BX), Vs, Vq; \
	VFMADD213PS const_atErf+384(BX), Vs, Vq; \
	VMULPS Va, Vq, Vq; \
	SELECT; \
	VPSRLD $31, Vy, Vy; \
	VPSLLD $31, Vy, Vy; \
	VPADDD Vt, Vy, Vy

#define EXPONENTIAL \
	VMAXPS Vy, Vlow, Vx; \
	VMINPS Vx, Vend, Vx; \
	EXP; \
	VMOVAPS Vp, Vy

// EACH computes a formula on block after block, a register of so many bytes at a time.
#define EACH(formula, end, bytes) \
	MOVQ x+0(FP), DI; \
	MOVQ blocks+8(FP), CX; \
	LEAQ ·table(SB), BX; \
	VPXOR X0, X0, X0; \
	VMOVUPS const_atOne(BX), Vone; \
	VMOVUPS end(BX), Vend; \
	VMOVUPS const_atLowest(BX), Vlow; \
	SHLQ $6, CX; \
	ADDQ DI, CX; \
next: \
	VMOVUPS (DI), Vy; \
	formula; \
	VMOVUPS Vy, (DI); \
	ADDQ $bytes, DI; \
	CMPQ DI, CX; \
	JB   next; \
	VZEROUPPER; \
	RET

// Rows are read three times: for the maximum, for exponentials and their sum, for the division. Registers
// 0 and 1 are free. DI is the row, R8 how many values it has, R9 how many bytes of whole blocks, R10 how
// many values beyond these.
#define ROWS \
	MOVQ x+0(FP), DI; \
	MOVQ rows+8(FP), CX; \
	MOVQ n+16(FP), R8; \
	LEAQ ·table(SB), BX; \
	VMOVUPS const_atOne(BX), Vone; \
	VMOVUPS const_atLowest(BX), Vlow; \
	VMOVUPS const_atInf(BX), Vinf; \
	MOVQ R8, R10; \
	ANDQ $15, R10; \
	MOVQ R8, R9; \
	SUBQ R10, R9; \
	SHLQ $2, R9

// TERM is Vp = e^(x - top).
#define TERM \
	VSUBPS Vtop, Vx, Vx; \
	VMAXPS Vx, Vlow, Vx; \
	EXP

// ACROSS combines the eight values of Y0 to one in X0.
#define ACROSS(operation) \
	VEXTRACTF128 $1, Y0, X1; \
	operation X1, X0, X0; \
	VMOVHLPS X0, X0, X1; \
	operation X1, X0, X0; \
	VMOVSHDUP X0, X1; \
	operation X1, X0, X0

#define Vzero Z0
#define Vone  Z2
#define Vend  Z3
#define Vlow  Z4
#define Vy    Z5
#define Vx    Z6
#define Va    Z7
#define Vs    Z8
#define Vl    Z9
#define Vn    Z10
#define Vk    Z11
#define Vp    Z12
#define Vt    Z13
#define Vq    Z14
#define Vinf  Z3
#define Vtop  Z5
#define Vsum  Z7

#define SELECT \
	VCMPPS $1, Vone, Va, K1; \
	VBLENDMPS Vq, Vt, K1, Vt

// func gelu512(x *float32, blocks int)
TEXT ·gelu512(SB), NOSPLIT, $0-16
	EACH(GELU, const_atGeluEnd, 64)

// func erf512(x *float32, blocks int)
TEXT ·erf512(SB), NOSPLIT, $0-16
	EACH(ERF, const_atErfEnd, 64)

// func exp512(x *float32, blocks int)
TEXT ·exp512(SB), NOSPLIT, $0-16
	EACH(EXPONENTIAL, const_atHighest, 64)

// func softmax512(x *float32, rows, n int)
//
// The values beyond whole blocks are selected by K1; the others of their register are -Inf.
TEXT ·softmax512(SB), NOSPLIT, $0-24
	ROWS
	MOVL $0, AX
	BTSL R10, AX
	DECL AX
	KMOVW AX, K1

row:
	LEAQ (DI)(R9*1), R12
	VMOVAPS Vinf, Z0
	VMOVAPS Vinf, Vx
	MOVQ DI, SI
	JMP  moreMax
max:
	VMAXPS (SI), Z0, Z0
	ADDQ $64, SI
moreMax:
	CMPQ SI, R12
	JB   max
	VMOVUPS (SI), K1, Vx
	VMAXPS Vx, Z0, Z0
	VEXTRACTF64X4 $1, Z0, Y1
	VMAXPS Y1, Y0, Y0
	ACROSS(VMAXPS)
	VBROADCASTSS X0, Vtop

	VPXOR X7, X7, X7
	MOVQ DI, SI
	JMP  moreSum
sum:
	VMOVUPS (SI), Vx
	TERM
	VMOVUPS Vp, (SI)
	VADDPS Vp, Vsum, Vsum
	ADDQ $64, SI
moreSum:
	CMPQ SI, R12
	JB   sum
	VMOVAPS Vinf, Vx
	VMOVUPS (SI), K1, Vx
	TERM
	VMOVUPS Vp, K1, (SI)
	VADDPS Vp, Vsum, Vsum
	VEXTRACTF64X4 $1, Vsum, Y1
	VADDPS Y1, Y7, Y0
	ACROSS(VADDPS)
	VDIVSS X0, X2, X0
	VBROADCASTSS X0, Vtop

	MOVQ DI, SI
	JMP  moreScale
scale:
	VMULPS (SI), Vtop, Vx
	VMOVUPS Vx, (SI)
	ADDQ $64, SI
moreScale:
	CMPQ SI, R12
	JB   scale
	VMOVUPS (SI), K1, Vx
	VMULPS Vtop, Vx, Vx
	VMOVUPS Vx, K1, (SI)
	LEAQ (DI)(R8*4), DI
	DECQ CX
	JNE  row
	VZEROUPPER
	RET

#undef Vzero
#undef Vone
#undef Vend
#undef Vlow
#undef Vy
#undef Vx
#undef Va
#undef Vs
#undef Vl
#undef Vn
#undef Vk
#undef Vp
#undef Vt
#undef Vq
#undef Vinf
#undef Vtop
#undef Vsum
#undef SELECT

#define Vzero Y0
#define Vone  Y2
#define Vend  Y3
#define Vlow  Y4
#define Vy    Y5
#define Vx    Y6
#define Va    Y7
#define Vs    Y8
#define Vl    Y9
#define Vn    Y10
#define Vk    Y11
#define Vp    Y12
#define Vt    Y13
#define Vq    Y14
#define Vinf  Y3
#define Vtop  Y5
#define Vsum  Y7
#define VsumHigh Y8
#define Vfirst Y13
#define Vlast  Y14

#define SELECT \
	VCMPPS $1, Vone, Va, Vs; \
	VBLENDVPS Vs, Vq, Vt, Vt

// func gelu256(x *float32, blocks int)
TEXT ·gelu256(SB), NOSPLIT, $0-16
	EACH(GELU, const_atGeluEnd, 32)

// func erf256(x *float32, blocks int)
TEXT ·erf256(SB), NOSPLIT, $0-16
	EACH(ERF, const_atErfEnd, 32)

// func exp256(x *float32, blocks int)
TEXT ·exp256(SB), NOSPLIT, $0-16
	EACH(EXPONENTIAL, const_atHighest, 32)

// REST is Vx, one half of the values beyond whole blocks, which a mask selects, and otherwise -Inf.
#define REST(offset, mask) \
	VMASKMOVPS offset(SI), mask, Vx; \
	VBLENDVPS mask, Vx, Vinf, Vx

// func softmax256(x *float32, rows, n int)
//
// Two registers stand for one of AVX-512.
TEXT ·softmax256(SB), NOSPLIT, $0-24
	ROWS
	LEAQ ·lanes+64(SB), AX
	SHLQ $2, R10
	SUBQ R10, AX
	VMOVUPS (AX), Vfirst
	VMOVUPS 32(AX), Vlast

row:
	LEAQ (DI)(R9*1), R12
	VMOVAPS Vinf, Y0
	MOVQ DI, SI
	JMP  moreMax
max:
	VMAXPS (SI), Y0, Y0
	VMAXPS 32(SI), Y0, Y0
	ADDQ $64, SI
moreMax:
	CMPQ SI, R12
	JB   max
	REST(0, Vfirst)
	VMAXPS Vx, Y0, Y0
	REST(32, Vlast)
	VMAXPS Vx, Y0, Y0
	ACROSS(VMAXPS)
	VBROADCASTSS X0, Vtop

	VXORPS Vsum, Vsum, Vsum
	VXORPS VsumHigh, VsumHigh, VsumHigh
	MOVQ DI, SI
	JMP  moreSum
sum:
	VMOVUPS (SI), Vx
	TERM
	VMOVUPS Vp, (SI)
	VADDPS Vp, Vsum, Vsum
	VMOVUPS 32(SI), Vx
	TERM
	VMOVUPS Vp, 32(SI)
	VADDPS Vp, VsumHigh, VsumHigh
	ADDQ $64, SI
moreSum:
	CMPQ SI, R12
	JB   sum
	REST(0, Vfirst)
	TERM
	VMASKMOVPS Vp, Vfirst, (SI)
	VADDPS Vp, Vsum, Vsum
	REST(32, Vlast)
	TERM
	VMASKMOVPS Vp, Vlast, 32(SI)
	VADDPS Vp, VsumHigh, VsumHigh
	VADDPS VsumHigh, Vsum, Y0
	ACROSS(VADDPS)
	VDIVSS X0, X2, X0
	VBROADCASTSS X0, Vtop

	MOVQ DI, SI
	JMP  moreScale
scale:
	VMULPS (SI), Vtop, Vx
	VMOVUPS Vx, (SI)
	VMULPS 32(SI), Vtop, Vx
	VMOVUPS Vx, 32(SI)
	ADDQ $64, SI
moreScale:
	CMPQ SI, R12
	JB   scale
	VMASKMOVPS (SI), Vfirst, Vx
	VMULPS Vx, Vtop, Vx
	VMASKMOVPS Vx, Vfirst, (SI)
	VMASKMOVPS 32(SI), Vlast, Vx
	VMULPS Vx, Vtop, Vx
	VMASKMOVPS Vx, Vlast, 32(SI)
	LEAQ (DI)(R8*4), DI
	DECQ CX
	JNE  row
	VZEROUPPER
	RET
