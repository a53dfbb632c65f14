// Package cgroup finds the machine's cgroup hierarchies, carries out plans for them (package plan), and reads, freezes, empties and
// removes a container's directories in v1, hybrid and v2 alike.
//
// It promises bounded reads, no leaked descriptor, and that it only touches directories below a mount point that the caller named.
// It must never mount or unmount anything, and never signal a process that the container's directories do not list.
package cgroup

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/linux/mountinfo"
)

// Limits of what is read.
const (
	maxMountinfo   = 4 << 20
	maxFile        = 1 << 20
	maxProcCgroup  = 64 << 10 // a path for each hierarchy
	maxControllers = 4 << 10
)

// Detect asks /proc which hierarchies are mounted and where we are in them. A machine without any is an error of kind Unavailable.
func Detect() (plan.Layout, error) {
	mounts, err := read("/proc/self/mountinfo", maxMountinfo)
	if err != nil {
		return plan.Layout{}, err
	}
	self, err := atomicfile.ReadRecord("/proc/self/cgroup", maxProcCgroup)
	if err != nil {
		return plan.Layout{}, err
	}
	l, err := Parse(mounts, self)
	if err != nil || l.Unified == "" {
		return l, err
	}
	controllers, err := atomicfile.ReadRecord(path.Join(l.Unified, "cgroup.controllers"), maxControllers)
	if err != nil {
		return plan.Layout{}, err
	}
	l.UnifiedControllers = strings.Fields(string(controllers))
	return l, nil
}

// Parse reads a layout out of /proc/PID/mountinfo and /proc/PID/cgroup (proc_pid_mountinfo(5), cgroups(7)); it leaves
// UnifiedControllers empty. Where a hierarchy is mounted several times the first mount that shows our own cgroup counts.
func Parse(table, selfCgroup []byte) (plan.Layout, error) {
	var l plan.Layout
	mounts := parseMounts(table)
	for line := range bytes.Lines(selfCgroup) {
		parts := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(parts) != 3 || !path.IsAbs(parts[2]) {
			continue
		}
		own := path.Clean(strings.TrimSuffix(parts[2], " (deleted)"))
		if parts[1] == "" {
			if m, ok := pick(mounts, "", own); ok {
				l.Unified, l.SelfUnified = m.point, m.below(own)
			}
			continue
		}
		names := strings.Split(parts[1], ",")
		if m, ok := pick(mounts, names[0], own); ok {
			l.Controllers = append(l.Controllers, plan.Controller{Names: names, Mount: m.point, Self: m.below(own)})
		}
	}
	slices.Reverse(l.Controllers) // the kernel lists the newest hierarchy first
	switch {
	case l.Unified != "" && len(l.Controllers) > 0:
		l.Mode = plan.Hybrid
	case l.Unified != "":
		l.Mode = plan.V2
	case len(l.Controllers) > 0:
		l.Mode = plan.V1
	default:
		return l, errdef.New(errdef.Unavailable, "cgroup: no hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup")
	}
	return l, nil
}

// mounted is one cgroup mount: root is the part of the hierarchy that point shows, options are the controllers (v1).
type mounted struct {
	root, point string
	v2          bool
	options     []string
}

// below says where the cgroup own of the hierarchy is below point.
func (m mounted) below(own string) string {
	if m.root == "/" {
		return own
	}
	if rest, ok := strings.CutPrefix(own, m.root); ok && (rest == "" || rest[0] == '/') {
		return path.Join("/", rest)
	}
	return "/"
}

func (m mounted) shows(own string) bool {
	return m.root == "/" || own == m.root || strings.HasPrefix(own, m.root+"/")
}

// pick finds the mount of a controller; of the v2 hierarchy if controller is "".
func pick(mounts []mounted, controller, own string) (mounted, bool) {
	var found []mounted
	for _, m := range mounts {
		if m.v2 == (controller == "") && (m.v2 || slices.Contains(m.options, controller)) {
			if m.shows(own) {
				return m, true
			}
			found = append(found, m)
		}
	}
	if len(found) == 0 {
		return mounted{}, false
	}
	return found[0], true
}

func parseMounts(table []byte) []mounted {
	var all []mounted
	for line := range bytes.Lines(table) {
		before, after, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 3 || (g[0] != "cgroup" && g[0] != "cgroup2") {
			continue
		}
		m := mounted{root: mountinfo.Unescape(f[3]), point: mountinfo.Unescape(f[4]), v2: g[0] == "cgroup2", options: strings.Split(g[2], ",")}
		if path.IsAbs(m.root) && path.IsAbs(m.point) && m.point == path.Clean(m.point) {
			all = append(all, m)
		}
	}
	return all
}

// check refuses directories that are not strictly below their mount point.
func check(d plan.Dir) error {
	if d.Mount == "" || !path.IsAbs(d.Mount) || path.Clean(d.Path) != d.Path || !strings.HasPrefix(d.Path, d.Mount+"/") {
		return fmt.Errorf("cgroup %q: not below its mount point %q", d.Path, d.Mount)
	}
	return nil
}
