// Package dump owns the printing of the store's own files: meta.db, a layer's tree.bin, an image's index.erofs.
//
// It promises to read only, without an engine or beside one, and to print what a damaged file still says. It must never be needed by one.
package dump

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/erofs"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
	"github.com/dhow-containers/dhow/internal/store/meta"
)

// Command is what the words behind dhowd's flags ask for: inspect FILE...
func Command(w io.Writer, args []string) error {
	if args[0] != "inspect" || len(args) < 2 {
		return errdef.New(errdef.InvalidArgument, "unexpected argument %q: dhowd takes flags, or: inspect FILE...", args[0])
	}
	out := bufio.NewWriter(w)
	for _, f := range args[1:] {
		if err := File(out, f); err != nil {
			return fmt.Errorf("inspect %s: %w", f, err)
		}
	}
	return out.Flush()
}

// File prints a file, which is known by its first bytes.
func File(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 1028)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("it is empty or cannot be read: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	switch head = head[:n]; {
	case bytes.HasPrefix(head, []byte(tree.Magic)):
		raw, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		root, err := tree.Decode(raw)
		if err != nil {
			return err
		}
		return names(w, root)
	case len(head) == 1028 && bytes.Equal(head[1024:], []byte{0xe2, 0xe1, 0xf5, 0xe0}):
		root, devices, err := erofs.Read(f)
		if err != nil {
			return err
		}
		for n, d := range devices {
			fmt.Fprintf(w, "device %d %s %d bytes\n", n, bytes.TrimRight(d.Tag[:], "\x00"), d.Size)
		}
		return names(w, root)
	}
	return records(w, path)
}

func records(w io.Writer, path string) error {
	all, damage, err := meta.Salvage(path)
	if err != nil {
		return err
	}
	for _, bucket := range slices.Sorted(maps.Keys(all)) {
		for _, key := range slices.Sorted(maps.Keys(all[bucket])) {
			var b bytes.Buffer
			if err := json.Compact(&b, all[bucket][key]); err != nil {
				return err
			}
			fmt.Fprintf(w, "%s/%s %s\n", bucket, plain(key), b.Bytes())
		}
	}
	if len(all) == 0 {
		return errdef.New(errdef.DataLoss, "it is no meta.db, tree.bin or index.erofs, or nothing of it can be read")
	}
	if damage > 0 {
		fmt.Fprintf(w, "# damaged in %d places: this is what can be read\n", damage)
	}
	return nil
}

// names prints a tree, a name a line: mode, owner, size or device, time, where the bytes are, path, link, attributes.
func names(w io.Writer, root *tree.Inode) error {
	first := map[*tree.Inode]string{}
	line(w, first, "", root)
	return tree.Walk(root, func(path string, _, i *tree.Inode) error {
		line(w, first, path, i)
		return nil
	})
}

func line(w io.Writer, first map[*tree.Inode]string, path string, i *tree.Inode) {
	shown := plain("/" + path)
	if was, again := first[i]; again || i.Foreign() {
		if i.Foreign() {
			was = "a lower layer's /" + i.Link
		}
		fmt.Fprintf(w, "%s = %s\n", shown, plain(was))
		return
	}
	first[i] = "/" + path
	fmt.Fprintf(w, "%s %06o %d:%d %s", shown, i.Mode, i.UID, i.GID, time.Unix(i.Sec, int64(i.Nsec)).UTC().Format(time.RFC3339Nano))
	switch i.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		fmt.Fprintf(w, " %d bytes", i.Size)
		if i.Size > 0 {
			fmt.Fprintf(w, " at %d of device %d", i.Off, i.Dev)
		}
	case unix.S_IFLNK:
		fmt.Fprintf(w, " -> %s", plain(i.Link))
	case unix.S_IFCHR, unix.S_IFBLK:
		major, minor := tree.SplitDev(i.Rdev)
		fmt.Fprintf(w, " %d,%d", major, minor)
	case unix.S_IFDIR:
		if i.Dir.Implicit {
			fmt.Fprint(w, " implicit")
		}
		if i.Dir.Opaque {
			fmt.Fprint(w, " opaque")
		}
		for _, n := range i.Dir.Hidden() {
			fmt.Fprintf(w, " hides %s", plain(n))
		}
	}
	for _, x := range i.Xattrs {
		fmt.Fprintf(w, " %s=%q", plain(x.Name), x.Value)
	}
	fmt.Fprintln(w)
}

// plain quotes a name that would not stay on its line, or could steer a terminal.
func plain(s string) string {
	if q := fmt.Sprintf("%q", s); q != `"`+s+`"` || strings.ContainsAny(s, " ") {
		return q
	}
	return s
}
