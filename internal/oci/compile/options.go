package compile

import (
	"strings"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// options are a mount's options, sorted by what they act on.
type options struct {
	set, clear   uint64 // MOUNT_ATTR_* of the mount itself
	rset, rclear uint64 // the same for all mounts below it too
	propagation  uint64 // MS_SHARED, ...; 0: as it is
	recursive    bool   // of the propagation
	bind, rbind  bool
	data         []string // for the file system: key or key=value
}

// parseOptions understands mount(8)'s words as runtime-spec's config-linux.md lists them.
func parseOptions(list []string) (options, error) {
	var o options
	for _, w := range list {
		switch {
		case w == "defaults" || w == "":
		case w == "bind":
			o.bind = true
		case w == "rbind":
			o.bind, o.rbind = true, true
		case o.attribute(w) || o.propagate(w):
		case w == "idmap" || w == "ridmap" || w == "tmpcopyup":
			return o, errUnsupportedOption(w)
		default:
			o.data = append(o.data, w)
		}
	}
	return o, nil
}

type errUnsupportedOption string

func (e errUnsupportedOption) Error() string {
	return "option " + string(e)
}

func (o *options) attribute(w string) bool {
	set, clear := &o.set, &o.clear
	bit, on := attributeBit(w)
	if bit == 0 && strings.HasPrefix(w, "r") {
		if bit, on = attributeBit(w[1:]); bit != 0 {
			set, clear = &o.rset, &o.rclear
		}
	}
	if bit == 0 {
		return false
	}
	if bit == atimeMode { // a field of several bits: on carries the value
		*set = *set&^u.MOUNT_ATTR__ATIME | on
		*clear |= u.MOUNT_ATTR__ATIME
		return true
	}
	if on != 0 {
		*set |= bit
		*clear &^= bit
	} else {
		*clear |= bit
		*set &^= bit
	}
	return true
}

const atimeMode = 1 << 63

// attributeBit returns the attribute a word is about and whether (non-zero) it is set.
func attributeBit(w string) (bit, on uint64) {
	switch w {
	case "ro":
		return u.MOUNT_ATTR_RDONLY, 1
	case "rw":
		return u.MOUNT_ATTR_RDONLY, 0
	case "nosuid":
		return u.MOUNT_ATTR_NOSUID, 1
	case "suid":
		return u.MOUNT_ATTR_NOSUID, 0
	case "nodev":
		return u.MOUNT_ATTR_NODEV, 1
	case "dev":
		return u.MOUNT_ATTR_NODEV, 0
	case "noexec":
		return u.MOUNT_ATTR_NOEXEC, 1
	case "exec":
		return u.MOUNT_ATTR_NOEXEC, 0
	case "nodiratime":
		return u.MOUNT_ATTR_NODIRATIME, 1
	case "diratime":
		return u.MOUNT_ATTR_NODIRATIME, 0
	case "nosymfollow":
		return u.MOUNT_ATTR_NOSYMFOLLOW, 1
	case "symfollow":
		return u.MOUNT_ATTR_NOSYMFOLLOW, 0
	case "noatime":
		return atimeMode, u.MOUNT_ATTR_NOATIME
	case "strictatime":
		return atimeMode, u.MOUNT_ATTR_STRICTATIME
	case "relatime", "atime", "norelatime", "nostrictatime":
		return atimeMode, u.MOUNT_ATTR_RELATIME
	}
	return 0, 0
}

func (o *options) propagate(w string) bool {
	r := strings.HasPrefix(w, "r")
	switch strings.TrimPrefix(w, "r") {
	case "private":
		o.propagation = u.MS_PRIVATE
	case "shared":
		o.propagation = u.MS_SHARED
	case "slave":
		o.propagation = u.MS_SLAVE
	case "unbindable":
		o.propagation = u.MS_UNBINDABLE
	default:
		return false
	}
	o.recursive = r
	return true
}

func attrText(a uint64) string {
	return prog.Flags(a, []prog.FlagName{
		{Bit: u.MOUNT_ATTR_RDONLY, Name: "RDONLY"}, {Bit: u.MOUNT_ATTR_NOSUID, Name: "NOSUID"}, {Bit: u.MOUNT_ATTR_NODEV, Name: "NODEV"},
		{Bit: u.MOUNT_ATTR_NOEXEC, Name: "NOEXEC"}, {Bit: u.MOUNT_ATTR_NOATIME, Name: "NOATIME"},
		{Bit: u.MOUNT_ATTR_STRICTATIME, Name: "STRICTATIME"}, {Bit: u.MOUNT_ATTR_NODIRATIME, Name: "NODIRATIME"},
		{Bit: u.MOUNT_ATTR_NOSYMFOLLOW, Name: "NOSYMFOLLOW"},
	})
}

func propagationText(p uint64) string {
	return prog.Flags(p, []prog.FlagName{
		{Bit: u.MS_PRIVATE, Name: "PRIVATE"}, {Bit: u.MS_SHARED, Name: "SHARED"}, {Bit: u.MS_SLAVE, Name: "SLAVE"}, {Bit: u.MS_UNBINDABLE, Name: "UNBINDABLE"},
	})
}

// MountOptions lists the options that act on the mount itself and not on its file system.
func MountOptions() []string {
	out := []string{"bind", "rbind", "defaults", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"}
	for _, w := range []string{"ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nodiratime", "diratime", "nosymfollow", "symfollow",
		"noatime", "atime", "strictatime", "relatime", "norelatime", "nostrictatime"} {
		out = append(out, w, "r"+w)
	}
	return out
}
