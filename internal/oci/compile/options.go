package compile

import (
	"strings"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// options are a mount's options, sorted by what they act on.
type options struct {
	set, clear        uint64 // MOUNT_ATTR_* of the mount itself
	rset, rclear      uint64 // the same for all mounts below it too
	super, superClear uint64 // MS_* of the file system
	propagation       uint64 // MS_SHARED, ...; 0: as it is
	recursive         bool   // of the propagation
	bind, rbind       bool
	remount, copyUp   bool
	idmap, ridmap     bool
	data              []string // for the file system: key or key=value
}

// parseOptions understands mount(8)'s words as runtime-spec's config.md lists them; a word that it does not know is the file system's.
func parseOptions(list []string) (options, error) {
	var o options
	for _, w := range list {
		switch {
		case w == "defaults" || w == "":
		case w == "bind":
			o.bind = true
		case w == "rbind":
			o.bind, o.rbind = true, true
		case w == "remount":
			o.remount = true
		case w == "tmpcopyup":
			o.copyUp = true
		case w == "idmap":
			o.idmap = true
		case w == "ridmap":
			o.idmap, o.ridmap = true, true
		case o.attribute(w) || o.propagate(w) || o.superblock(w):
		default:
			o.data = append(o.data, splitData(w)...)
		}
	}
	if o.remount && (o.idmap || o.copyUp || o.rbind) {
		return o, optionError("remount changes a mount that is there: it goes with none of rbind, idmap, tmpcopyup")
	}
	return o, nil
}

type optionError string

func (e optionError) Error() string { return string(e) }

// splitData takes a list apart as file systems do, at commas outside quotes.
func splitData(w string) []string {
	var out []string
	quoted, from := false, 0
	for i := 0; i <= len(w); i++ {
		switch {
		case i == len(w) || w[i] == ',' && !quoted:
			if d := w[from:i]; d != "" {
				out = append(out, d)
			}
			from = i + 1
		case w[i] == '"':
			quoted = !quoted
		}
	}
	return out
}

// superFlag is a flag of a file system, by the words that set and clear it (mount(8), FILESYSTEM-INDEPENDENT MOUNT OPTIONS).
type superFlag struct {
	Bit       uint64
	Name, Off string
	Old       bool // only mount(2) knows it
}

func superFlags() []superFlag {
	return []superFlag{{u.MS_SYNCHRONOUS, "sync", "async", false}, {u.MS_DIRSYNC, "dirsync", "", false}, {u.MS_LAZYTIME, "lazytime", "nolazytime", false},
		{u.MS_MANDLOCK, "mand", "nomand", false}, {u.MS_SILENT, "silent", "loud", true}, {u.MS_I_VERSION, "iversion", "noiversion", true}}
}

func (o *options) superblock(w string) bool {
	for _, f := range superFlags() {
		switch w {
		case f.Name:
			o.super, o.superClear = o.super|f.Bit, o.superClear&^f.Bit
			return true
		case f.Off:
			o.super, o.superClear = o.super&^f.Bit, o.superClear|f.Bit
			return true
		}
	}
	return false
}

// classic tells whether only mount(2) can say what the options ask for: fsconfig(2) does not know two flags, and takes values of up to 255 bytes.
func (o *options) classic() bool {
	for _, d := range o.data {
		if _, v, _ := strings.Cut(d, "="); len(v) > 255 {
			return true
		}
	}
	return o.super&(u.MS_SILENT|u.MS_I_VERSION) != 0
}

// mountFlags are attributes of a mount as mount(2) takes them.
func mountFlags(attr uint64) uint64 {
	flags := attr & (u.MS_RDONLY | u.MS_NOSUID | u.MS_NODEV | u.MS_NOEXEC) // the same in both
	for _, f := range [][2]uint64{{u.MOUNT_ATTR_NOATIME, u.MS_NOATIME}, {u.MOUNT_ATTR_STRICTATIME, u.MS_STRICTATIME},
		{u.MOUNT_ATTR_NODIRATIME, u.MS_NODIRATIME}, {u.MOUNT_ATTR_NOSYMFOLLOW, u.MS_NOSYMFOLLOW}} {
		if attr&f[0] != 0 {
			flags |= f[1]
		}
	}
	return flags
}

func mountText(flags uint64) string {
	return prog.Flags(flags, []prog.FlagName{{Bit: u.MS_RDONLY, Name: "RDONLY"}, {Bit: u.MS_NOSUID, Name: "NOSUID"}, {Bit: u.MS_NODEV, Name: "NODEV"},
		{Bit: u.MS_NOEXEC, Name: "NOEXEC"}, {Bit: u.MS_SYNCHRONOUS, Name: "SYNCHRONOUS"}, {Bit: u.MS_REMOUNT, Name: "REMOUNT"}, {Bit: u.MS_MANDLOCK, Name: "MANDLOCK"},
		{Bit: u.MS_DIRSYNC, Name: "DIRSYNC"}, {Bit: u.MS_NOSYMFOLLOW, Name: "NOSYMFOLLOW"}, {Bit: u.MS_NOATIME, Name: "NOATIME"},
		{Bit: u.MS_NODIRATIME, Name: "NODIRATIME"}, {Bit: u.MS_BIND, Name: "BIND"}, {Bit: u.MS_SILENT, Name: "SILENT"}, {Bit: u.MS_I_VERSION, Name: "I_VERSION"},
		{Bit: u.MS_STRICTATIME, Name: "STRICTATIME"}, {Bit: u.MS_LAZYTIME, Name: "LAZYTIME"}})
}

func (o *options) attribute(w string) bool {
	set, clear := &o.set, &o.clear
	bit, on := attributeBit(w)
	if bit == 0 && strings.HasPrefix(w, "r") {
		if bit, on = attributeBit(w[1:]); bit != 0 {
			set, clear = &o.rset, &o.rclear
			if mask := max(bit&^atimeMode, u.MOUNT_ATTR__ATIME*(bit>>63)); mask != 0 { // the word that comes last counts
				o.set, o.clear = o.set&^mask, o.clear&^mask
			}
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
	out := []string{"async", "bind", "defaults", "dirsync", "idmap", "iversion", "lazytime", "loud", "mand", "noiversion", "nolazytime", "nomand", "rbind", "remount",
		"ridmap", "silent", "sync", "tmpcopyup", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"}
	for _, w := range []string{"ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nodiratime", "diratime", "nosymfollow", "symfollow",
		"noatime", "atime", "strictatime", "relatime", "norelatime", "nostrictatime"} {
		out = append(out, w, "r"+w)
	}
	return out
}
