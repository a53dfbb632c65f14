package cli

import (
	"context"
	"net/url"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/signals"
)

// proxySignals sends the signals this process gets to the container, until ctx ends; from then on they are lost. Telling os/signal of each
// would take a hundred changes of thread, while the container waits to be started.
func (a *app) proxySignals(ctx context.Context, id string) error {
	fd, err := signals.Pipe(proxied()...)
	if err != nil {
		return err
	}
	arrived := os.NewFile(uintptr(fd), "signals")
	go func() { // ends with this process: there is nobody else to write into a pipe that the handler writes to
		var b [256]byte
		for {
			n, err := arrived.Read(b[:])
			if err != nil {
				return
			}
			for _, sig := range signals.Decode(b[:n]) {
				name := unix.SignalName(sig)
				if name == "" {
					name = strconv.Itoa(int(sig))
				}
				a.api.Post(ctx, "/containers/"+id+"/kill", url.Values{"signal": {name}}, nil, nil)
			}
		}
	}()
	return nil
}

// proxied lists the signals that mean the container: not those the kernel sends about this process's own life, nor those that Go and the C
// library keep for themselves.
func proxied() []syscall.Signal {
	list := []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTERM, unix.SIGSTKFLT, unix.SIGCONT,
		unix.SIGTSTP, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGVTALRM, unix.SIGIO, unix.SIGPWR, unix.SIGSYS}
	const first, last = 35, 64 // SIGRTMIN+1 and SIGRTMAX, as the C library counts
	for s := syscall.Signal(first); s <= last; s++ {
		list = append(list, s)
	}
	return list
}
