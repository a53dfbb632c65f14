package atomicfile

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrIrregular is why Open refuses what is there.
var ErrIrregular = errors.New("it is no regular file")

// Open opens a regular file for reading. Anything else in its place is ErrIrregular at once: no link is followed, and nobody waited for as
// behind a pipe.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a symbolic link; a socket, a device without a driver
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrIrregular}
	} else if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: ErrIrregular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
