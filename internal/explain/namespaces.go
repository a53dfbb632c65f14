package explain

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxProcesses bounds the search for members of namespaces.
const maxProcesses = 32768

type nsKind struct {
	file string // below /proc/PID/ns
	spec specs.LinuxNamespaceType
}

func nsKinds() []nsKind {
	return []nsKind{
		{"mnt", specs.MountNamespace}, {"pid", specs.PIDNamespace}, {"net", specs.NetworkNamespace}, {"ipc", specs.IPCNamespace},
		{"uts", specs.UTSNamespace}, {"cgroup", specs.CgroupNamespace}, {"user", specs.UserNamespace}, {"time", specs.TimeNamespace},
	}
}

// inode returns the identity of a namespace: "net:[4026531840]".
func inode(pid, kind string) string {
	s, err := os.Readlink("/proc/" + pid + "/ns/" + kind)
	if err != nil {
		return ""
	}
	return s
}

const ownNamespace, hostNamespace = "its own", "the host's"

// namespacesSection compares whose namespaces were asked for with whose they are.
func namespacesSection(v *view) Section {
	s := Section{Name: "namespaces", Title: "Namespaces"}
	members, complete := v.members()
	for _, k := range nsKinds() {
		planned := v.wantNamespace(k)
		asked := v.why("linux.namespaces " + string(k.spec))
		if v.Pid == 0 {
			s.add(Row{What: k.file, Asked: asked, Planned: planned})
			continue
		}
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", v.Pid, k.file))
		if err != nil {
			s.unread(k.file, asked, planned, err)
			continue
		}
		whose, peers := v.whose(k.file, link)
		count := fmt.Sprintf("%d members", members[link])
		if members[link] == 1 {
			count = "1 member"
		}
		if !complete {
			count = "at least " + count
		}
		row := Row{What: k.file, Asked: asked, Planned: planned, Kernel: fmt.Sprintf("%s %s, %s", strings.TrimPrefix(link, k.file+":"), whose, count)}
		if len(peers) > 0 && whose != hostNamespace {
			row.Note = "shared with " + strings.Join(peers, ", ")
		}
		// A namespace of a container that joined ours is still ours; one that was to be joined must have the other as a member.
		row.Differs = planned != whose && !(strings.HasPrefix(planned, "container ") && slices.Contains(peers, planned) && whose == ownNamespace)
		if planned == v.Joined[string(k.spec)] && planned != "" && whose == ownNamespace {
			row.Kernel = strings.Replace(row.Kernel, ownNamespace, planned+"'s", 1)
		}
		s.add(row)
	}
	return s
}

// wantNamespace says whose namespace the configuration asks for.
func (v *view) wantNamespace(k nsKind) string {
	if v.Spec.Linux == nil {
		return ""
	}
	for _, n := range v.Spec.Linux.Namespaces {
		if n.Type != k.spec {
			continue
		}
		if j := v.Joined[string(k.spec)]; j != "" {
			return j
		}
		return ownNamespace
	}
	return hostNamespace
}

// whose tells whether a namespace is the engine's own (the host's, as far as it knows), and which other containers are in it.
func (v *view) whose(kind, link string) (string, []string) {
	var peers []string
	for _, p := range v.Peers {
		if p.Pid != v.Pid && inode(strconv.Itoa(p.Pid), kind) == link {
			peers = append(peers, "container "+p.Name)
		}
	}
	// thread-self: a thread of ours that is in another namespace for a moment may be the first one.
	if inode("thread-self", kind) == link {
		return hostNamespace, peers
	}
	return ownNamespace, peers
}

// members counts the processes in each of the container's namespaces.
func (v *view) members() (count map[string]int, complete bool) {
	count = map[string]int{}
	if v.Pid == 0 {
		return count, true
	}
	for _, k := range nsKinds() {
		if l := inode(strconv.Itoa(v.Pid), k.file); l != "" {
			count[l] = 0
		}
	}
	d, err := os.Open("/proc")
	if err != nil {
		return count, false
	}
	defer d.Close()
	names, err := d.Readdirnames(maxProcesses)
	for _, n := range names {
		if n[0] < '0' || n[0] > '9' {
			continue
		}
		for _, k := range nsKinds() {
			l := inode(n, k.file)
			if _, ours := count[l]; ours {
				count[l]++
			}
		}
	}
	return count, err == nil && len(names) < maxProcesses
}
