// Package passwd owns the reading of a container's /etc/passwd and /etc/group: who "USER[:GROUP]" is.
//
// It promises that a word of digits is always a number and never a name, that numbers are in range, and that it reads no
// more than Limit bytes of either file. It must never open a file: the caller does, through a handle on the container's root.
package passwd

import (
	"bufio"
	"bytes"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Limit bounds each file, in bytes.
const Limit = 1 << 20

// User is who a process runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary, without GID, ascending
	Home     string
}

// Resolve finds who user ("", "u", "u:g") is. A nil reader is an absent file. extra are --group-add's groups.
func Resolve(user string, extra []string, passwdFile, groupFile io.Reader) (User, error) {
	people, err := fields(passwdFile, "/etc/passwd")
	if err != nil {
		return User{}, err
	}
	groups, err := fields(groupFile, "/etc/group")
	if err != nil {
		return User{}, err
	}
	name, group, hasGroup := strings.Cut(user, ":")
	if name == "" {
		name = "0"
	}
	u, login, err := person(name, people)
	if err != nil {
		return User{}, err
	}
	more := map[uint32]bool{}
	if hasGroup && group != "" {
		if u.GID, err = gid(group, groups); err != nil {
			return User{}, err
		}
	} else {
		for _, g := range groups {
			if login != "" && len(g) >= 4 && slices.Contains(strings.Split(g[3], ","), login) {
				if n, ok := number(g[2]); ok {
					more[n] = true
				}
			}
		}
	}
	for _, g := range extra {
		n, err := gid(g, groups)
		if err != nil {
			return User{}, err
		}
		more[n] = true
	}
	for g := range more {
		u.Groups = append(u.Groups, g)
	}
	slices.Sort(u.Groups)
	return u, nil
}

// person looks a user up; login is the name in the file, empty when the user is only a number.
func person(name string, people [][]string) (u User, login string, err error) {
	id, numeric, err := parse(name)
	if err != nil {
		return u, "", errdef.New(errdef.InvalidArgument, "user %q: %w", name, err)
	}
	for _, p := range people {
		if len(p) < 6 {
			continue
		}
		uid, ok := number(p[2])
		gid, ok2 := number(p[3])
		if !ok || !ok2 || numeric && uid != id || !numeric && p[0] != name {
			continue
		}
		return User{UID: uid, GID: gid, Home: p[5]}, p[0], nil
	}
	if !numeric {
		return u, "", errdef.New(errdef.InvalidArgument, "unable to find user %s: no matching entries in passwd file", name)
	}
	home := "/"
	if id == 0 {
		home = "/root"
	}
	return User{UID: id, Home: home}, "", nil
}

func gid(name string, groups [][]string) (uint32, error) {
	id, numeric, err := parse(name)
	if err != nil {
		return 0, errdef.New(errdef.InvalidArgument, "group %q: %w", name, err)
	}
	if numeric {
		return id, nil
	}
	for _, g := range groups {
		if len(g) >= 3 && g[0] == name {
			if n, ok := number(g[2]); ok {
				return n, nil
			}
		}
	}
	return 0, errdef.New(errdef.InvalidArgument, "unable to find group %s: no matching entries in group file", name)
}

// parse tells a number from a name. Digits only are a number whatever the files say; -1 is the kernel's "unchanged" and no ID.
func parse(s string) (id uint32, numeric bool, err error) {
	if strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	n, ok := number(s)
	if !ok {
		return 0, true, errdef.New(errdef.InvalidArgument, "must be between 0 and 4294967294")
	}
	return n, true, nil
}

func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}

func fields(r io.Reader, name string) ([][]string, error) {
	if r == nil {
		return nil, nil
	}
	all, err := io.ReadAll(io.LimitReader(r, Limit+1))
	if err != nil {
		return nil, errdef.New(errdef.System, "read the container's %s: %w", name, err)
	}
	if len(all) > Limit {
		return nil, errdef.New(errdef.InvalidArgument, "the container's %s is larger than %d bytes", name, Limit)
	}
	var out [][]string
	sc := bufio.NewScanner(bytes.NewReader(all))
	sc.Buffer(nil, Limit+1)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		out = append(out, strings.Split(line, ":"))
	}
	return out, sc.Err()
}
