package bench

import "testing"

func TestCountCalls(t *testing.T) {
	const log = `10 execve("/bin/a", ["a"], 0x7ffe /* 3 vars */) = 0
10 read(3,  <unfinished ...>
11 write(1, "x", 1)                  = 1
10 <... read resumed>"y", 1)         = 1
11 --- SIGURG {si_signo=SIGURG} ---
11 rt_sigreturn({mask=[]})           = 0
11 ???( <unfinished ...>
12   getpid()                        = 12
10 +++ exited with 0 +++
`
	if calls, tasks := countCalls(log); calls != 5 || tasks != 3 {
		t.Errorf("%d calls in %d tasks, want 5 in 3", calls, tasks)
	}
}
