package criu

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Mount is an entry of a checkpoint's mount table (images/mnt.proto).
type Mount struct {
	Type     string // the file system's name, "" for one criu has no name for (a bind of the root's)
	ID       int
	Parent   int
	Device   int // of the superblock; equal for binds of each other
	Point    string
	External bool
	Key      string // the name by which the restorer knows an external one
}

const (
	magicCommon = 0x54564319
	magicMounts = 0x55563928
	maxImage    = 16 << 20 // of a mount table's file, in bytes
)

// fsNames is indexed by criu's enum fstype.
func fsNames() []string {
	return []string{"", "proc", "sysfs", "devtmpfs", "binfmt_misc", "tmpfs", "devpts", "simfs", "pstore", "securityfs", "fusectl", "debugfs",
		"cgroup", "aufs", "mqueue", "fuse", "auto", "overlay", "autofs", "tracefs", "", "", "", "cgroup2"}
}

// Mounts reads the mount tables of a checkpoint: one a mount namespace.
func Mounts(dir *os.File) ([][]Mount, error) {
	names, err := os.ReadDir(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return nil, err
	}
	var out [][]Mount
	for _, e := range names {
		if !strings.HasPrefix(e.Name(), "mountpoints-") || !strings.HasSuffix(e.Name(), ".img") {
			continue
		}
		table, err := mountTable(dir, e.Name())
		if err != nil {
			return nil, errdef.New(errdef.InvalidArgument, "checkpoint image %s: %w", e.Name(), err)
		}
		out = append(out, table)
	}
	return out, nil
}

func mountTable(dir *os.File, name string) ([]Mount, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxImage+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxImage {
		return nil, fmt.Errorf("larger than %d bytes", maxImage)
	}
	return parseMounts(b)
}

func parseMounts(b []byte) ([]Mount, error) {
	if len(b) < 8 || binary.LittleEndian.Uint32(b) != magicCommon || binary.LittleEndian.Uint32(b[4:]) != magicMounts {
		return nil, fmt.Errorf("no mount table of criu's")
	}
	b = b[8:]
	var out []Mount
	for len(b) > 0 {
		if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
			return nil, errMalformed
		}
		size := int(binary.LittleEndian.Uint32(b))
		m, err := parseMount(b[4 : 4+size])
		if err != nil {
			return nil, err
		}
		out = append(out, m)
		b = b[4+size:]
	}
	return out, nil
}

func parseMount(b []byte) (Mount, error) {
	fields, err := decode(b)
	if err != nil {
		return Mount{}, err
	}
	var m Mount
	kind, fsname := uint64(0), ""
	for _, f := range fields {
		switch f.field {
		case 1:
			kind = f.num
		case 2:
			m.ID = int(f.num)
		case 3:
			m.Device = int(f.num)
		case 4:
			m.Parent = int(f.num)
		case 7:
			m.Point = path.Clean("/" + string(f.data))
		case 13:
			m.External = m.External || f.num != 0
		case 14:
			fsname = string(f.data)
		case 18:
			m.Key = string(f.data)
			m.External = true
		}
	}
	if strings.ContainsRune(m.Point+m.Key, 0) {
		return m, fmt.Errorf("a mount point contains a NUL byte")
	}
	if kind >= uint64(len(fsNames())) {
		return m, fmt.Errorf("unknown file system %d on %s", kind, m.Point)
	}
	m.Type = fsNames()[kind]
	if m.Type == "auto" {
		m.Type = fsname
	}
	return m, nil
}

// Complaint returns what criu's log gives as the reason of a failure: the first lines that say Error, at most three.
func Complaint(dir *os.File, name string) string {
	const most = 8 << 20
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, most))
	var found []string
	for _, line := range strings.Split(string(b), "\n") {
		if _, text, ok := strings.Cut(line, "Error "); ok {
			if _, after, ok := strings.Cut(text, "): "); ok { // drop (criu/file.c:123):
				text = after
			}
			if strings.HasPrefix(text, "rlimit: Can't setup RLIMIT_NOFILE") || strings.HasSuffix(text, "FAILED.") {
				continue // says nothing, or the same again
			}
			found = append(found, strings.TrimSpace(text))
		}
	}
	return strings.Join(found[:min(3, len(found))], "; ")
}
