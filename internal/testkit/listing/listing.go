// Package listing owns how tests tell a tree of files: every object with every attribute that a layer can give it, told the same way for a
// folder, a detached mount and the root of a container.
//
// It promises that two trees with equal listings cannot be told apart by programs that read them. It must never be linked into a program
// of ours; tests' own programs may have it.
package listing

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The fields of an Object.
const (
	Kind  = iota // file, dir, symlink, chr, blk, fifo, sock; or mount: where another mount begins, of which nothing else is told
	Mode         // permission bits, octal
	Owner        // uid:gid
	Time         // modification, seconds.nanoseconds
	Data         // files: size and SHA-256; symbolic links: their text; devices: major:minor
	Links        // of objects that are no directories: number of names, and the first of them that the tree has
	Attrs        // extended attributes, by name
	fields
)

// Fields are the names of the fields.
var Fields = [fields]string{"kind", "mode", "owner", "time", "data", "links", "attributes"}

// Object is what is told of a file, folder, link or device.
type Object [fields]string

// Tree holds a tree's objects by their paths, which begin with "."; they may hold any bytes.
type Tree map[string]Object

// inode tells objects of one tree apart.
type inode struct{ dev, ino uint64 }

type lister struct {
	tree  Tree
	first map[inode]string
	buf   []byte
	attrs []byte
}

// Of lists the tree at dir, which mounts in it are no part of.
func Of(dir string) (Tree, error) {
	l := &lister{Tree{}, map[inode]string{}, make([]byte, 256<<10), make([]byte, 64<<10)}
	return l.tree, l.dir(dir+"/.", ".") // a descriptor's name below /proc is a link
}

// dir lists the directory at p of the tree, which is at real for the kernel, and what is in it.
func (l *lister) dir(real, p string) error {
	if err := l.add(real, p); err != nil {
		return err
	}
	names, err := os.ReadDir(real)
	if err != nil {
		return err
	}
	for _, n := range names { // sorted
		there, here := real+"/"+n.Name(), p+"/"+n.Name()
		mount, err := begins(there)
		switch {
		case err != nil:
			return err
		case mount:
			l.tree[here] = Object{Kind: "mount"}
			continue
		case n.IsDir():
			err = l.dir(there, here)
		default:
			err = l.add(there, here)
		}
		if err != nil {
			return err
		}
		if k := l.tree[here][Kind]; kind(typeBits(n.Type())) != k {
			return fmt.Errorf("%s is a %s, but its directory says %s", here, k, n.Type())
		}
	}
	return nil
}

