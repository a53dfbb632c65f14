package logfile

import (
	"bytes"
	"io"
	"os"
	"strconv"
)

// maxRotated bounds how many rotated files are looked for.
const maxRotated = 1000

func nameOf(path string, k int) string {
	if k == 0 {
		return path
	}
	return path + "." + strconv.Itoa(k)
}

// chain opens the log's files, oldest first. The writer may rotate meanwhile: names are walked from the youngest up, the way
// files move, so a file can be met twice (and is dropped) but not be missed.
func chain(path string) ([]*os.File, error) {
	var young []*os.File
	miss := 0
	for k := 0; k <= maxRotated && miss < 2; k++ {
		f, err := openLog(nameOf(path, k))
		if os.IsNotExist(err) {
			miss++ // one hole is a rotation in progress
			continue
		}
		if err != nil {
			closeAll(young)
			return nil, err
		}
		miss = 0
		if n := len(young); n > 0 && same(young[n-1], f) {
			f.Close()
			continue
		}
		young = append(young, f)
	}
	old := make([]*os.File, 0, len(young))
	for i := len(young) - 1; i >= 0; i-- {
		old = append(old, young[i])
	}
	return old, nil
}

// successors opens the files younger than f, oldest first. gap tells that f itself has been removed, so that files between
// may have been, too.
func successors(path string, f *os.File) (next []*os.File, gap bool, err error) {
	for try := 0; ; try++ {
		k, err := find(path, f)
		if err != nil {
			return nil, false, err
		}
		if k == 0 {
			return nil, false, nil
		}
		if k < 0 {
			next, err := chain(path)
			return next, true, err
		}
		hole := false
		for i := k - 1; i >= 0; i-- {
			g, err := openLog(nameOf(path, i))
			if os.IsNotExist(err) {
				hole = true
				break
			}
			if err != nil {
				closeAll(next)
				return nil, false, err
			}
			next = append(next, g)
		}
		// Only if nothing moved are they what they seem.
		if again, err := find(path, f); err == nil && again == k && !hole {
			return next, false, nil
		}
		closeAll(next)
		next = nil
		if hole && try > 100 {
			return nil, false, nil // the writer died between two renames: nothing younger exists yet
		}
	}
}

// find returns the number of the name that f has now, or -1.
func find(path string, f *os.File) (int, error) {
	own, err := f.Stat()
	if err != nil {
		return 0, err
	}
	miss := 0
	for k := 0; k <= maxRotated && miss < 2; k++ {
		st, err := os.Stat(nameOf(path, k))
		if os.IsNotExist(err) {
			miss++
			continue
		}
		if err != nil {
			return 0, err
		}
		miss = 0
		if os.SameFile(own, st) {
			return k, nil
		}
	}
	return -1, nil
}

func openLog(name string) (*os.File, error) { return os.Open(name) }

func same(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// tailOffset returns where the last n whole lines of f begin, and how many there are (fewer when the file has fewer).
// It reads blocks from the end.
func tailOffset(f *os.File, n int) (off int64, lines int, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	buf := make([]byte, 32<<10)
	seen := -1 // newlines met; the first ends the last line
	for end := st.Size(); end > 0; {
		from := max(0, end-int64(len(buf)))
		b := buf[:end-from]
		if _, err := io.ReadFull(io.NewSectionReader(f, from, end-from), b); err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF { // cut back by the writer meanwhile
				end = from
				continue
			}
			return 0, 0, err
		}
		for {
			i := bytes.LastIndexByte(b, '\n')
			if i < 0 {
				break
			}
			if seen++; seen == n {
				return from + int64(i) + 1, n, nil
			}
			b = b[:i]
		}
		end = from
	}
	return 0, max(0, seen+1), nil
}
