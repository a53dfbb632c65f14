#include "textflag.h"

// The handler: write(pipe, &number, 4). All signals are blocked while it runs.
TEXT handle<>(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	SUB  $16, RSP
	MOVW R0, (RSP)
	MOVW ·pipe(SB), R0
	MOVD RSP, R1
	MOVD $4, R2
	MOVD $64, R8
	SVC
	ADD  $16, RSP
	RET

// The kernel returns from a handler by way of this: rt_sigreturn(2).
TEXT back<>(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVD $139, R8
	SVC
	BRK

// func handler() uintptr
TEXT ·handler(SB), NOSPLIT, $0-8
	MOVD $handle<>(SB), R0
	MOVD R0, ret+0(FP)
	RET

// func restorer() uintptr
TEXT ·restorer(SB), NOSPLIT, $0-8
	MOVD $back<>(SB), R0
	MOVD R0, ret+0(FP)
	RET
