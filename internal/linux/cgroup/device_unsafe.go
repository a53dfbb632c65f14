package cgroup

import (
	"fmt"
	"os"
	"path"
	"runtime"
	"unsafe"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"golang.org/x/sys/unix"
)

// The parts of union bpf_attr we use (include/uapi/linux/bpf.h); what stays zero has no name.
type (
	attrLoad struct {
		progType, insnCount uint32
		insns, license      uint64
		_, _                uint32 // log_level, log_size
		_                   uint64 // log_buf
		_, _                uint32 // kern_version, prog_flags
		name                [16]byte
	}
	attrAttach struct {
		target, prog, attachType, flags, replace uint32
	}
	attrQuery struct {
		target, attachType, _, _ uint32 // query_flags, attach_flags
		ids                      uint64
		count, _                 uint32
	}
	attrByID struct {
		id, _, _ uint32 // next_id, open_flags
	}
	attrInfo struct {
		fd, size uint32
		info     uint64
	}
	progInfo struct { // struct bpf_prog_info as far as the name
		_    [64]byte
		name [16]byte
	}
)

const (
	maxAttached      = 64
	bpfProgGetFdByID = 13
	bpfObjGetInfoFD  = 15
	bpfFReplace      = 4 // Linux 5.6
)

func bpf[T any](cmd uintptr, attr *T) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
		if errno == unix.EAGAIN || errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return -1, errno
		}
		return int(r), nil
	}
}

// LoadDevices loads a program of plan.DeviceProgram and attaches it to a v2 directory in place of earlier ones of ours; those of others
// (systemd) stay, and all must allow. There is no moment without one: the new program stands before an older one goes.
func LoadDevices(dir string, program []byte) error {
	if len(program) == 0 || len(program)%8 != 0 {
		return errdef.New(errdef.InvalidArgument, "device program: %d bytes are no whole number of instructions", len(program))
	}
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	license := []byte("Apache\x00")
	var pin runtime.Pinner // the kernel gets their addresses as numbers, which neither collector nor stack copier sees
	defer pin.Unpin()
	pin.Pin(&program[0])
	pin.Pin(&license[0])
	load := attrLoad{progType: unix.BPF_PROG_TYPE_CGROUP_DEVICE, insnCount: uint32(len(program) / 8),
		insns: uint64(uintptr(unsafe.Pointer(&program[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
		name: programName()}
	prog, err := bpf(unix.BPF_PROG_LOAD, &load)
	if err != nil {
		return fmt.Errorf("load device program: %w", err)
	}
	defer unix.Close(prog)
	old, err := attached(int(d.Fd()))
	if err != nil {
		return err
	}
	defer func() {
		for _, fd := range old {
			unix.Close(fd)
		}
	}()
	attach := attrAttach{target: uint32(d.Fd()), prog: uint32(prog), attachType: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	if len(old) == 1 {
		attach.flags |= bpfFReplace
		attach.replace = uint32(old[0])
		if _, err = bpf(unix.BPF_PROG_ATTACH, &attach); err == nil {
			return nil
		}
		attach.flags, attach.replace = unix.BPF_F_ALLOW_MULTI, 0
	}
	if _, err := bpf(unix.BPF_PROG_ATTACH, &attach); err != nil {
		return fmt.Errorf("attach device program to %s: %w", path.Clean(dir), err)
	}
	for _, fd := range old {
		detach := attrAttach{target: uint32(d.Fd()), prog: uint32(fd), attachType: unix.BPF_CGROUP_DEVICE}
		if _, err := bpf(unix.BPF_PROG_DETACH, &detach); err != nil {
			return fmt.Errorf("detach device program from %s: %w", path.Clean(dir), err)
		}
	}
	return nil
}

func programName() (name [16]byte) {
	copy(name[:], plan.DeviceProgramName)
	return name
}

// ours tells whether a program has our name.
func ours(fd int) bool {
	var info progInfo
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	_, err := bpf(bpfObjGetInfoFD, &attrInfo{fd: uint32(fd), size: uint32(unsafe.Sizeof(info)), info: uint64(uintptr(unsafe.Pointer(&info)))})
	return err == nil && info.name == programName()
}

// attached opens our device programs of a directory; the caller closes them.
func attached(dir int) ([]int, error) {
	ids := make([]uint32, maxAttached)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	query := attrQuery{target: uint32(dir), attachType: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))),
		count: maxAttached}
	_, err := bpf(unix.BPF_PROG_QUERY, &query)
	if err != nil {
		return nil, fmt.Errorf("query device programs: %w", err)
	}
	var fds []int
	for _, id := range ids[:query.count] {
		fd, err := bpf(bpfProgGetFdByID, &attrByID{id: id})
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return nil, fmt.Errorf("open device program %d: %w", id, err)
		}
		if !ours(fd) {
			unix.Close(fd)
			continue
		}
		fds = append(fds, fd)
	}
	return fds, nil
}
