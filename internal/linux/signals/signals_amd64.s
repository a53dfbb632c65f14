#include "textflag.h"

// The handler: write(pipe, &number, 4). All signals are blocked while it runs, so the red zone below the stack pointer is its own.
TEXT handle<>(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVL DI, -8(SP)
	MOVL ·pipe(SB), DI
	LEAQ -8(SP), SI
	MOVL $4, DX
	MOVL $1, AX
	SYSCALL
	RET

// The kernel returns from a handler by way of this: rt_sigreturn(2).
TEXT back<>(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVL $15, AX
	SYSCALL
	INT  $3

// func handler() uintptr
TEXT ·handler(SB), NOSPLIT, $0-8
	LEAQ handle<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func restorer() uintptr
TEXT ·restorer(SB), NOSPLIT, $0-8
	LEAQ back<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET
