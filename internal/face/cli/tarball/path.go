// Package tarball owns the local side of cp: what a path on either side means, and tars of local files.
//
// It promises that what a container sent is laid down below the folder that the user named and nowhere else, whatever links the tar or
// the folder holds, and that a tar of local files holds each file as it was opened. It must never talk to an engine.
package tarball

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Info is one side of a copy.
type Info struct {
	Path          string
	Exists, IsDir bool
	Rebase        string // the name that was asked for, where following a link changed it
}

// Errors in docker's words.
var (
	ErrNoDir      = errors.New("no such directory")
	ErrCannotCopy = errors.New("cannot copy directory")
)

func endsInSlash(p string) bool { return strings.HasSuffix(p, "/") }
func isDot(p string) bool       { return filepath.Base(p) == "." }

// keepEnd gives a clean path the end that the original had, because it says something: / a folder, /. what is in it.
func keepEnd(clean, original string) string {
	if !isDot(clean) && isDot(original) {
		if !endsInSlash(clean) {
			clean += "/"
		}
		clean += "."
	}
	if !endsInSlash(clean) && endsInSlash(original) {
		clean += "/"
	}
	return clean
}

// Absolute makes a local path absolute and keeps its end.
func Absolute(p string) (string, error) {
	abs, err := filepath.Abs(p)
	return keepEnd(abs, p), err
}

// Split splits a path into folder and name, which is "." where the path ends in /. .
func Split(p string) (dir, base string) {
	clean := filepath.Clean(p)
	if isDot(p) {
		clean += "/."
	}
	return filepath.Dir(clean), filepath.Base(clean)
}

// Renamed is what a path is called after a link was followed, and the name that the user knows it by where that is another.
func Renamed(p, resolved string) (path, rebase string) {
	resolved = keepEnd(resolved, p)
	if filepath.Base(p) != filepath.Base(resolved) {
		rebase = filepath.Base(p)
	}
	return resolved, rebase
}

// Source looks at a local path that is to be copied.
func Source(p string, follow bool) (i Info, err error) {
	if follow {
		if i.Path, err = filepath.EvalSymlinks(p); err != nil {
			return i, err
		}
		i.Path, i.Rebase = Renamed(p, i.Path)
	} else {
		dir, base := filepath.Split(p)
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return i, err
		}
		i.Path = strings.TrimSuffix(dir, "/") + "/" + base
		if endsInSlash(p) && filepath.Base(p) != filepath.Base(i.Path) {
			i.Rebase = filepath.Base(p)
		}
	}
	st, err := os.Lstat(i.Path)
	if err != nil {
		return i, err
	}
	i.Exists, i.IsDir = true, st.IsDir()
	return i, nil
}

const mostLinks = 10

// Destination looks at a local path that is to be written; links at its end are followed, its folder must exist.
func Destination(p string) (i Info, err error) {
	original := p
	for n := 0; ; n++ {
		if n > mostLinks {
			return i, fmt.Errorf("too many symbolic links in %q", original)
		}
		st, err := os.Lstat(p)
		if errors.Is(err, os.ErrNotExist) {
			dir, _ := Split(p)
			if st, err := os.Stat(dir); err != nil {
				return i, err
			} else if !st.IsDir() {
				return i, ErrNoDir
			}
			return Info{Path: p}, nil
		}
		if err != nil {
			return i, err
		}
		if st.Mode()&os.ModeSymlink == 0 {
			return Info{Path: p, Exists: true, IsDir: st.IsDir()}, nil
		}
		to, err := os.Readlink(p)
		if err != nil {
			return i, err
		}
		if !filepath.IsAbs(to) {
			dir, _ := Split(p)
			to = filepath.Join(dir, to)
		}
		p = to
	}
}

// Plan decides where the tar of src is laid down for dst: a folder, and what its entries' first name becomes.
func Plan(src, dst Info) (dir string, rename func(string) string, err error) {
	dstDir, dstBase := Split(dst.Path)
	_, srcBase := Split(src.Path)
	if src.Rebase != "" {
		srcBase = src.Rebase
	}
	switch {
	case dst.Exists && dst.IsDir:
		return dst.Path, func(n string) string { return n }, nil
	case dst.Exists && src.IsDir:
		return "", nil, ErrCannotCopy
	case !dst.Exists && !src.IsDir && (endsInSlash(dst.Path) || isDot(dst.Path)):
		return "", nil, ErrNoDir
	}
	return dstDir, Rename(srcBase, dstBase), nil
}

// Rename gives entries another first name.
func Rename(old, to string) func(string) string {
	return func(n string) string {
		if old == "/" { // the tar of a root: its names begin with a slash
			return to + "/" + strings.TrimPrefix(n, "/")
		}
		if rest, ok := strings.CutPrefix(n, old); ok && (rest == "" || rest[0] == '/') {
			return to + rest
		}
		return n
	}
}
