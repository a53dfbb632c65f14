package signals

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPipe sends itself each signal, some while others are being handled, and misses none. A Go program has many threads; any may be hit.
func TestPipe(t *testing.T) {
	sent := []syscall.Signal{unix.SIGUSR1, unix.SIGHUP, unix.SIGTERM, unix.SIGWINCH, unix.SIGTSTP, unix.SIGINT}
	fd, err := Pipe(sent...)
	if err != nil {
		t.Fatal(err)
	}
	if got := Read(fd); len(got) != 0 {
		t.Fatalf("before any was sent: %v", got)
	}
	done := make(chan bool)
	go func() { // threads that run Go code are interrupted, too
		defer close(done)
		x := map[int][]byte{}
		for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
			x[len(x)%100] = make([]byte, 1000)
		}
	}()
	const rounds = 50
	counts := map[syscall.Signal]int{}
	for range rounds {
		for _, s := range sent {
			if err := unix.Kill(unix.Getpid(), s); err != nil {
				t.Fatal(err)
			}
			for counts[s]++; ; { // a second one sent before the first is taken is one to the kernel: wait for each
				p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
				if n, err := unix.Poll(p, 5000); err == unix.EINTR {
					continue
				} else if err != nil || n != 1 {
					t.Fatalf("%v did not arrive: %v", s, err)
				}
				break
			}
			if got := Read(fd); !slices.Equal(got, []syscall.Signal{s}) {
				t.Fatalf("sent %v, read %v", s, got)
			}
		}
	}
	<-done
}
