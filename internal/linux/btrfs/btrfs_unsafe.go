package btrfs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ioctls (linux/btrfs.h); the numbers are the same on amd64 and arm64.
const (
	iocSubvolCreate = 0x5000940e // BTRFS_IOC_SUBVOL_CREATE
	iocSnapDestroy  = 0x5000940f // BTRFS_IOC_SNAP_DESTROY
	iocSnapCreateV2 = 0x50009417 // BTRFS_IOC_SNAP_CREATE_V2
	iocGetFlags     = 0x80089419 // BTRFS_IOC_SUBVOL_GETFLAGS
	iocSetFlags     = 0x4008941a // BTRFS_IOC_SUBVOL_SETFLAGS
	flagReadonly    = 1 << 1     // BTRFS_SUBVOL_RDONLY
)

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	fd   int64
	name [4088]byte
}

// volArgsV2 is struct btrfs_ioctl_vol_args_v2.
type volArgsV2 struct {
	fd             int64
	transid, flags uint64
	unused         [4]uint64
	name           [4040]byte
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
		if e == 0 {
			return nil
		}
		if e != unix.EINTR {
			return e
		}
	}
}

func subvolCreate(dir int, name string) error {
	var a volArgs
	copy(a.name[:], name)
	return ioctl(dir, iocSubvolCreate, unsafe.Pointer(&a))
}

func snapDestroy(dir int, name string) error {
	var a volArgs
	copy(a.name[:], name)
	return ioctl(dir, iocSnapDestroy, unsafe.Pointer(&a))
}

func snapCreate(dir int, name string, from int) error {
	a := volArgsV2{fd: int64(from)}
	copy(a.name[:], name)
	return ioctl(dir, iocSnapCreateV2, unsafe.Pointer(&a))
}

func setReadonly(fd int, on bool) error {
	var flags uint64
	if err := ioctl(fd, iocGetFlags, unsafe.Pointer(&flags)); err != nil {
		return err
	}
	if flags &^= flagReadonly; on {
		flags |= flagReadonly
	}
	return ioctl(fd, iocSetFlags, unsafe.Pointer(&flags))
}
