package runtime

import (
	"io"
	"os"

	"github.com/dhow-containers/dhow/internal/linux/tty"
)

// foreground joins our own terminal with a container's.
type foreground struct {
	master  *os.File
	restore func() error
	drained chan struct{}
}

func (f *foreground) take(master *os.File) error {
	f.master = master
	f.resize()
	return nil
}

// begin starts to copy. The input half ends with this process.
func (f *foreground) begin() {
	if f.master == nil {
		return
	}
	if tty.IsTerminal(0) {
		if restore, err := tty.RawMode(0); err == nil {
			f.restore = restore
		}
	}
	f.drained = make(chan struct{})
	go io.Copy(f.master, os.Stdin)
	go func() { // ends when the last holder of the slave is gone (EIO)
		io.Copy(os.Stdout, f.master)
		close(f.drained)
	}()
}

func (f *foreground) end() {
	if f.drained != nil {
		<-f.drained
	}
	if f.restore != nil {
		f.restore()
	}
}

func (f *foreground) resize() {
	if f.master == nil || !tty.IsTerminal(0) {
		return
	}
	if rows, cols, err := tty.Size(0); err == nil {
		tty.SetSize(int(f.master.Fd()), rows, cols)
	}
}