// begins reports whether a mount begins at p.
func begins(p string) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, p, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st); err != nil {
		return false, &os.PathError{Op: "statx", Path: p, Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

func (l *lister) add(real, p string) error {
	var st unix.Stat_t
	if err := unix.Lstat(real, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: real, Err: err}
	}
	o := Object{Kind: kind(st.Mode & unix.S_IFMT), Mode: fmt.Sprintf("%04o", st.Mode&0o7777), Owner: fmt.Sprintf("%d:%d", st.Uid, st.Gid), Time: fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)}
	if o[Kind] != "dir" {
		id := inode{uint64(st.Dev), st.Ino}
		if l.first[id] == "" {
			l.first[id] = p
		}
		o[Links] = "1"
		if st.Nlink > 1 {
			o[Links] = fmt.Sprintf("%d of %q", st.Nlink, l.first[id])
		}
	}
	var err error
	switch o[Kind] {
	case "file":
		o[Data], err = l.contents(real, st.Size)
	case "symlink":
		o[Data], err = os.Readlink(real)
		o[Data] = strconv.QuoteToASCII(o[Data])
	case "chr", "blk":
		o[Data] = fmt.Sprintf("%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	}
	if err == nil {
		o[Attrs], err = l.xattrs(real)
	}
	l.tree[p] = o
	return err
}

// contents is the hash of a file, which must have the size that it says.
func (l *lister) contents(real string, size int64) (string, error) {
	f, err := os.Open(real)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.CopyBuffer(sum, struct{ io.Reader }{f}, l.buf)
	if err == nil && n != size {
		err = fmt.Errorf("%s: %d bytes of %d can be read", real, n, size)
	}
	return fmt.Sprintf("%d %x", size, sum.Sum(nil)), err
}

func (l *lister) xattrs(real string) (string, error) {
	n, err := unix.Llistxattr(real, l.attrs)
	if n == 0 || err == unix.EOPNOTSUPP {
		return "", nil
	}
	if err != nil {
		return "", &os.PathError{Op: "llistxattr", Path: real, Err: err}
	}
	names := strings.Split(strings.TrimSuffix(string(l.attrs[:n]), "\x00"), "\x00")
	sort.Strings(names)
	var out []string
	for _, name := range names {
		n, err := unix.Lgetxattr(real, name, l.attrs)
		if err != nil {
			return "", &os.PathError{Op: "lgetxattr " + name, Path: real, Err: err}
		}
		out = append(out, fmt.Sprintf("%s=%q", strconv.QuoteToASCII(name), l.attrs[:n]))
	}
	return strings.Join(out, " "), nil
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "dir"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFCHR:
		return "chr"
	case unix.S_IFBLK:
		return "blk"
	case unix.S_IFIFO:
		return "fifo"
	}
	return "sock"
}

func typeBits(m os.FileMode) uint32 {
	switch m & os.ModeType {
	case 0:
		return unix.S_IFREG
	case os.ModeDir:
		return unix.S_IFDIR
	case os.ModeSymlink:
		return unix.S_IFLNK
	case os.ModeDevice | os.ModeCharDevice:
		return unix.S_IFCHR
	case os.ModeDevice:
		return unix.S_IFBLK
	case os.ModeNamedPipe:
		return unix.S_IFIFO
	}
	return unix.S_IFSOCK
}

// Paths are the tree's paths in byte order.
func (t Tree) Paths() []string {
	out := make([]string, 0, len(t))
	for p := range t {
		out = append(out, p)
	}
	sort.Strings(out)
	return out
}

// Print writes the tree, an object a line, its fields between tabs.
func (t Tree) Print(to io.Writer) error {
	w := bufio.NewWriter(to)
	for _, p := range t.Paths() {
		o := t[p]
		fmt.Fprintf(w, "%s\t%s\n", strconv.QuoteToASCII(p), strings.Join(o[:], "\t"))
	}
	return w.Flush()
}

// Parse reads what Print wrote.
func Parse(from io.Reader) (Tree, error) {
	t, lines := Tree{}, bufio.NewScanner(from)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var o Object
		parts := strings.Split(lines.Text(), "\t")
		p, err := strconv.Unquote(parts[0])
		if err != nil || len(parts) != 1+len(o) {
			return nil, fmt.Errorf("%.200q is no line of a listing", lines.Text())
		}
		copy(o[:], parts[1:])
		t[p] = o
	}
	return t, lines.Err()
}

// Difference is a path at which two trees differ in a field; when one of them has nothing there, in Kind.
type Difference struct {
	Path  string
	Field int
	Got   string
	Want  string
}

func (d Difference) String() string {
	return fmt.Sprintf("%q: %s: %s, not %s", d.Path, Fields[d.Field], orNothing(d.Got), orNothing(d.Want))
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// Compare tells in what got differs from want, by path. Where there is nothing, or something else, the kind alone is told.
func Compare(got, want Tree) (out []Difference) {
	all := Tree{}
	for _, t := range []Tree{got, want} {
		for p := range t {
			all[p] = Object{}
		}
	}
	for _, p := range all.Paths() {
		g, w := got[p], want[p]
		for f := range g {
			if g[f] == w[f] {
				continue
			}
			if out = append(out, Difference{p, f, g[f], w[f]}); f == Kind {
				break
			}
		}
	}
	return out
}
